"""Starts MLflow's UI for the runs kept on this machine: ``python -m src.ui --help``."""

from src.support import signals

if __name__ == "__main__":  # the imports below take a second, and show no traceback of a signal
    signals.leave_at_once_on_signals()

import argparse
import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from omegaconf import OmegaConf

from src.runs.tracking import Tracking
from src.support.errors import InvalidValue, UserError
from src.support.masking import mask
from src.support.paths import CONF
from src.terminal import report
from src.terminal.ending import ending_in_order
from src.tracking.links import DEFAULT_PORT, is_server, view_link
from src.tracking.store import open_tracking, server_command
from src.tracking.view import ALL_RUNS, comparison, view_tag


def main() -> None:
    """Show the link to the runs and serve the UI until Ctrl-C.

    Exits with 130 after Ctrl-C, and with 2 if the port is in use or the store can't be opened.
    """
    parser = argparse.ArgumentParser(prog="python -m src.ui", description=__doc__)
    defaults = OmegaConf.load(CONF / "config.yaml")
    parser.add_argument("--port", type=_port, default=DEFAULT_PORT, help="of the UI's address")
    parser.add_argument(
        "--outputs",
        type=Path,
        default=Path(defaults.outputs),
        help="the folder that holds the database, unless MLFLOW_TRACKING_URI names a store",
    )
    chosen = parser.parse_args()
    with ending_in_order():
        _show(chosen.outputs, chosen.port)


def _show(outputs: Path, port: int) -> None:
    """Show the link to the runs, and serve it unless a server does so already. Raises UserError."""
    settings = OmegaConf.load(CONF / "tracking" / "local.yaml")
    uri = os.environ.get("MLFLOW_TRACKING_URI") or None
    try:
        tracking = Tracking(uri, settings.experiment)
    except InvalidValue as error:
        raise UserError(f"MLFLOW_TRACKING_URI={mask(str(uri))}: {error.rule}") from None
    store = tracking.store(outputs)
    client, experiment_id = open_tracking(tracking, outputs)
    view = comparison("", "val/accuracy", ["model", "lr"])
    client.set_experiment_tag(experiment_id, view_tag(ALL_RUNS), view)
    report.fact("MLflow", view_link(store, experiment_id, ALL_RUNS, port))
    if not is_server(store):
        _require_free(port)
        _serve(store, port)


def _serve(store: str, port: int) -> None:
    """Run the server until a signal ends this process; a session of its own keeps it from those."""
    command, environment = server_command(store, port)
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        sys.exit(process.wait())
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65_536:
        raise argparse.ArgumentTypeError(
            f"{text} is not a port: it must be a number from 1 to 65535"
        )
    return int(text)


def _require_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server itself will
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise UserError(
                f"port {port}: {error.strerror}; choose another one with make ui PORT=5001"
            ) from None


if __name__ == "__main__":
    main()
