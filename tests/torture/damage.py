"""Files of a run whose bytes have changed: flipped, cut, zeroed, repeated or replaced."""

import json
import random
import shutil
from pathlib import Path

from src.runs.folder import CHECKPOINT, HISTORY, PREVIOUS, RESULT, RUN
from src.tracking.told import TOLD
from tests.torture.comparing import differences
from tests.torture.processes import new_outputs, run
from tests.torture.trial import RUN_FOLDER, Trial, going_on, start

_SETTINGS = ["model=relu2_small", "optimizer=adam", "lr=0.002", "epochs=400", "checkpoint.every=7"]
_OF_A_KILLED_RUN = (CHECKPOINT, PREVIOUS, RUN, HISTORY, TOLD, ".hydra/config.yaml")
_OF_A_FINISHED_RUN = (RUN, HISTORY, RESULT, CHECKPOINT, "weights.npz", "predictions.npz")


def mutated(trial: Trial) -> None:
    """Damage one or two files of a run, and use it."""
    if trial.draw.random() < 0.6:
        _resume_damaged(trial)
    else:
        _read_damaged(trial)


def _resume_damaged(trial: Trial) -> None:
    """Let a killed run go on from damaged files: to the right bytes, or to a line that says why."""
    killed, whole = _killed(trial.working)
    # In its own place: a run's files name the folder of its outputs.
    outputs = trial.working / "damaged"
    shutil.rmtree(outputs, ignore_errors=True)
    shutil.copytree(killed, outputs)
    folder = outputs / RUN_FOLDER
    names = trial.draw.sample(_OF_A_KILLED_RUN, trial.draw.randint(1, 2))
    how = [damage(folder / name, trial.draw) for name in names]
    ended = run(outputs, *going_on(outputs, _SETTINGS))
    trial.faults += ended.faults((0, 1, 2))
    if ended.code == 0:
        trial.faults += differences(folder, whole)
    else:
        trial.faults += _unnamed(ended.said, names, f"resume={folder}")
    trial.faults += [f"{name}: {done}" for name, done in zip(names, how, strict=True)] * bool(
        trial.faults
    )


def _read_damaged(trial: Trial) -> None:
    """Read a damaged file of a finished run, in each command that reads it."""
    _, whole = _killed(trial.working)
    outputs = trial.folder / "outputs"
    outputs.mkdir()
    folder = outputs / RUN_FOLDER
    shutil.copytree(whole, folder)
    (name,) = trial.draw.sample(_OF_A_FINISHED_RUN, 1)
    done = damage(folder / name, trial.draw)
    pictures = run(outputs, str(folder), "--outputs", str(outputs), module="src.pictures")
    trial.faults += pictures.faults((0, 1, 2))
    if name == "weights.npz":
        given = ["initializer=file", f"initializer.path='{folder / name}'", "epochs=1"]
        offline = ["tracking.offline=true", "model=relu2_small", f"outputs={outputs}"]
        trained = run(outputs, *given, *offline)
        trial.faults += trained.faults((0, 2))
        if trained.code == 2:
            trial.faults += _unnamed(trained.said, [name], str(folder))
        else:
            trial.faults += _other_weights(folder / name, whole / name)
    if name == RESULT and pictures.code == 0:
        trial.faults.append("a damaged result was believed")
    if pictures.code:
        trial.faults += _unnamed(pictures.said, [name], str(folder))
    trial.faults += [f"{name}: {done}"] * bool(trial.faults)


def _other_weights(ours: Path, theirs: Path) -> list[str]:
    import numpy as np

    with np.load(ours) as damaged, np.load(theirs) as sound:
        equal = all((damaged[key] == sound[key]).all() for key in sound.files)
    return [] if equal else ["wrong weights were loaded"]


def _unnamed(said: str, names: list[str], folder: str) -> list[str]:
    """Return a fault unless a line names a damaged file, or what it says of the run."""
    errors = [line for line in said.splitlines() if line.startswith("error")]
    named = any(name in line or folder in line for line in errors for name in names)
    return [] if named else [f"not named:\n{said[-800:]}"]


def _killed(working: Path) -> tuple[Path, Path]:
    """Return the outputs of a run that was killed, and the folder of one that was not."""
    outputs, whole = working / "damaged.sound", working / "undamaged"
    if not outputs.exists():
        made = new_outputs(working / "damaged", working)
        process = start(made, _SETTINGS)
        folder = made / RUN_FOLDER
        while not (folder / PREVIOUS).exists():
            assert process.alive()
        process.kill_after(0.05)
        assert not (folder / RESULT).exists()
        shutil.copytree(made, outputs)
        new_outputs(whole, working)
        ended = start(whole, _SETTINGS).end()
        assert ended.code == 0, ended.said
    return outputs, whole / RUN_FOLDER


def damage(path: Path, draw: random.Random) -> str:
    """Change some bytes of a file, and return in words what was done."""
    content = bytearray(path.read_bytes()) if path.exists() else bytearray()
    if not content:
        return "nothing"
    at = draw.randrange(len(content))
    length = draw.choice([1, 1, 4, 64, 4096])
    done = draw.choice(["flip", "flip", "cut", "zero", "repeat", "lose", "digit", "empty", "text"])
    if done == "flip":
        content[at] ^= 1 << draw.randrange(8)
    elif done == "cut":
        del content[at:]
    elif done == "zero":
        content[at : at + length] = bytes(len(content[at : at + length]))
    elif done == "repeat":
        content[at:at] = content[at : at + length]
    elif done == "lose":
        del content[at : at + length]
    elif done == "digit":
        digits = [n for n, byte in enumerate(content) if chr(byte).isdigit()]
        at = draw.choice(digits or [0])
        content[at] = ord(draw.choice("0123456789"))
    elif done == "empty":
        content.clear()
    else:
        content = bytearray(json.dumps(draw.choice([None, 1, [], {}, "text"])).encode())
    path.write_bytes(content)
    return f"{done} at {at}, {length} bytes"
