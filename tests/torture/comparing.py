"""Finds what differs between a run that was disturbed and one that was not."""

import contextlib
import csv
import json
import sqlite3
import zipfile
from pathlib import Path
from typing import Any

from src.runs.folder import CHECKPOINT, HISTORY, PREVIOUS, RESULT
from src.tracking.told import TOLD, ids

_CLOCK = ("seconds", "time")  # columns of the history
_OF_ONE_COMMAND = ("run.log", "run.lock")


def rows(folder: Path) -> list[dict[str, str]]:
    """Return the history of a run."""
    path = folder / HISTORY
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def differences(
    ours: Path, theirs: Path, *, pictures: bool = True, others: bool = True
) -> list[str]:
    """Return in which files the folders of two runs differ, apart from times.

    Without ``pictures`` these may be there or not, as in a sweep, which draws those of failed runs.
    Without ``others`` only the results are compared, not which files there are.
    """
    found = []
    kept, expected = (
        [{key: row[key] for key in row if key not in _CLOCK} for row in rows(folder)]
        for folder in (ours, theirs)
    )
    if kept != expected:
        found.append(f"{HISTORY}: {len(kept)} rows, expected {len(expected)}, or other values")
    for name in ("weights.npz", "predictions.npz"):
        contents = [
            (path / name).read_bytes() if (path / name).exists() else b"" for path in (ours, theirs)
        ]
        if contents[0] != contents[1]:
            found.append(f"{name}: other bytes")
    results = [json.loads((folder / RESULT).read_text()) for folder in (ours, theirs)]
    for key in ("status", "metrics", "value", "failure"):
        if results[0][key] != results[1][key]:
            found.append(f"{RESULT}: {key} is {results[0][key]}, expected {results[1][key]}")
    left_out = set(_OF_ONE_COMMAND)
    if results[0]["status"] != "FINISHED":  # it keeps the last checkpoint but one, if it wrote two
        left_out.add(PREVIOUS)
    names = [
        {path.name for path in folder.iterdir() if pictures or path.suffix != ".png"} - left_out
        for folder in (ours, theirs)
    ]
    if others and names[0] != names[1]:
        found.append(f"other files: {sorted(names[0] ^ names[1])}")
    return found


def torn(folder: Path) -> list[str]:
    """Return which files in a run's folder are not whole, whatever happened to the run."""
    found = []
    for path in folder.rglob("*"):
        if path.name.startswith(".") or path.suffix in (".new", ".lock"):
            continue  # a part, which nobody reads
        try:
            if path.suffix == ".json":
                json.loads(path.read_text())
            elif path.name in (CHECKPOINT, PREVIOUS):
                found += [] if _has_its_checksum(path) else [f"{path.name}: checksum"]
            elif path.suffix == ".npz":
                with zipfile.ZipFile(path) as archive:
                    found += [f"{path.name}: {name}"] if (name := archive.testzip()) else []
            elif path.suffix == ".png" and not path.read_bytes().endswith(b"IEND\xaeB`\x82"):
                found.append(f"{path.name}: cut short")
        except FileNotFoundError:
            continue  # renamed meanwhile, by a worker that still lives
        except Exception as error:  # whatever a damaged file raises
            found.append(f"{path.name}: {error}")
    return found


def _has_its_checksum(path: Path) -> bool:
    import hashlib

    raw = path.read_bytes()
    return hashlib.sha256(raw[:-32]).digest() == raw[-32:]


def query(outputs: Path, asked: str, *values: Any) -> list[Any]:
    """Return the rows that the database of these outputs has."""
    path = outputs / "mlflow.db"
    with contextlib.closing(sqlite3.connect(path, timeout=60)) as store:
        return list(store.execute(asked, values))


def untold(folder: Path, outputs: Path) -> list[str]:
    """Return how MLflow's record of a run differs from the run's folder."""
    found = []
    result = json.loads((folder / RESULT).read_text())
    if query(outputs, "PRAGMA integrity_check") != [("ok",)]:
        return ["mlflow.db is damaged"]
    own = "SELECT run_uuid FROM tags WHERE key = 'output_dir' AND value = ?"
    runs = [run_id for (run_id,) in query(outputs, own, str(folder.absolute()))]
    known = ids(folder)
    if known is None or runs != [known[1]]:
        return [f"MLflow has the runs {runs}, {TOLD} names {known}"]
    (run_id,) = runs
    ((status,),) = query(outputs, "SELECT status FROM runs WHERE run_uuid = ?", run_id)
    if status != result["status"]:
        found.append(f"MLflow says {status}, {RESULT} {result['status']}")
    points: dict[str, list[tuple[int, float, int]]] = {}
    asked = "SELECT key, step, value, timestamp FROM metrics WHERE run_uuid = ? AND step > 0"
    for key, step, value, time in query(outputs, asked, run_id):
        points.setdefault(key, []).append((step, value, time))
    expected: dict[str, list[tuple[int, float, int]]] = {}
    for row in rows(folder):
        for key, text in row.items():
            if text and key not in ("epoch", "time"):
                point = int(row["epoch"]), float(text), int(row["time"])
                expected.setdefault(key, []).append(point)
    for key in sorted({*points, *expected}):
        if sorted(points.get(key, [])) != expected.get(key, []):
            had, wanted = len(points.get(key, [])), len(expected.get(key, []))
            found.append(f"MLflow has {had} points of {key}, {HISTORY} {wanted}, or others")
    once = (
        "SELECT key FROM metrics WHERE run_uuid = ? AND step = 0 GROUP BY key HAVING count(*) > 1"
    )
    found += [f"MLflow has {key} twice" for (key,) in query(outputs, once, run_id)]
    models = query(outputs, "SELECT count(*) FROM logged_models WHERE source_run_id = ?", run_id)
    if models[0][0] > 1:
        found.append(f"MLflow has {models[0][0]} models")
    return found
