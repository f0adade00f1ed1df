"""Imports modules of the user's own, whose classes then become choices beside ours.

A plugin is code that runs. Only the command line, or the caller in Python, can ask for one; a
configuration file cannot.
"""

import hashlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from src.support.errors import ConfigError

VARIABLE = "SCRATCHGRID_PLUGINS"  # carries the accepted names to worker processes

_digests: dict[str, str] = {}  # of each plugin that this process has imported


def accept(names: Sequence[str]) -> None:
    """Import these plugins, here and in the processes that this one starts, and accept no others.

    Raises ConfigError where one can't be imported.
    """
    if names:
        os.environ[VARIABLE] = ",".join(names)
    else:
        os.environ.pop(VARIABLE, None)
    load()


def accepted() -> tuple[str, ...]:
    """Return the names of the plugins that the user asked for."""
    return tuple(filter(None, os.environ.get(VARIABLE, "").split(",")))


def load() -> None:
    """Import the accepted plugins that this process has not imported yet. Raises ConfigError."""
    for name in accepted():
        if name not in _digests:
            _import(name)
            _digests[name] = _digest(name)


def digests() -> Mapping[str, str]:
    """Return the digest of each accepted plugin's source, as it was when it was imported."""
    load()
    return {name: _digests[name] for name in accepted()}


def _import(name: str) -> None:
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:  # an installed command does not look here
        sys.path.append(here)
    importlib.invalidate_caches()
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise ConfigError(
                f"plugins=[{name}]: there is no module {error.name} in {here} or on PYTHONPATH"
            ) from None
        raise _broken(name, error) from error
    except Exception as error:
        raise _broken(name, error) from error


def _broken(name: str, error: Exception) -> ConfigError:
    told = f"{type(error).__name__}: {error}".splitlines()[0]
    return ConfigError(f"plugins=[{name}]: the module can't be imported, it raises {told}")


def source_files(name: str) -> Mapping[str, str]:
    """Return a plugin's Python files and their text; of a package all, by their paths in it."""
    found = importlib.util.find_spec(name)  # which imports nothing
    if found is None:
        raise FileNotFoundError(f"there is no module {name}")
    if found.submodule_search_locations is None:
        return {f"{name}.py": Path(str(found.origin)).read_text(encoding="utf-8")}
    return {
        f"{name}/{path.relative_to(folder).as_posix()}": path.read_text(encoding="utf-8")
        for folder in found.submodule_search_locations
        for path in sorted(Path(folder).rglob("*.py"))
    }


def _digest(name: str) -> str:
    """Return 32 hexadecimal digits of a plugin's source."""
    digest = hashlib.sha256()
    for file, text in source_files(name).items():
        digest.update(f"{file}\0{text}\0".encode())
    return digest.hexdigest()[:32]
