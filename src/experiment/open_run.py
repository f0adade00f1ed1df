"""Opens a run, new or interrupted: its folder, its record, its history and its run in MLflow."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import replace

from src.experiment.experiment import Prepared
from src.experiment.history import HistoryFile
from src.experiment.job import Job
from src.experiment.recorder import Recorder
from src.experiment.results import RESULT
from src.experiment.run_context import RunContext
from src.experiment.run_folder import HISTORY, Identity, RunRecord, disown, own, refuse_taken
from src.tracking.provenance import code_digest, git_tags


@contextlib.contextmanager
def record(job: Job, prepared: Prepared, run_context: RunContext) -> Iterator[Recorder]:
    """Open a run and yield its recorder: give it each epoch, then call ``finish``.

    However the block ends, the run leaves its result in its folder and is closed in MLflow with
    the matching status. Several runs may be open at a time. Raises what the block raises, and
    ConfigError if the folder has another owner or holds another run. A store that fails raises
    nothing.
    """
    folder = run_context.folder.absolute()
    own(folder)
    try:
        if not run_context.goes_on:
            refuse_taken(folder)
        with HistoryFile(folder / HISTORY) as history:
            recorder = _open(job, prepared, run_context, history)
            try:
                recorder.begin()
                yield recorder
            except BaseException as error:
                recorder.fail(error)
                raise
        recorder.close()
    finally:
        disown(folder)


def _open(job: Job, prepared: Prepared, run_context: RunContext, history: HistoryFile) -> Recorder:
    """Return the recorder of a new run, or of one that goes on."""
    folder, identity = run_context.folder, Identity.of(prepared)
    epochs, store = job.experiment.epochs, job.tracking
    known = RunRecord.load(folder) if run_context.goes_on else None
    tags = _tags(job, prepared, run_context)
    if known and known.epochs != epochs:  # MLflow keeps the parameter as it was
        tags["epochs"] = str(epochs)
    attempt = known.attempt + 1 if known else 1
    if known:
        tags["attempt"] = str(attempt)
    run_id = known.run_id if known else None
    settings = {key: str(value) for key, value in run_context.settings.items()}
    tracker = store.start(job.outputs, run_context.name, tags, run_id, folder.absolute())
    if known:
        (folder / RESULT).unlink(missing_ok=True)  # the run has not ended any more
        overrides = list(run_context.overrides)
        record = replace(
            known,
            overrides=overrides,
            status="RUNNING",
            epochs=epochs,
            identity=identity,
            settings=settings,
            sizes={name: len(split) for name, split in prepared.dataset.splits()},
            attempt=attempt,
        )
    else:
        record = RunRecord(
            run_context.name,
            list(run_context.overrides),
            int(time.time() * 1000),
            epochs,
            identity,
            settings,
            {name: len(split) for name, split in prepared.dataset.splits()},
            {name: str(value) for name, value in job.tags.items()},
            store.experiment,
            position=run_context.position,
            sweep_id=run_context.sweep_id,
            stack=list(run_context.stack),
            stack_position=run_context.stack_position,
        )
    return Recorder(job, prepared, run_context, tracker, history, record)


def _tags(job: Job, prepared: Prepared, run_context: RunContext) -> dict[str, str]:
    """Return the tags of a run in MLflow: the user's own, and what identifies the run."""
    return {
        **{name: str(value) for name, value in job.tags.items()},
        **({"mlflow.note.content": job.note} if job.note else {}),
        "overrides": " ".join(run_context.overrides),
        "output_dir": str(run_context.away_from or run_context.folder.absolute()),
        "config_digest": job.experiment.digest,
        "data_digest": prepared.dataset.digest,
        "sizes": " ".join(f"{name}={len(split)}" for name, split in prepared.dataset.splits()),
        "code_digest": code_digest(),
        **git_tags(),
        **({"sweep_id": run_context.sweep_id} if run_context.sweep_id else {}),
        **_stack_tags(run_context),
    }


def _stack_tags(run_context: RunContext) -> dict[str, str]:
    """Return with which jobs of its sweep a run was trained: they decide its last bits."""
    if not run_context.stack:
        return {}
    members = " ".join(map(str, run_context.stack))
    return {"stack": members, "stack_position": str(run_context.stack_position)}
