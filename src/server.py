"""Starts an MLflow server for a team, with PostgreSQL: ``python -m src.server --help``."""

from src.support import signals

if __name__ == "__main__":  # the imports below take a second, and show no traceback of a signal
    signals.leave_at_once_on_signals()

import argparse
import contextlib
import os
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from src.support.errors import UserError
from src.terminal import report
from src.terminal.ending import ending_in_order
from src.tracking.links import DEFAULT_PORT
from src.tracking.team_server import TeamServer, settings


def main() -> None:
    """Start the server, say how to use it, and serve until Ctrl-C or SIGTERM.

    Exits with 2 if PostgreSQL or a package is missing.
    """
    parser = argparse.ArgumentParser(prog="python -m src.server", description=__doc__)
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="of the server's address")
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="the address to listen at; beyond this machine a password is needed",
    )
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path("outputs", "server"),
        help="for the database and the files",
    )
    parser.add_argument(
        "--database",
        default=os.environ.get("SCRATCHGRID_DATABASE"),
        help="the URI of a PostgreSQL that is there; SCRATCHGRID_DATABASE may hold it, too. "
        "Without it, one is started in the folder",
    )
    parser.add_argument("--workers", type=int, default=4, help="processes that answer")
    chosen = parser.parse_args()
    with ending_in_order():
        _serve(TeamServer(chosen.folder, chosen.host, chosen.port, chosen.workers, chosen.database))


def _serve(server: TeamServer) -> None:
    needed = {"psycopg": True, "flask_wtf": server.needs_password}
    missing = [name for name, wanted in needed.items() if wanted and find_spec(name) is None]
    if missing:
        raise UserError(f"{', '.join(missing)}: not installed; pip install '.[server]' adds it")
    with server.open_database() as database:
        command, environment = server.command(database)
        for name, value in settings(server).items():
            report.fact("use it", f"export {name}={value}")
        if server.needs_password:
            report.fact("password", f"MLFLOW_TRACKING_PASSWORD is in {server.folder}/account.ini")
        process = subprocess.Popen(command, env=environment, start_new_session=True)
        try:
            sys.exit(process.wait())
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.wait()


if __name__ == "__main__":
    main()
