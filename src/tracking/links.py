"""Links to the pages of MLflow's UI."""

import shlex
from pathlib import Path
from urllib.parse import urlencode, urlsplit

from src.runs.tracking import database_uri
from src.support.masking import mask
from src.support.paths import SOURCE

DEFAULT_PORT = 5000
_DEFAULT = SOURCE.parent / "outputs"


def is_server(store: str) -> bool:
    """Return whether a store is an MLflow server, which has its own UI."""
    return urlsplit(store).scheme in ("http", "https")


def ui_address(store: str, port: int = DEFAULT_PORT) -> str:
    """Return the address of a store's UI: the server itself, or the one that ``make ui`` starts.

    It holds no password.
    """
    parts = urlsplit(store)
    if is_server(store):
        at = f":{parts.port}" if parts.port else ""
        return f"{parts.scheme}://{parts.hostname}{at}{parts.path.rstrip('/')}"
    return f"http://127.0.0.1:{port}"


# Without it, the UI opens in its view for generative AI, which hides training runs.
_TRAINING = {"workflowType": "machine_learning"}


def run_link(store: str, experiment_id: str, run_id: str) -> str:
    """Return the link to a run's page."""
    return f"{ui_address(store)}/#/experiments/{experiment_id}/runs/{run_id}?{urlencode(_TRAINING)}"


def view_link(store: str, experiment_id: str, key: str, port: int = DEFAULT_PORT) -> str:
    """Return the link to the view of runs that ``src.tracking.view`` arranged under a key."""
    query = urlencode({**_TRAINING, "compareRunsMode": "CHART", "viewStateShareKey": key})
    return f"{ui_address(store, port)}/#/experiments/{experiment_id}/runs?{query}"


def sync_command(folder: Path, outputs: Path) -> str:
    """Return the command that tells MLflow later what it does not have of a run or a sweep."""
    place = "" if outputs.absolute() == _DEFAULT else f"--outputs {shlex.quote(str(outputs))} "
    return f"python -m src.sync {place}{shlex.quote(str(folder))}"


def with_ui(link: str, store: str, outputs: Path) -> str:
    """Return a link and, if the store is not a server, the command to start its UI before it."""
    if is_server(store):
        return link
    if store != database_uri(outputs.absolute() / "mlflow.db"):
        command = f"MLFLOW_TRACKING_URI={shlex.quote(mask(store))} make ui"
    elif outputs.absolute() == _DEFAULT:
        command = "make ui"
    else:
        command = f"python -m src.ui --outputs {shlex.quote(str(outputs.absolute()))}"
    return f"{command}, then {link}"
