"""Turns configured values into plain JSON and back, for identities and for stored networks."""

import dataclasses
import functools
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
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


def check_types(value: Any) -> None:
    """Raise TypeError, which names the field, unless a dataclass holds the types that it declares.

    Its values may come from a stranger's JSON, where a list stands for a tuple, too.
    """
    for name, hint in _hints(value.__class__).items():
        if not _fits(getattr(value, name), hint):
            raise TypeError(f"{name} has another type than it must have")


@functools.cache
def _hints(cls: Any) -> Mapping[str, Any]:
    known = typing.get_type_hints(cls)
    return {field.name: known[field.name] for field in dataclasses.fields(cls)}


def _fits(value: Any, hint: Any) -> bool:
    """Return whether a value has the type that an annotation names."""
    kind, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if kind in (typing.Union, types.UnionType):
        return any(_fits(value, one) for one in inner)
    if kind is typing.Literal:
        return isinstance(value, str) and value in inner
    if kind is tuple:
        is_one = isinstance(value, list | tuple) and len(value) == len(inner)
        return is_one and all(map(_fits, value, inner))
    if kind in (list, Sequence):
        return isinstance(value, list | tuple) and all(_fits(one, inner[0]) for one in value)
    if kind in (dict, Mapping):
        of_keys, of_values = inner
        return isinstance(value, dict) and all(
            _fits(key, of_keys) and _fits(one, of_values) for key, one in value.items()
        )
    if hint in (int, float):  # True does not count as 1
        return type(value) is int or (hint is float and type(value) is float)
    if dataclasses.is_dataclass(value) and isinstance(value, hint):
        check_types(value)
    return isinstance(value, hint)
