"""Reads a composed configuration: each node is the constructor call of one of our classes.

A node may name only a class of the kind that its place expects. A configuration from a stranger can
therefore select and set, but never import or run anything.
"""

import dataclasses
import functools
import inspect
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig, MissingMandatoryValue, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from src.config.choices import Choices, concrete_classes, group
from src.config.describe import in_words, shortened
from src.runs.experiment import Experiment
from src.runs.job import Job
from src.support.errors import ConfigError, InvalidValue, suggest, within

# Root keys that belong to a sweep as a whole; a run does not have them.
SWEEP_KEYS = ("plan", "samples", "sweep")

_OURS = Choices()


def read(config: DictConfig, choices: Choices = _OURS) -> Job:
    """Return the job that a composed configuration describes; its ``hydra`` node does not count.

    Raises ConfigError, which names the setting that is wrong.
    """
    nodes = {key: node for key, node in _resolve(config).items() if key not in SWEEP_KEYS}
    experiment_keys = [field.name for field in dataclasses.fields(Experiment)]
    job_keys = [field.name for field in dataclasses.fields(Job) if field.name != "experiment"]
    known = [*experiment_keys, *job_keys]
    for key in nodes:
        if key not in known:
            raise ConfigError(f"{key}: no such key{suggest(key, known)}")
    experiment = {key: nodes.pop(key) for key in experiment_keys if key in nodes}
    try:
        job = convert({**nodes, "experiment": experiment}, Job, "", choices)
    except InvalidValue as error:
        raise ConfigError(str(error)) from None
    return typing.cast(Job, job)


def _resolve(config: DictConfig) -> dict[str, Any]:
    """Return a configuration as plain values by key. Raises ConfigError if a value is missing."""
    try:
        return {str(key): _plain(config[key]) for key in config if key != "hydra"}
    except MissingMandatoryValue as error:
        key = error.full_key or ""
        raise ConfigError(f"{key} has no value: set it with {key}=…") from None
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key}: {str(error).splitlines()[0]}") from None


def _plain(node: Any) -> Any:
    if not OmegaConf.is_config(node):
        return node
    return OmegaConf.to_container(node, resolve=True, throw_on_missing=True)


def flatten(config: DictConfig) -> dict[str, Any]:
    """Return every resolved setting by its dotted key, as the command line names it.

    ``_target_`` is left out: the choice that led to it is known.
    """
    return leaves(OmegaConf.to_container(config, resolve=True), "")


def leaves(node: Any, place: str) -> dict[str, Any]:
    """Return what nested settings hold by dotted keys, which begin with ``place``."""
    if not isinstance(node, dict) or not node:
        return {place: node}
    found: dict[str, Any] = {}
    for name, child in node.items():
        if name != "_target_":
            found |= leaves(child, f"{place}.{name}" if place else str(name))
    return found


def option(kind: type, name: str) -> Any:
    """Return the object that an option's name stands for, with all its settings at their defaults.

    Raises ConfigError for an unknown name and for an option that needs more than its name.
    """
    return convert(name, kind, group(kind))


def convert(value: Any, kind: Any, place: str, choices: Choices = _OURS) -> Any:
    """Return ``value``, which is set at ``place``, as the annotated type ``kind``.

    Raises ConfigError, which names the place, where the value has another type, and InvalidValue
    where the class refuses the value.
    """
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        return _convert_to_any(value, typing.get_args(kind), place, choices)
    if origin is Literal:
        return _convert_literal(value, typing.get_args(kind), place)
    if origin is tuple and isinstance(value, list):
        item_kind = typing.get_args(kind)[0]
        return tuple(
            convert(item, item_kind, f"{place}[{i}]", choices) for i, item in enumerate(value)
        )
    if origin is dict and isinstance(value, dict):
        item_kind = typing.get_args(kind)[1]
        return {
            str(key): convert(item, item_kind, f"{place}.{key}", choices)
            for key, item in value.items()
        }
    if isinstance(value, str | dict) and _is_configured(kind):
        return _built(value, kind, place, choices)
    try:
        return _scalar(value, kind)
    except (TypeError, OverflowError):
        raise _wrong_type(value, (kind,), place) from None


def _built(value: Any, kind: type, place: str, choices: Choices) -> Any:
    """Return the object of a node, or of the option that a string names."""
    # The experiment and the job differ from run to run; repr tells 1 from 1.0 and True.
    known = choices.built if place and choices.built is not None else {}
    key = kind, place, repr(value)
    if key not in known:
        if isinstance(value, str):
            if not choices.options(kind):
                raise _wrong_type(value, (kind,), place)
            value = choices.node(kind, value, place)
        known[key] = _build(value, kind, place, choices)
    return known[key]


def _scalar(value: Any, kind: Any) -> Any:
    """Return a value as a simple type. Raises TypeError where it has another type."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind is float and is_number:
        return float(value)
    if kind is int and is_number and (isinstance(value, int) or value.is_integer()):
        return int(value)  # many people write 1e3 for a thousand
    if kind is Path and isinstance(value, str) and value:
        return Path(value)
    if kind in (bool, str, type(None)) and isinstance(value, kind):
        return value
    raise TypeError


def _convert_literal(value: Any, options: tuple[Any, ...], place: str) -> Any:
    if value in options:
        return value
    names = [str(option) for option in options]
    near = suggest(str(value), names)
    raise ConfigError(f"{place}={shortened(value)}: must be {' or '.join(names)}{near}")


def _convert_to_any(value: Any, kinds: tuple[Any, ...], place: str, choices: Choices) -> Any:
    """Return the value as the type that it already has, else as the first that it can become."""
    if value == "" and type(None) in kinds:  # an environment variable that is set to nothing
        return None
    for kind in kinds:
        if inspect.isclass(kind) and type(value) is kind:
            return value
    candidates = [kind for kind in kinds if _may_become(value, kind, choices)]
    for kind in candidates:
        try:
            return convert(value, kind, place, choices)
        except ConfigError:
            # The last candidate's own message says what is wrong inside the node or the list.
            if kind is candidates[-1] and _is_nested(kind):
                raise
    raise _wrong_type(value, kinds, place)


def _may_become(value: Any, kind: Any, choices: Choices) -> bool:
    """Return whether the value is a node or a list where the type is, or the name of an option."""
    if kind is type(None):
        return False
    if isinstance(value, str) and choices.options(kind):
        return True
    return isinstance(value, dict | list) == _is_nested(kind)


def _is_nested(kind: Any) -> bool:
    """Return whether YAML writes this type as a node or a list."""
    return typing.get_origin(kind) in (tuple, dict) or _is_configured(kind)


def _is_configured(kind: Any) -> bool:
    """Return whether a configuration node can describe an object of this type."""
    return inspect.isclass(kind) and (dataclasses.is_dataclass(kind) or inspect.isabstract(kind))


def _wrong_type(value: Any, kinds: tuple[Any, ...], place: str) -> ConfigError:
    wanted = " or ".join(in_words(kind) for kind in kinds)
    message = f"{place}={shortened(value)}: must be {wanted}"
    if isinstance(value, list) and value:
        values = ",".join(str(item) for item in value)
        message += f"; a sweep over several values is written -m {place}={shortened(values)}"
    return ConfigError(message)


def _build(node: Mapping[str, Any], kind: type, place: str, choices: Choices) -> Any:
    """Call the constructor that a node describes.

    It is the constructor of ``kind``, or of the class of that kind that ``_target_`` names.
    """
    cls = _class(node.get("_target_"), kind, place)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    hints = _hints(cls)
    arguments = {}
    for key, value in node.items():
        if key == "_target_":
            continue
        inner = f"{place}.{key}" if place else key
        if key not in fields:
            raise ConfigError(f"{inner}: no such key{suggest(key, fields) if fields else ''}")
        # The experiment's keys stand at the top of the configuration.
        where = "" if inner == "experiment" else inner
        arguments[key] = convert(value, hints[key], where, choices)
    for name, field in fields.items():
        required = dataclasses.MISSING is field.default is field.default_factory
        if required and name not in arguments:
            missing = f"{place}.{name}" if place else name
            raise ConfigError(f"{missing} is missing: set it with {missing}=…")
    with within(place):
        return cls(**arguments)


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _class(target: str | None, kind: type, place: str) -> type:
    """Return the class that ``_target_`` names, or ``kind`` itself where it names none."""
    options = {f"{cls.__module__}.{cls.__qualname__}": cls for cls in concrete_classes(kind)}
    if target in options:
        return options[target]
    names = ", ".join(options)
    if target is not None:
        near = suggest(str(target), options)
        raise ConfigError(f"{place}._target_={target}: not a class that can stand here{near}")
    if inspect.isabstract(kind):
        raise ConfigError(
            f"{place}: _target_ is missing: it names the class to build, one of {names}"
        )
    return kind
