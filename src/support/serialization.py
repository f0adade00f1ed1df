"""Configured values as plain JSON and back: what identifies an experiment, and what is stored with a network."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def to_plain(value: Any) -> Any:
    """Turn a value into JSON's types; a configured object becomes its class's name and its fields."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {
            field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
        return {"class": type(value).__name__, **fields}
    if isinstance(value, tuple):
        return [to_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def from_plain(plain: Any, classes: Iterable[type]) -> Any:
    """Make again what ``to_plain`` described, out of these classes and no others. Raises KeyError for another."""
    if isinstance(plain, dict):
        known = {cls.__name__: cls for cls in classes}
        cls = known[plain["class"]]
        return cls(
            **{
                name: from_plain(value, known.values())
                for name, value in plain.items()
                if name != "class"
            }
        )
    if isinstance(plain, list):
        return tuple(from_plain(item, classes) for item in plain)
    return plain
