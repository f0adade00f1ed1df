"""One trial: a folder of its own, random draws that its seed repeats, and the faults it finds."""

import random
from dataclasses import dataclass, field
from pathlib import Path

from src.tracking.told import pending
from tests.torture.comparing import differences, torn, untold
from tests.torture.processes import Ended, Process, new_outputs, run, sync

RUN_FOLDER = "runs/the run"

# What is drawn for a run: every engine, optimizer, schedule, stopping, dropout and batching.
_EPOCHS = {"mini": 40, "full": 100, "sample": 8}
_RATES = {"sgd": 0.05, "momentum": 0.01, "nesterov": 0.01, "adam": 0.002}
_STOPPING = (
    ("never",),
    ("early", "stopping.patience=5"),
    ("early", "stopping.patience=2", "stopping.restore_best=false"),
    ("target", "stopping.metric=val/accuracy", "stopping.value=0.9"),
)


def draw_run(draw: random.Random) -> list[str]:
    """Return the settings of a run."""
    batching = draw.choice(list(_EPOCHS))
    optimizer = draw.choice(list(_RATES))
    rate = _RATES[optimizer] * {"mini": 1.0, "full": 4.0, "sample": 0.2}[batching]
    engine = draw.choice(["fast", "fast", "plain"])
    epochs = _EPOCHS[batching] // (2 if engine == "plain" else 1)
    stopping, *of_stopping = draw.choice(_STOPPING)
    every = draw.choice(["null", "1", "3", "7", "0.05s"])
    return [
        f"model={draw.choice(['sigmoid3', 'relu2_small', 'relu2_dropout'])}",
        f"batching={batching}",
        f"optimizer={optimizer}",
        f"schedule={draw.choice(['constant', 'cosine', 'inverse', 'plateau', 'step'])}",
        f"schedule.warmup={draw.choice([0, 0, 2])}",
        f"stopping={stopping}",
        *of_stopping,
        f"engine={engine}",
        f"dtype={draw.choice(['float32', 'float32', 'float64'])}",
        f"train_metrics={draw.choice(['running', 'exact'])}",
        f"diagnose={draw.choice(['null', 'null', '3'])}",
        f"lr={rate:g}",
        f"epochs={epochs}",
        f"seed={draw.randrange(100)}",
        f"checkpoint.every={every}",
    ]


@dataclass
class Trial:
    """A trial under way. ``working`` is what all trials share, ``folder`` belongs to this one."""

    draw: random.Random
    working: Path
    folder: Path
    kills: int = 0
    killed_of: dict[str, int] = field(default_factory=dict)  # kills by what was killed
    longest: float = 0.0  # seconds from a signal to the end of the process
    faults: list[str] = field(default_factory=list)

    def outputs(self, name: str) -> Path:
        """Return a new folder of outputs."""
        return new_outputs(self.folder / name, self.working)

    def whole(self, settings: list[str]) -> tuple[Path, Ended]:
        """Return the folder of a run that nobody disturbs, and how its process ended."""
        outputs = self.outputs("whole")
        ended = run(outputs, *beginning(outputs, settings))
        self.faults += ended.faults((0, 1))
        return outputs / RUN_FOLDER, ended

    def resume(self, outputs: Path, settings: list[str], expected: int = 0) -> None:
        """Let a run that was killed go on to its end, then tell MLflow what it does not know."""
        ended = run(outputs, *going_on(outputs, settings))
        self.faults += ended.faults((expected,))
        if list(pending([outputs])):
            self.faults += sync(outputs).faults((0,))

    def compare(self, outputs: Path, whole: Path) -> None:
        """Note what differs between a resumed run, an undisturbed one, and MLflow's record."""
        folder = outputs / RUN_FOLDER
        try:
            self.faults += [*differences(folder, whole), *untold(folder, outputs)]
        except OSError as error:  # a file is missing
            self.faults.append(str(error))

    def killed(self, outputs: Path, alive: bool) -> None:
        """Note a kill, and every file that it tore."""
        self.kills += alive
        self.faults += torn(outputs / RUN_FOLDER)


def beginning(outputs: Path, settings: list[str]) -> list[str]:
    """Return the arguments that begin a run, in a folder of a known name."""
    return [f"outputs={outputs}", *settings, f"hydra.run.dir='{outputs / RUN_FOLDER}'"]


def going_on(outputs: Path, settings: list[str]) -> list[str]:
    """Return the arguments that go on with a run, or begin it if it was killed before it began."""
    folder = outputs / RUN_FOLDER
    if (folder / "run.json").exists():
        return [f"outputs={outputs}", f"resume={folder}"]
    return beginning(outputs, settings)


def start(outputs: Path, settings: list[str], **more: object) -> Process:
    """Start the run of these outputs, or go on with it."""
    return Process(outputs, *going_on(outputs, settings), **more)  # type: ignore[arg-type]
