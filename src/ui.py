"""Starts MLflow's UI for the runs kept on this machine: ``python -m src.ui --help``."""

import argparse
import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from omegaconf import OmegaConf

from src.support.errors import UserError
from src.support.paths import CONF
from src.terminal import report
from src.tracking.links import DEFAULT_PORT, is_server, view_link
from src.tracking.store import server_command
from src.tracking.tracker import Tracking
from src.tracking.view import ALL_RUNS, comparison, view_tag


def main() -> None:
    """Show the link, and serve until Ctrl-C. Exits with 2 where the port or the store can't be had."""
    parser = argparse.ArgumentParser(prog="python -m src.ui", description=__doc__)
    parser.add_argument("--port", type=_port, default=DEFAULT_PORT)
    parser.add_argument(
        "--outputs", type=Path, default=Path(OmegaConf.load(CONF / "config.yaml").outputs)
    )
    chosen = parser.parse_args()
    settings = OmegaConf.load(CONF / "tracking" / "local.yaml")
    tracking = Tracking(os.environ.get("MLFLOW_TRACKING_URI"), settings.experiment)
    store = tracking.store(chosen.outputs)
    try:
        client, experiment_id = tracking.open(chosen.outputs)
        client.set_experiment_tag(
            experiment_id, view_tag(ALL_RUNS), comparison("", "val/accuracy", ["model", "lr"])
        )
        report.fact("MLflow", view_link(store, experiment_id, ALL_RUNS, chosen.port))
        if not is_server(store):
            _require_free(chosen.port)
            _serve(store, chosen.port)
    except UserError as error:
        report.problem(str(error))
        sys.exit(2)


def _serve(store: str, port: int) -> None:
    """Run the server in a session of its own, which Ctrl-C does not reach: it is ended without its lament."""
    command, environment = server_command(store, port)
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        sys.exit(process.wait())
    except KeyboardInterrupt:
        pass
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65_536:
        raise argparse.ArgumentTypeError(f"{text} is no port: must be a number from 1 to 65535")
    return int(text)


def _require_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server itself will
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise UserError(
                f"port {port}: {error.strerror}; another can be chosen with make ui PORT=5001"
            ) from None


if __name__ == "__main__":
    main()
