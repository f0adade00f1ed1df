"""Ends its own process at a chosen write, sync, rename or call of MLflow."""

import builtins
import io
import os
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

# The calls that change something in MLflow.
_MLFLOW = (
    "create_experiment",
    "create_run",
    "update_run",
    "set_tag",
    "delete_tag",
    "log_batch",
    "log_inputs",
    "log_artifact",
    "create_logged_model",
    "log_model_artifacts",
    "finalize_logged_model",
    "log_outputs",
    "set_terminated",
)
KINDS = ("write", "sync", "rename", "mlflow")


@dataclass(frozen=True)
class Fault:
    """A signal at the ``nth`` call of a kind, before or after it; a write is done by half before.

    ``nth=0`` never happens: the calls are only counted.
    """

    kind: str
    nth: int
    after: bool = False
    numbers: tuple[int, ...] = (signal.SIGKILL,)


class Injector:
    """Counts the calls that change something below a folder, and makes a fault happen."""

    def __init__(self, fault: Fault, folder: Path) -> None:
        self.counts: Counter[str] = Counter()
        self._fault, self._folder = fault, folder.absolute()

    def install(self) -> None:
        """Replace the functions of Python through which the project writes."""
        self._replace(os, "fsync", "sync")
        for name in ("replace", "rename"):
            self._replace(os, name, "rename")
        opened = io.open

        def counting(file: Any, mode: str = "r", *rest: Any, **named: Any) -> Any:
            made = opened(file, mode, *rest, **named)
            return _Written(made, self) if self._counts(file, mode) else made

        io.open = builtins.open = counting

    def install_in_mirror(self) -> None:
        """Replace the functions of MLflow through which a mirror writes."""
        from mlflow import MlflowClient

        for name in _MLFLOW:
            self._replace(MlflowClient, name, "mlflow")

    def _counts(self, file: Any, mode: str) -> bool:
        writes = isinstance(file, str | Path) and bool(set("wax+") & set(mode))
        path = Path(file).absolute() if writes else Path()
        return writes and path.is_relative_to(self._folder) and path.suffix not in (".log", ".lock")

    def _replace(self, owner: Any, name: str, kind: str) -> None:
        original = getattr(owner, name)

        def counted(*arguments: Any, **named: Any) -> Any:
            return self.call(kind, lambda: original(*arguments, **named))

        setattr(owner, name, counted)

    def call(
        self, kind: str, work: Callable[[], Any], half: Callable[[], Any] = lambda: None
    ) -> Any:
        """Do the work and count it; ``half`` is what a torn call does."""
        self.counts[kind] += 1
        chosen = kind == self._fault.kind and self.counts[kind] == self._fault.nth
        if chosen and not self._fault.after:
            half()
            self._strike()
        done = work()
        if chosen and self._fault.after:
            self._strike()
        return done

    def _strike(self) -> None:
        for number in self._fault.numbers:
            os.kill(os.getpid(), number)


class _Written:
    """An open file whose writes are counted."""

    def __init__(self, file: Any, injector: Injector) -> None:
        self._file, self._injector = file, injector

    def write(self, data: Any) -> Any:
        def half() -> None:
            content = data if isinstance(data, str) else bytes(data)
            self._file.write(content[: len(content) // 2])
            self._file.flush()

        return self._injector.call("write", lambda: self._file.write(data), half)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> Self:
        self._file.__enter__()
        return self

    def __exit__(self, *error: object) -> Any:
        return self._file.__exit__(*error)

    def __iter__(self) -> Any:
        return iter(self._file)
