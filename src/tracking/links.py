"""Where a browser shows what MLflow holds."""

from collections.abc import Mapping
from urllib.parse import urlencode, urlsplit

DEFAULT_PORT = 5000


def is_server(store: str) -> bool:
    """Tell whether a store is an MLflow server, which brings its own UI."""
    return urlsplit(store).scheme in ("http", "https")


def ui_address(store: str, port: int = DEFAULT_PORT) -> str:
    """Return where the UI of a store answers: the server itself, or the one that ``make ui`` starts. Never a password."""
    parts = urlsplit(store)
    if is_server(store):
        at = f":{parts.port}" if parts.port else ""
        return f"{parts.scheme}://{parts.hostname}{at}{parts.path.rstrip('/')}"
    return f"http://127.0.0.1:{port}"


# Without the workflow type the UI would open in its generative-AI view, which hides training runs.
_TRAINING = {"workflowType": "machine_learning"}


def experiment_link(store: str, experiment_id: str, port: int = DEFAULT_PORT) -> str:
    """Return where a browser lists an experiment's runs beside their curves."""
    return _runs_link(ui_address(store, port), experiment_id, {"compareRunsMode": "CHART"})


def run_link(store: str, experiment_id: str, run_id: str) -> str:
    """Return where a browser shows a run."""
    return f"{ui_address(store)}/#/experiments/{experiment_id}/runs/{run_id}?{urlencode(_TRAINING)}"


def sweep_link(store: str, experiment_id: str, sweep_id: str) -> str:
    """Return where a browser compares the runs of a sweep, in the view that ``src.tracking.view`` arranged."""
    return _runs_link(ui_address(store), experiment_id, {"compareRunsMode": "CHART", "viewStateShareKey": sweep_id})


def _runs_link(address: str, experiment_id: str, query: Mapping[str, str]) -> str:
    return f"{address}/#/experiments/{experiment_id}/runs?{urlencode({**_TRAINING, **query})}"
