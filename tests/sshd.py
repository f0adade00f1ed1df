"""An SSH server of this machine from Debian's package openssh-server, with keys of its own."""

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import ROOT

HOSTS = ("alpha", "beta")  # names under which it can be reached


def missing() -> str | None:
    """Return why there can be no server here, or None."""
    absent = [name for name in ("sshd", "ssh-keygen") if _program(name) is None]
    return f"{', '.join(absent)}: apt-get install openssh-server" if absent else None


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")


@contextlib.contextmanager
def sshd(folder: Path) -> Iterator[dict[str, str]]:
    """Start a server, and yield the environment in which clients find it as each of ``HOSTS``."""
    own = folder / ".ssh"
    own.mkdir(parents=True)
    for name in ("host", "user"):
        subprocess.run(
            [str(_program("ssh-keygen")), "-q", "-t", "ed25519", "-N", "", "-f", str(own / name)],
            check=True,
        )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (own / "sshd_config").write_text(f"""
ListenAddress 127.0.0.1
Port {port}
HostKey {own}/host
PidFile {own}/pid
AuthorizedKeysFile {own}/user.pub
StrictModes no
UsePAM no
PasswordAuthentication no
SetEnv PYTHONPATH={ROOT} STARTED_BY={folder}
""")
    (own / "config").write_text(f"""
Host {" ".join(HOSTS)}
  HostName 127.0.0.1
  Port {port}
  User {getpass.getuser()}
  IdentityFile {own}/user
  UserKnownHostsFile {own}/known_hosts
""")
    public = (own / "host.pub").read_text()
    (own / "known_hosts").write_text(f"[127.0.0.1]:{port} {public}")
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # sshd wants it, and has no setting for it
    command = [str(_program("sshd")), "-D", "-e", "-f", str(own / "sshd_config")]
    with (folder / "sshd.log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        _wait_for(port, server)
        yield {**os.environ, "HOME": str(folder)}
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait()


def _wait_for(port: int, server: "subprocess.Popen[bytes]") -> None:
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        assert server.poll() is None, "see sshd.log"
        time.sleep(0.1)
