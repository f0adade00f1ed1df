"""Logs a trained network as an MLflow model, with the code that it needs and without pickle."""

import functools
import hashlib
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.support.paths import SOURCE
from src.support.plugins import source_files
from src.support.temporary import remove_abandoned, scratch_folder

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

_LOADER = "tracking.served_model"
_IMPORT = re.compile(r"^(\s*from )src\.([\w.]+)(?= import )", re.MULTILINE)
_NOT_IN_NAMES = re.compile(r"[/:.%\"']")  # refused by MLflow in the name of a model


def log_model(
    client: "MlflowClient",
    place: tuple[str, str, str],
    described: Mapping[str, Any],
    weights: Path,
) -> None:
    """Log a network as a model that can be loaded and served.

    ``place`` is the id of the experiment, the id of the run, and the run's name. The model holds
    the weights, the description of the network, and a copy of our code that the network needs. That
    copy is a package of its own name, which no other package can shadow.

    A call that is repeated after a failure creates no second model.
    """
    import mlflow
    import numpy as np
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    experiment_id, run_id, name = place
    # A schema of the inputs would accept one dtype only: the served model checks them itself.
    outputs = Schema(
        [
            TensorSpec(np.dtype(np.int64), (-1,), "label"),
            TensorSpec(np.dtype(described["dtype"]), (-1, described["outputs"]), "probabilities"),
        ]
    )
    logged = find_model(client, experiment_id, run_id)
    if logged is None:
        allowed_name = _NOT_IN_NAMES.sub("_", name) or "model"
        logged = client.create_logged_model(experiment_id, allowed_name, source_run_id=run_id)
    remove_abandoned()  # by processes that were killed at this place
    with scratch_folder() as scratch:
        data, code, saved = (scratch / part for part in ("data", "code", "model"))
        data.mkdir()
        (data / "network.json").write_text(json.dumps(described, indent=2), encoding="utf-8")
        shutil.copyfile(weights, data / "weights.npz")
        package = write_code(code, described["plugins"])
        mlflow.pyfunc.save_model(
            str(saved),
            loader_module=f"{package.name}.{_LOADER}",
            data_path=str(data),
            code_paths=[str(package)],
            pip_requirements=[f"mlflow=={mlflow.__version__}", f"numpy=={np.__version__}"],
            mlflow_model=Model(
                artifact_path=logged.artifact_location,
                run_id=run_id,
                model_uuid=logged.model_id,
                model_id=logged.model_id,
                signature=ModelSignature(outputs=outputs),
            ),
        )
        client.log_model_artifacts(logged.model_id, str(saved))
    client.finalize_logged_model(logged.model_id, "READY")
    given = client.get_run(run_id).outputs
    linked = given.model_outputs if given else []
    if logged.model_id not in [output.model_id for output in linked]:
        client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])


def find_model(client: "MlflowClient", experiment_id: str, run_id: str) -> "LoggedModel | None":
    """Return the model of a run, finished or not; None if there is none."""
    wanted = f"source_run_id = '{run_id}'"
    found = client.search_logged_models([experiment_id], filter_string=wanted, max_results=1)
    return found[0] if found else None


def write_code(folder: Path, plugins: Sequence[str] = ()) -> Path:
    """Write the code that a served model needs into a folder, and return the package.

    Plugins whose classes the network uses become a part of it. The package is named by the digest
    of its content. So two models of different code can be loaded into one process, and a package
    ``src`` of somebody else does no harm.
    """
    name, modules = _code(tuple(plugins))
    package = folder / name
    for path, text in modules.items():
        (package / path).parent.mkdir(parents=True, exist_ok=True)
        (package / path).write_text(text, encoding="utf-8")
    return package


@functools.cache  # the code of a process does not change
def _code(plugins: tuple[str, ...]) -> tuple[str, Mapping[str, str]]:
    """Return the package's name and files: loader, plugins, and the modules that they import."""
    files: dict[str, str] = {}
    for plugin in plugins:
        files |= {f"plugins/{file}": text for file, text in source_files(plugin).items()}
    wanted = [_LOADER]
    wanted += [module for text in files.values() for _, module in _IMPORT.findall(text)]
    while wanted:
        path = SOURCE.joinpath(*wanted.pop().split("."))
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        file = path.relative_to(SOURCE).as_posix()
        if file not in files:
            files[file] = path.read_text(encoding="utf-8")
            wanted += [module for _, module in _IMPORT.findall(files[file])]
    digest = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()[:12]
    name = f"scratchgrid_{digest}"
    renamed = {file: _IMPORT.sub(rf"\1{name}.\2", text) for file, text in files.items()}
    for plugin in plugins:
        own = re.compile(rf"^(\s*from ){plugin}(?=[. ])", re.MULTILINE)
        renamed = {
            file: own.sub(rf"\1{name}.plugins.{plugin}", text) for file, text in renamed.items()
        }
    return name, renamed
