"""Starts MLflow's UI for the runs kept on this machine: ``python -m src.ui [PORT]``."""

import os
import socket
import sys
from pathlib import Path

from omegaconf import OmegaConf

from src import report
from src.config import CONF
from src.errors import UserError
from src.tracking.links import DEFAULT_PORT, is_server, view_link
from src.tracking.store import open_store, server_command
from src.tracking.tracker import Tracking
from src.tracking.view import ALL_RUNS, comparison, view_tag


def main() -> None:
    """Show the link, then become the server, so that Ctrl-C reaches it."""
    outputs = Path(OmegaConf.load(CONF / "config.yaml").outputs)
    port = int(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT_PORT
    tracking = Tracking(
        os.environ.get("MLFLOW_TRACKING_URI"), OmegaConf.load(CONF / "tracking" / "local.yaml").experiment
    )
    store = tracking.store(outputs)
    try:
        client, experiment_id = open_store(store, tracking.experiment, outputs)
        client.set_experiment_tag(experiment_id, view_tag(ALL_RUNS), comparison("", "val/accuracy", ["model", "lr"]))
        report.fact("MLflow", view_link(store, experiment_id, ALL_RUNS, port))
        if is_server(store):
            return
        _require_free(port)
    except UserError as error:
        report.problem(str(error))
        sys.exit(2)
    command, environment = server_command(store, port)
    os.execvpe(command[0], command, environment)  # noqa: S606 (no shell is wanted)


def _require_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server itself will
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise UserError(f"port {port}: {error.strerror}; another can be chosen with make ui PORT=5001") from None


if __name__ == "__main__":
    main()
