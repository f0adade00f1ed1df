"""An MLflow server for a team: PostgreSQL keeps the runs, a folder the files."""

import contextlib
import os
import pwd
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from src.support.errors import UserError

_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_DEBIAN = "/usr/lib/postgresql"
_DRIVER = "postgresql+psycopg://"  # what SQLAlchemy takes without it depends on its version
_STARTING = 60.0  # seconds for PostgreSQL
_ACCOUNT = "admin"
# A process of MLflow answers 40 requests at a time, and a request may need two connections at once.
# With MLflow's default of 15, requests wait for each other until they time out after 30 seconds.
_REQUESTS, _CONNECTIONS = 40, 120


@dataclass(frozen=True)
class TeamServer:
    """Where a server listens, and the folder that holds everything it keeps.

    With ``database``, the URI of a PostgreSQL that is there, none is started.
    """

    folder: Path
    host: str
    port: int
    workers: int
    database: str | None

    @property
    def needs_password(self) -> bool:
        """Whether others than the users of this machine can reach it."""
        return self.host not in _LOOPBACK

    @contextlib.contextmanager
    def open_database(self) -> Iterator[str]:
        """Yield the URI of the database. Raises UserError if there is no PostgreSQL."""
        if self.database:
            yield self.database.replace("postgresql://", _DRIVER, 1)
            return
        connections = self.workers * _CONNECTIONS
        with _postgresql(self.folder.absolute() / "postgresql", connections) as uri:
            yield uri

    def command(self, database: str) -> tuple[list[str], dict[str, str]]:
        """Return MLflow's command and its environment; others see arguments, so no secret is one.

        Beyond this machine everybody needs a name and a password: the file ``account.ini`` in the
        folder holds those of the first account.
        """
        command = [sys.executable, "-m", "mlflow", "server"]
        command += ["--artifacts-destination", str(self.folder.absolute() / "artifacts")]
        command += ["--host", self.host, "--port", str(self.port), "--workers", str(self.workers)]
        environment = {
            **os.environ,
            "MLFLOW_BACKEND_STORE_URI": database,
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        }
        if not self.database:
            environment |= {
                "MLFLOW_SQLALCHEMYSTORE_POOL_SIZE": str(_REQUESTS),
                "MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW": str(_CONNECTIONS - _REQUESTS),
            }
        if self.needs_password:
            command += ["--app-name", "basic-auth"]
            environment["MLFLOW_AUTH_CONFIG_PATH"] = str(self._account())
            environment["MLFLOW_FLASK_SERVER_SECRET_KEY"] = self._secret()
        return command, environment

    def _account(self) -> Path:
        """Return the file with the first account, which is made with a random password."""
        path = self.folder.absolute() / "account.ini"
        if not path.exists():
            text = (
                "[mlflow]\ndefault_permission = EDIT\n"
                f"database_uri = sqlite:///{self.folder.absolute() / 'accounts.db'}\n"
                f"admin_username = {_ACCOUNT}\nadmin_password = {secrets.token_urlsafe(16)}\n"
                "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
            )
            _write_private(path, text)
        return path

    def _secret(self) -> str:
        """Return the key that signs the server's forms."""
        path = self.folder.absolute() / "secret"
        if not path.exists():
            _write_private(path, secrets.token_hex(32))
        return path.read_text(encoding="ascii")


def _write_private(path: Path, text: str) -> None:
    """Write a file that only this user can read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def _postgresql(folder: Path, connections: int) -> Iterator[str]:
    """Run a PostgreSQL of our own with its data in a folder; yield the URI of its database.

    It takes so many ``connections`` at a time, and a few for its keeper.

    It listens on a socket in that folder only, which no other user of this machine can open.
    """
    programs = _programs()
    data, user = folder / "data", _user()
    folder.mkdir(parents=True, exist_ok=True)
    if user:
        shutil.chown(folder, user)
    folder.chmod(0o700)
    if not (data / "PG_VERSION").exists():
        made = subprocess.run(
            [programs / "initdb", "-D", data, "-U", "mlflow", "--auth=trust", "--encoding=UTF8"],
            capture_output=True, text=True, check=False, cwd="/", user=user,
        )  # fmt: skip
        if made.returncode:
            raise UserError(f"{folder}: PostgreSQL can't be set up: {made.stderr.strip()}")
    most = f"max_connections={connections + 20}"
    options = ["-k", str(folder), "-c", "listen_addresses=", "-c", most]
    server = subprocess.Popen(
        [programs / "postgres", "-D", data, *options], cwd="/", start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, user=user,
    )  # fmt: skip
    try:
        _create_database(programs, folder, server)
        yield f"{_DRIVER}mlflow@/mlflow?host={folder}"
    finally:
        server.terminate()
        server.wait()


def _create_database(programs: Path, folder: Path, server: "subprocess.Popen[bytes]") -> None:
    """Create the database once PostgreSQL answers. Raises UserError if it does not."""
    deadline = time.monotonic() + _STARTING
    while True:
        made = subprocess.run(
            [programs / "createdb", "-h", folder, "-U", "mlflow", "mlflow"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if made.returncode == 0 or "already exists" in made.stderr:
            return
        if server.poll() is not None or time.monotonic() > deadline:
            raise UserError(f"{folder}: PostgreSQL does not start: {made.stderr.strip()}")
        time.sleep(0.2)


def _programs() -> Path:
    """Return the folder of PostgreSQL's programs. Raises UserError if it is not installed."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    versions = Path(_DEBIAN).glob("*/bin/initdb")
    newest = max(versions, key=lambda path: int(path.parts[-3].split(".")[0]), default=None)
    if newest is None:
        raise UserError(
            "PostgreSQL is not installed: apt-get install postgresql, or name a database that is "
            "there: make server ARGS='--database postgresql://USER@HOST/NAME'"
        )
    return newest.parent


def _user() -> str | None:
    """Return the user that runs PostgreSQL, which refuses root; None for this one."""
    if os.getuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres").pw_name
    except KeyError:
        raise UserError(
            "PostgreSQL does not run as root: start the server as another user"
        ) from None


def settings(server: TeamServer) -> Mapping[str, str]:
    """Return the environment variables with which a team uses a server, without the password."""
    address = {"MLFLOW_TRACKING_URI": f"http://{server.host}:{server.port}"}
    if not server.needs_password:
        return address
    return {**address, "MLFLOW_TRACKING_USERNAME": _ACCOUNT}
