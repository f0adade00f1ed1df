"""JSON files with a checksum, which tells a damaged file from a whole one."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from src.support.input_files import read_text

_SEAL = "sha256"


def sealed(values: Mapping[str, Any]) -> bytes:
    """Return the content of a JSON file: the values, and the checksum of them."""
    return json.dumps({**values, _SEAL: _digest(values)}, indent=1).encode()


def read_sealed(path: Path) -> dict[str, Any]:
    """Return the values of a JSON file. One without a checksum is taken as it is.

    Raises OSError if the file can't be read, and ValueError if it is damaged.
    """
    try:
        values = json.loads(read_text(path))
    except RecursionError:
        raise ValueError("it nests values too deeply") from None
    if not isinstance(values, dict):
        raise ValueError("it holds no settings and values")
    seal = values.pop(_SEAL, None)
    if seal is not None and seal != _digest(values):
        raise ValueError("its checksum is wrong: it was damaged or edited")
    return values


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()
