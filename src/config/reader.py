"""Reads a composed configuration: each node under ``conf/`` is the constructor call of one of our classes.

A node may name only a class that is of the kind its place expects, so a configuration from a stranger can select
and set, but never import or run anything.
"""

import dataclasses
import inspect
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig, MissingMandatoryValue, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from src.experiment.experiment import Experiment
from src.experiment.job import Job
from src.support.errors import ConfigError, InvalidValue, suggest, within
from src.support.paths import CONF


def read(config: DictConfig) -> Job:
    """Return what a composed configuration (without its ``hydra`` node) describes. Raises ConfigError."""
    try:
        plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        key = error.full_key or ""
        raise ConfigError(f"{key} has no value: set it with {key}=…") from None
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key}: {str(error).splitlines()[0]}") from None
    assert isinstance(plain, dict)
    nodes = {str(key): value for key, value in plain.items()}
    known = [
        field.name
        for cls in (Experiment, Job)
        for field in dataclasses.fields(cls)
        if field.name != "experiment"
    ]
    for key in nodes:
        if key not in known:
            raise ConfigError(f"{key}: no such key{suggest(key, known)}")
    experiment = {
        field.name: nodes.pop(field.name)
        for field in dataclasses.fields(Experiment)
        if field.name in nodes
    }
    try:
        return typing.cast(Job, convert({**nodes, "experiment": experiment}, Job, ""))
    except InvalidValue as error:
        raise ConfigError(str(error)) from None


def flatten(config: DictConfig) -> dict[str, Any]:
    """Return every resolved setting under its dotted key, as the command line would name it."""

    def leaves(node: Any, place: str) -> dict[str, Any]:
        if isinstance(node, dict) and node:
            return {
                key: leaf
                for name, child in node.items()
                for key, leaf in leaves(child, f"{place}.{name}" if place else str(name)).items()
            }
        return {place: node}

    return leaves(OmegaConf.to_container(config, resolve=True), "")


def convert(value: Any, kind: Any, place: str) -> Any:
    """Return ``value``, which stands at ``place``, as the annotated type ``kind``.

    Raises ConfigError, which names the place, where it is not of that type, and InvalidValue where its class refuses it.
    """
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        return _convert_to_any(value, typing.get_args(kind), place)
    if origin is Literal:
        if value in typing.get_args(kind):
            return value
        options = [str(option) for option in typing.get_args(kind)]
        raise ConfigError(
            f"{place}={value}: must be {' or '.join(options)}{suggest(str(value), options)}"
        )
    if origin is tuple and isinstance(value, list):
        return tuple(
            convert(item, typing.get_args(kind)[0], f"{place}[{i}]") for i, item in enumerate(value)
        )
    if origin is dict and isinstance(value, dict):
        return {
            str(key): convert(item, typing.get_args(kind)[1], f"{place}.{key}")
            for key, item in value.items()
        }
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if (
        kind is int and isinstance(value, float) and value.is_integer()
    ):  # 1e3 is how many people write a thousand
        return int(value)
    if kind is Path and isinstance(value, str) and value:
        return Path(value)
    if (
        kind in (bool, int, float, str)
        and isinstance(value, kind)
        and (kind is bool or not isinstance(value, bool))
    ):
        return value
    if kind is type(None) and value is None:
        return None
    if isinstance(value, str) and _options(kind):
        return _build(_option(kind, value, place), kind, place)
    if (
        isinstance(value, dict)
        and inspect.isclass(kind)
        and (dataclasses.is_dataclass(kind) or inspect.isabstract(kind))
    ):
        return _build(value, kind, place)
    raise ConfigError(f"{place}={_short(value)}: must be {_describe(kind)}")


def _build(node: Mapping[str, Any], kind: type, place: str) -> Any:
    """Call the constructor that a node describes: of ``kind`` itself, or of the class of that kind named by ``_target_``."""
    options = {f"{cls.__module__}.{cls.__qualname__}": cls for cls in _concrete(kind)}
    target = node.get("_target_")
    if target is None:
        if inspect.isabstract(kind):
            raise ConfigError(
                f"{place}: lacks its _target_, the class it is to be; there are {', '.join(options)}"
            )
        cls: type = kind
    elif target in options:
        cls = options[target]
    else:
        raise ConfigError(
            f"{place}._target_={target}: is not one of this place's classes{suggest(str(target), options)}"
        )

    fields = {field.name: field for field in dataclasses.fields(cls)}
    hints = typing.get_type_hints(cls)
    arguments = {}
    for key, value in node.items():
        inner = f"{place}.{key}" if place else key
        if key == "_target_":
            continue
        if key not in fields:
            raise ConfigError(f"{inner}: no such key{suggest(key, fields) if fields else ''}")
        arguments[key] = convert(
            value, hints[key], "" if key == "experiment" and not place else inner
        )
    required = {name for name, field in fields.items() if field.default is dataclasses.MISSING}
    if missing := sorted(required - set(arguments)):
        raise ConfigError(f"{place or 'the configuration'}: lacks {', '.join(missing)}")
    with within(place):
        return cls(**arguments)


def _options(kind: Any) -> list[Path]:
    """Return the files of the configuration group that a kind of class has, by its name; none where it has no group."""
    return sorted(CONF.glob(f"{kind.__name__.lower()}/*.yaml")) if inspect.isabstract(kind) else []


def _option(kind: type, name: str, place: str) -> dict[str, Any]:
    """Return the node that a name stands for: ``model.activation=tanh`` is what ``conf/activation/tanh.yaml`` holds."""
    options = {path.stem: path for path in _options(kind)}
    if name not in options:
        raise ConfigError(
            f"{place}={name}: no such {kind.__name__.lower()}{suggest(name, options)}"
        )
    try:
        plain = OmegaConf.to_container(OmegaConf.load(options[name]), throw_on_missing=True)
    except MissingMandatoryValue as error:
        raise ConfigError(
            f"{place}={name}: needs a {error.full_key}, which a name alone can't give"
        ) from None
    node = typing.cast(dict[str, Any], plain)
    for entry in node.pop("defaults", []):
        if (
            entry != "_self_"
        ):  # such as {"/distribution@weights": "he"}, which is a name in its turn
            node |= {target.partition("@")[2]: option for target, option in entry.items()}
    return node


def option(kind: type, name: str) -> Any:
    """Return the object that a choice by its name comes to, with all else at its default. Raises ConfigError."""
    return convert(name, kind, kind.__name__.lower())


def _concrete(kind: type) -> list[type]:
    """Return the classes of a kind that can be made: itself and all that derive from it, the abstract ones left out."""
    own = [] if inspect.isabstract(kind) else [kind]
    derived: list[type] = kind.__subclasses__()
    return own + [concrete for cls in derived for concrete in _concrete(cls)]


def _convert_to_any(value: Any, kinds: tuple[Any, ...], place: str) -> Any:
    """Return the value as the first of the types that it already is, else as the first that it can become."""
    if value == "" and type(None) in kinds:  # an environment variable that is set to nothing
        return None
    for kind in kinds:
        if inspect.isclass(kind) and type(value) is kind:
            return value
    # A node or a list can be of one of the types only: let that one speak of what is wrong inside.
    fitting = [
        kind
        for kind in kinds
        if kind is not type(None)
        and (
            isinstance(value, dict | list) == _is_nested(kind)
            or (isinstance(value, str) and _options(kind))
        )
    ]
    for i, kind in enumerate(fitting):
        try:
            return convert(value, kind, place)
        except ConfigError:
            if i == len(fitting) - 1 and _is_nested(kind):
                raise
    raise ConfigError(
        f"{place}={_short(value)}: must be {' or '.join(_describe(kind) for kind in kinds)}"
    )


def _is_nested(kind: Any) -> bool:
    return typing.get_origin(kind) in (tuple, dict) or (
        inspect.isclass(kind) and (dataclasses.is_dataclass(kind) or inspect.isabstract(kind))
    )


def _describe(kind: Any) -> str:
    names = {
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        str: "a text",
        Path: "a path",
        type(None): "null",
    }
    if kind in names:
        return names[kind]
    if typing.get_origin(kind) is tuple:
        return f"a list such as [300, 100], each {_describe(typing.get_args(kind)[0])}"
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return " or ".join(_describe(option) for option in typing.get_args(kind))
    return f"a group of settings ({getattr(kind, '__name__', kind)})"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
