"""Goes on with an interrupted run: ``resume=`` finds it and composes its command again."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from src.config.arguments import prepare
from src.config.composition import compose, composer
from src.config.describe import listed, shortened
from src.config.kept_configuration import read_kept
from src.config.preflight import check
from src.config.reader import flatten
from src.runs.checkpoints import load_checkpoint
from src.runs.context import RunContext
from src.runs.experiment import Prepared
from src.runs.folder import PICTURES, RUN, is_alive
from src.runs.job import Job
from src.runs.record import Identity, Record, status
from src.support.errors import ConfigError, UserError
from src.tracking.told import Told, ids
from src.training.checkpoint import Checkpoint
from src.training.training_run import watched

log = logging.getLogger(__name__)

AUTO = "auto"
_ALLOWED = (
    "epochs",
    "checkpoint.every",
    "outputs",
    "plugins",
    "tracking.uri",
    "tracking.experiment",
    "tracking.offline",
)  # beside resume=FOLDER
_ACCEPTABLE = ("code", "numpy")

_resumed: "Resume | None" = None


def resumed_run() -> "Resume | None":
    """Return the run that this process goes on with, or None if it begins a new one."""
    return _resumed


def resume_or_prepare(arguments: Sequence[str]) -> list[str]:
    """Return the command line's arguments as Hydra takes them.

    With ``resume=`` they are those of the run that goes on. Raises ConfigError if there is no such
    run, and for settings beside ``resume=`` that would change the run.
    """
    global _resumed
    _resumed = None
    wanted, accepted, rest = None, "", []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if equals and key == "resume":
            wanted = value
        elif equals and key == "accept":
            accepted = value
        else:
            rest.append(argument)
    prepared = prepare(rest)
    if wanted is None:
        if accepted:
            raise ConfigError(f"accept={accepted}: goes with resume= only")
        return prepared
    if any(argument in ("-m", "--multirun") for argument in prepared):
        raise ConfigError(f"resume={wanted}: goes on with one run: leave out -m")
    accepts = _accepted(accepted)
    if wanted == AUTO:
        folder = _newest_unfinished(prepared)
        if folder is None:
            return prepared
        of_run = prepared
    else:
        folder = _folder(wanted, prepared)
        of_run = _command(folder, prepared)
    _resumed = Resume(folder, Record.asked(folder), accepts)
    return [*of_run, f"hydra.run.dir={quoted(folder)}"]


def _accepted(value: str) -> frozenset[str]:
    words = frozenset(filter(None, value.split(",")))
    if not words <= set(_ACCEPTABLE):
        raise ConfigError(f"accept={value}: must be {' or '.join(_ACCEPTABLE)}, or code,numpy")
    return words


def quoted(folder: Path) -> str:
    """Return a path as Hydra reads it as one string, whatever letters it has."""
    escaped = str(folder).replace("'", "\\'").replace("${", "\\${")
    return f"'{escaped}'"


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def _folder(wanted: str, given: Sequence[str]) -> Path:
    """Return the folder of a run, given by its path or by its id in MLflow."""
    folder = Path(wanted).expanduser()
    if folder.is_dir():
        return folder
    outputs = next((o.partition("=")[2] for o in given if _key(o) == "outputs"), "outputs")
    for found, _ in _runs(Path(outputs)):
        if (known := ids(found)) and known[1] == wanted:
            return found
    raise ConfigError(
        f"resume={shortened(wanted)}: neither the folder of a run nor the id of a run under "
        f"{outputs}: give one of the folders in {outputs}/runs, or {AUTO}"
    )


def _runs(outputs: Path) -> Iterator[tuple[Path, Record]]:
    """Yield the runs in a folder of outputs, a sweep's included. Damaged ones are left out."""
    for pattern in (f"runs/*/{RUN}", f"sweeps/*/*/{RUN}"):
        for path in sorted(outputs.glob(pattern)):
            try:
                yield path.parent, Record.asked(path.parent)
            except UserError as error:
                log.warning("%s", error)


def _command(folder: Path, given: Sequence[str]) -> list[str]:
    """Return the arguments that began a run, with those that may change.

    Raises ConfigError if others are given, or if the folder does not hold the arguments of a run.
    """
    kept = Record.asked(folder).overrides
    # The file may be a stranger's: it may set what a run has, but not Hydra's own settings.
    if not isinstance(kept, list) or not all(_is_setting(override) for override in kept):
        raise ConfigError(f"{folder / RUN}: its overrides are not the settings of a run")
    typed = [override for override in given if not override.startswith("-")]
    changed = {_key(override) for override in typed}
    if wrong := sorted({_key(one) for one in typed if one not in kept} - set(_ALLOWED)):
        raise ConfigError(
            f"{wrong[0]}: can't be set beside resume=: a run goes on as it began; "
            f"only {listed(_ALLOWED)} may change. For another run leave out resume="
        )
    for override in kept:
        if _key(override) == "plugins" and "plugins" not in changed:
            raise ConfigError(
                f"{override}: the run was begun with plugins, which run code: add {override}"
            )
        if "${" in override and override not in typed:
            raise ConfigError(
                f"{folder / RUN}: the run was begun with {override}: it reads other things; "
                f"add '{override}' if you want that"
            )
    left = [own for own in kept if _key(own) not in changed and _may_be_taken(own, folder)]
    return [*left, *given]


def _may_be_taken(override: str, folder: Path) -> bool:
    """Return whether a run's record may set this: no store, and no place where the run is not."""
    key, _, value = override.lstrip("+").partition("=")
    if key == "outputs":
        return folder.absolute().is_relative_to(Path(value).absolute())
    return key.partition(".")[0] != "tracking"


def _is_setting(override: Any) -> bool:
    return (
        isinstance(override, str)
        and not override.startswith("-")
        and not _key(override).startswith("hydra")
    )


def _newest_unfinished(given: Sequence[str]) -> Path | None:
    """Return the folder of the newest run with the same identity that is not over.

    One that has finished is over when its pictures are drawn and MLflow, if it is used, has it.
    """
    overrides = [argument for argument in given if not argument.startswith("-")]
    with composer():
        job, prepared = check(compose(overrides, with_hydra=True))
    identity = Identity.of(prepared)
    found = [
        (record.started, folder)
        for folder, record in _runs(job.outputs)
        if record.identity.key == identity.key
        and not (
            status(folder) == "FINISHED"
            and (folder / PICTURES[-1]).exists()
            and (job.tracking.offline or Told.load(folder).is_complete)
        )
        and not is_alive(folder)
    ]
    return max(found)[1] if found else None


@dataclass(frozen=True)
class Resume:
    """A run that this process goes on with. ``accepted`` names what may have changed since."""

    folder: Path
    record: Record
    accepted: frozenset[str] = field(default_factory=frozenset)

    def is_finished(self, config: DictConfig, job: Job, prepared: Prepared) -> bool:
        """Return whether nothing is left to train.

        Raises ConfigError if the run can't go on: the configuration, the data, the code or NumPy
        has changed, or it is asked for epochs that it can't have.
        """
        self._check_identity(config, Identity.of(prepared))
        if job.experiment.epochs != self.record.epochs:
            self._check_epochs(job, prepared)
            return False
        return status(self.folder) == "FINISHED"

    def _check_identity(self, config: DictConfig, now: Identity) -> None:
        before = self.record.identity
        if now.apart_from_epochs != before.apart_from_epochs:
            raise ConfigError(
                f"resume={self.folder}: the configuration has changed since the run began: "
                f"{self._changes(config)}; change it back, or begin a new run"
            )
        if now.data != before.data:
            raise ConfigError(
                f"resume={self.folder}: the data has changed since the run began: its digest was "
                f"{before.data} and is {now.data}; bring the old data back, or begin a new run"
            )
        if now.code != before.code and "code" not in self.accepted:
            raise ConfigError(
                f"resume={self.folder}: the code has changed since the run began: the results may "
                "differ from those of an uninterrupted run; add accept=code to go on"
            )
        numpy_before, numpy_now = before.versions.get("NumPy"), now.versions["NumPy"]
        if numpy_now != numpy_before and "numpy" not in self.accepted:
            raise ConfigError(
                f"resume={self.folder}: NumPy was {numpy_before} when the run began and is "
                f"{numpy_now}: the results may differ from those of an uninterrupted run; "
                "add accept=numpy to go on"
            )

    def _changes(self, config: DictConfig) -> str:
        """Return the settings that differ from those that the run keeps."""
        plain = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
        now = flatten(plain)
        try:
            before = flatten(read_kept(self.folder))
        except Exception:  # a damaged file raises what YAML, OmegaConf or the resolvers raise
            before = {}
        known = (*_ALLOWED, "tracking", "checkpoint")
        changes = [
            f"{key} was {before.get(key, 'missing')} and is {now.get(key, 'missing')}"
            for key in sorted({*before, *now})
            if before.get(key) != now.get(key) and not key.startswith(known)
        ]
        return shortened(listed(changes)) if before and changes else "a default or a weight file"

    def _check_epochs(self, job: Job, prepared: Prepared) -> None:
        """Raise ConfigError if the run's length can't change as asked."""
        epochs, checkpoint = job.experiment.epochs, self.checkpoint(prepared)
        if checkpoint is None:
            raise ConfigError(
                f"epochs={epochs}: {self.folder} holds no checkpoint from which its "
                f"{self.record.epochs} epochs could go on"
            )
        done = checkpoint.progress.epoch
        if epochs < done:
            raise ConfigError(
                f"epochs={epochs}: the run has trained {done} epochs already: "
                f"set epochs={done + 1} or more"
            )
        if checkpoint.epochs and (stopped := checkpoint.epochs[-1].stopped):
            raise ConfigError(
                f"epochs={epochs}: the run stopped early after epoch {done}: {stopped}; "
                "more epochs change nothing"
            )
        self._check_schedule(job, prepared, checkpoint)

    def _check_schedule(self, job: Job, prepared: Prepared, checkpoint: Checkpoint) -> None:
        """Raise ConfigError if the trained epochs would have had other rates in the new length."""
        experiment, history = job.experiment, checkpoint.progress.history
        updates = experiment.batching.updates(len(prepared.dataset.train))
        seen = watched(experiment.schedule.watch, history)
        for epoch in range(1, checkpoint.progress.epoch + 1):
            before, now = (
                experiment.schedule.factors(epoch, updates, length, seen[: epoch - 1])
                for length in (self.record.epochs, experiment.epochs)
            )
            if (before != now).any():
                raise ConfigError(
                    f"epochs={experiment.epochs}: the schedule depends on the number of epochs: "
                    f"epoch {epoch} was trained at another learning rate; begin a new run"
                )

    def checkpoint(self, prepared: Prepared) -> Checkpoint | None:
        """Return the checkpoint that the run goes on from, or None if it begins again."""
        begin = prepared.training_run().begin(prepared.parameters)
        return load_checkpoint(self.folder, begin, self.record.identity)

    def context(self, fresh: RunContext) -> RunContext:
        """Return the run context of the run, given that of a new run with its settings."""
        record = self.record
        return replace(
            fresh,
            name=record.name,
            position=record.position,
            sweep_id=record.sweep_id,
            stack=tuple(record.stack),
            stack_position=record.stack_position,
            goes_on=True,
            # Outside its stack a network has the same results to rounding.
            is_exact=not self.accepted and len(record.stack) < 2,
        )

    def summary(self, prepared: Prepared) -> str:
        """Return in a line from where the run goes on."""
        checkpoint = self.checkpoint(prepared)
        epochs = prepared.experiment.epochs
        if checkpoint is None:
            return f"from the beginning of {epochs}, in {self.folder}"
        return f"after epoch {checkpoint.progress.epoch} of {epochs}, in {self.folder}"
