"""Turns configured values into plain JSON and back, for identities and for stored networks."""

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any


def to_plain(value: Any) -> Any:
    """Return a value in JSON's types; an object becomes the name of its class and its fields."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        plain = {field.name: to_plain(getattr(value, field.name)) for field in fields}
        return {"class": type(value).__name__, **plain}
    if isinstance(value, tuple):
        return [to_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def from_plain(plain: Any, classes: Iterable[type]) -> Any:
    """Return the value that ``to_plain`` described, built from these classes and their subclasses.

    Raises KeyError if the description names any other class.
    """
    known = {cls.__name__: cls for given in classes for cls in with_subclasses(given)}
    if isinstance(plain, dict):
        build = known[plain["class"]]
        fields = {name: value for name, value in plain.items() if name != "class"}
        return build(**{name: from_plain(value, known.values()) for name, value in fields.items()})
    if isinstance(plain, list):
        return tuple(from_plain(item, known.values()) for item in plain)
    return plain


def with_subclasses(cls: type) -> Iterator[type]:
    """Yield a class and everything that derives from it."""
    yield cls
    subclasses: list[type] = cls.__subclasses__()
    for derived in subclasses:
        yield from with_subclasses(derived)
