"""Folders of runs as they are at a moment, and what MLflow then has of them."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from mlflow import MlflowClient

from src.nn.layers import ReLU
from src.nn.losses import SoftmaxCrossEntropy
from src.nn.network import MLP
from src.nn.weights import save_weights
from src.runs.folder import HISTORY, WEIGHTS
from src.runs.record import Record
from src.support.serialization import to_plain

START = 1_000_000
Opened = tuple[MlflowClient, str]  # a client, and the id of the experiment


def begun(folder: Path, *epochs: int, **changes: Any) -> Record:
    """Write the folder of a run that has trained these epochs."""
    (folder / ".hydra").mkdir(parents=True, exist_ok=True)
    (folder / ".hydra" / "config.yaml").write_text("lr: 0.1\n")
    dataset = {"images": ["uint8", [5, 4]], "labels": ["int64", [5]]}
    made = Record(
        "a run",
        ["lr=0.1"],
        "val/loss",
        **{
            "key": f"key of {folder}",
            "started": START,
            "epochs": 3,
            "settings": {"lr": "0.1", "seed": "1"},
            "dataset": {"name": "tiny", "digest": "d" * 32, "description": "data", **dataset},
            "first": {"layers/1/spread": 2.5},
            **changes,
        },
    )
    made.write(folder)
    trained(folder, *epochs)
    return made


def trained(folder: Path, *epochs: int) -> None:
    """Let the history have these epochs, of a second each."""
    lines = [f"{n},{n / 10},{n},{START + 1000 * n}" for n in epochs]
    (folder / HISTORY).write_text("\n".join(["epoch,val/loss,updates,time", *lines, ""]))


def ended(folder: Path, status: str = "FINISHED", **changes: Any) -> None:
    """Let the run in a folder end."""
    known: dict[str, Any] = {"status": status, "seconds": 3.5}
    if status == "FINISHED":
        known |= {"value": 0.3, "metrics": {"val/loss": 0.3, "val/best/loss": 0.1}}
    replace(Record.load(folder), **{**known, **changes}).write(folder)


def with_network(folder: Path) -> dict[str, Any]:
    """Write the weights of a network; return its description."""
    model, rng = MLP(4, (3,), 3, ReLU()), np.random.default_rng(0)
    shapes = [[(4, 3), (3,)], [(3, 3), (3,)]]
    arrays = [tuple(rng.normal(size=s).astype(np.float32) for s in own) for own in shapes]
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(folder / WEIGHTS, model.layers, (arrays[0], (), arrays[1]))
    plain = {"model": to_plain(model), "loss": to_plain(SoftmaxCrossEntropy())}
    return {**plain, "scale": 0.5, "dtype": "float32", "outputs": 3, "plugins": []}


def in_mlflow(opened: Opened, folder: Path) -> dict[str, Any]:
    """Return all that MLflow has of the run in a folder, but for what differs with the folder."""
    client, experiment = opened
    (run,) = client.search_runs([experiment], f"tags.key = '{Record.load(folder).key}'")
    run_id = run.info.run_id
    points = {
        key: sorted((p.step, p.value, p.timestamp) for p in client.get_metric_history(run_id, key))
        for key in run.data.metrics
    }
    tags = json.dumps(dict(sorted(run.data.tags.items()))).replace(str(folder), "")
    models = client.search_logged_models([experiment], filter_string=f"source_run_id = '{run_id}'")
    linked = run.outputs.model_outputs if run.outputs else []
    used = run.inputs.dataset_inputs if run.inputs else []
    return {
        "name": run.info.run_name,
        "times": (run.info.status, run.info.start_time, run.info.end_time),
        "params": run.data.params,
        "tags": tags,
        "points": points,
        "files": artifacts(client, run_id),
        "data": [one.dataset.digest for one in used],
        "models": ([model.status for model in models], len(linked)),
    }


def artifacts(client: MlflowClient, run_id: str, folder: str | None = None) -> set[str]:
    """Return the paths of a run's files in MLflow."""
    found: set[str] = set()
    for file in client.list_artifacts(run_id, folder):
        found |= artifacts(client, run_id, file.path) if file.is_dir else {file.path}
    return found


class Killed(BaseException):
    """The process dies here."""


class Spy:
    """A client that counts its calls; ``before`` and ``after`` are called with their numbers."""

    def __init__(
        self,
        client: MlflowClient,
        before: Callable[[int, str, Any], None] = lambda *_: None,
        after: Callable[[int, str, Any], None] = lambda *_: None,
    ) -> None:
        self._client, self._before, self._after = client, before, after
        self.calls: list[tuple[str, tuple[Any, ...]]] = []

    @property
    def counts(self) -> Counter[str]:
        return Counter(name for name, _ in self.calls)

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._client, name)
        if not callable(call):
            return call

        def counted(*given: Any, **named: Any) -> Any:
            self.calls.append((name, given))
            number = len(self.calls)
            self._before(number, name, given)
            answer = call(*given, **named)
            self._after(number, name, given)
            return answer

        return counted
