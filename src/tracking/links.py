"""Where a browser shows what MLflow holds."""

import shlex
from pathlib import Path
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


def run_link(store: str, experiment_id: str, run_id: str) -> str:
    """Return where a browser shows a run."""
    return f"{ui_address(store)}/#/experiments/{experiment_id}/runs/{run_id}?{urlencode(_TRAINING)}"


def view_link(store: str, experiment_id: str, key: str, port: int = DEFAULT_PORT) -> str:
    """Return where a browser compares runs, in the view of this key that ``src.tracking.view`` arranged."""
    query = urlencode({**_TRAINING, "compareRunsMode": "CHART", "viewStateShareKey": key})
    return f"{ui_address(store, port)}/#/experiments/{experiment_id}/runs?{query}"


def with_ui(link: str, store: str, outputs: Path) -> str:
    """Return a link, led by the command that starts the UI which answers it, where that is not a server of its own."""
    if is_server(store):
        return link
    default = Path(__file__).parents[2] / "outputs"
    command = (
        "make ui"
        if outputs.absolute() == default
        else f"python -m src.ui --outputs {shlex.quote(str(outputs.absolute()))}"
    )
    return f"{command}, then {link}"
