"""Refuses settings of Hydra that would run code or write elsewhere, before Hydra acts on them.

Hydra calls what ``hydra.callbacks``, ``hydra.launcher``, ``hydra.sweeper`` and the two logging
nodes name. A configuration file may come from a stranger, so it may choose only among this
project's parts and Hydra's plugins. What a person types on the command line is the person's own.
"""

import importlib.util
import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import Any, cast

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from src.config.describe import shortened
from src.config.hydra_internals import check_compositions
from src.support.errors import ConfigError

_CALLBACKS = (
    "src.run.Preflight",
    "hydra.experimental.callbacks.LogJobReturnCallback",
    "hydra.experimental.callbacks.PickleJobInfoCallback",
)
_PLUGINS = ("hydra_plugins.", "hydra._internal.core_plugins.")
_NESTED_TARGETS = ("optuna.samplers.",)
# Settings of launchers and sweepers whose text can only name or count something.
_NAMES = (
    "account",
    "backend",
    "direction",
    "memory",
    "name",
    "partition",
    "prefer",
    "pruner",
    "qos",
    "queue",
    "require",
    "study",
    "walltime",
)

_HANDLERS = {
    "logging.FileHandler": {"filename", "mode", "encoding", "delay"},
    "logging.NullHandler": set(),
    "logging.StreamHandler": {"stream"},
}
_FORMATTERS = ("logging.Formatter", "colorlog.ColoredFormatter")
_STREAMS = ("ext://sys.stdout", "ext://sys.stderr")
_LOG_FOLDER = "${hydra.runtime.output_dir}/"
_LOG_FILES = ("${hydra.job.name}.log", "hydra-${hydra.job.name}.log")


def install() -> None:
    """Check every configuration that Hydra composes in this process from now on."""
    check_compositions(check_hydra)


def check_hydra(config: DictConfig, overrides: Sequence[str]) -> None:
    """Raise ConfigError if the ``hydra`` node of a composed configuration is not harmless.

    ``overrides`` are the command line's. Nothing is resolved: the value of an interpolation could
    be another by the time that Hydra uses it.
    """
    hydra = config.get("hydra")
    if hydra is None:
        return
    node = cast(dict[str, Any], OmegaConf.to_container(hydra, resolve=False))
    typed = {override.partition("=")[0].lstrip("+") for override in overrides}
    _check_callbacks(node.get("callbacks"), typed)
    choices = node["runtime"].get("choices") or {}
    for kind in ("launcher", "sweeper"):
        _check_plugin(kind, node.get(kind), choices.get(f"hydra/{kind}"), typed)
    for kind in ("hydra_logging", "job_logging"):
        _check_logging(f"hydra.{kind}", node.get(kind))
    _check_environment(node["job"].get("env_set"), typed)
    _check_names(node)
    _check_verbose(node.get("verbose"))


def _wrong(place: str, value: Any, rule: str) -> ConfigError:
    return ConfigError(f"{place}={shortened(value)}: {rule}")


def _check_callbacks(callbacks: Any, typed: set[str]) -> None:
    """Raise ConfigError for a callback of another class that the command line does not name."""
    if callbacks is None:
        return
    if not isinstance(callbacks, dict):
        raise _wrong("hydra.callbacks", callbacks, "must be callbacks by name")
    for name, callback in callbacks.items():
        place = f"hydra.callbacks.{name}"
        if not isinstance(callback, dict):
            raise _wrong(place, callback, "must be a group of settings with _target_")
        for key, value in _leaves(callback, place):
            if key in typed:
                continue
            if key == f"{place}._target_" and value in _CALLBACKS:
                continue
            if key.endswith("_target_") or not _is_simple(value):
                rule = "a callback runs code, so only the command line can set it"
                raise _wrong(key, value, rule)


def _check_plugin(kind: str, node: Any, choice: Any, typed: set[str]) -> None:
    """Raise ConfigError unless a launcher or sweeper is a plugin, with settings that run nothing.

    The plugin's own defaults and settings on the command line may be anything.
    """
    place = f"hydra.{kind}"
    if not isinstance(node, dict):
        raise _wrong(place, node, f"must be a {kind}: choose one with hydra/{kind}=NAME")
    target = node.get("_target_")
    if not isinstance(target, str) or not target.startswith(_PLUGINS) or "${" in target:
        rule = f"must be a plugin of Hydra: choose a {kind} with hydra/{kind}=NAME"
        raise _wrong(f"{place}._target_", target, rule)
    defaults = dict(_leaves(_registered(kind, choice), place))
    for key, value in _leaves(node, place):
        inner = key.removeprefix(f"{place}.")
        whole = re.sub(r"(\.\d+)+$", "", key)  # the list, for an item of it
        if key == f"{place}._target_" or key in typed or whole in typed:
            continue
        if key in defaults and defaults[key] == value:
            continue
        if value == "???":
            raise ConfigError(f"{key}: is missing: add {key}=… to the command line")
        if inner.startswith("params."):
            _check_swept(inner.removeprefix("params."), value, key)
        elif inner.endswith("._target_") and str(value).startswith(_NESTED_TARGETS):
            continue
        elif isinstance(value, str) and not (inner in _NAMES and re.fullmatch(r"[\w.:-]*", value)):
            rule = f"set in a file. It may run code: add {key}=… to the command line"
            raise _wrong(key, value, rule)


def _check_swept(setting: str, value: Any, place: str) -> None:
    """Raise ConfigError if a file sweeps over settings of Hydra."""
    if setting.lstrip("+~").startswith("hydra") or "hydra." in setting:
        raise _wrong(place, value, "set in a file, which can't sweep over settings of Hydra")


def _registered(kind: str, choice: Any) -> dict[str, Any]:
    """Return what a plugin itself registers for a choice, or nothing where it is not known."""
    try:
        found = ConfigStore.instance().load(f"hydra/{kind}/{choice}.yaml").node
    except OSError:
        return {}
    plain = OmegaConf.to_container(found, resolve=False)
    return {str(key): value for key, value in plain.items()} if isinstance(plain, dict) else {}


def _check_logging(place: str, node: Any) -> None:
    """Raise ConfigError unless a logging node uses only handlers that log to the run's folder."""
    if node is None:
        return
    if not isinstance(node, dict):
        raise _wrong(place, node, "must be a group of settings of Python's logging")
    parts = ("version", "formatters", "handlers", "loggers", "root", "disable_existing_loggers")
    for key, value in node.items():
        if key not in parts:
            raise _wrong(f"{place}.{key}", value, f"no such setting; there are {', '.join(parts)}")
        if key in ("formatters", "handlers", "loggers") and not isinstance(value, dict):
            raise _wrong(f"{place}.{key}", value, "must be settings by name")
    if node.get("version") != 1:
        raise _wrong(f"{place}.version", node.get("version"), "must be 1")
    flag = node.get("disable_existing_loggers", True)
    if not isinstance(flag, bool):
        raise _wrong(f"{place}.disable_existing_loggers", flag, "must be true or false")
    for name, formatter in node.get("formatters", {}).items():
        _check_formatter(f"{place}.formatters.{name}", formatter)
    for name, handler in node.get("handlers", {}).items():
        _check_handler(f"{place}.handlers.{name}", handler, node.get("formatters", {}))
    loggers = {f"loggers.{name}": logger for name, logger in node.get("loggers", {}).items()}
    for name, logger in {**loggers, "root": node.get("root")}.items():
        _check_logger(f"{place}.{name}", logger, node.get("handlers", {}))


def _check_formatter(place: str, formatter: Any) -> None:
    allowed = {"()", "class", "format", "datefmt", "style", "validate", "log_colors"}
    _check_keys(place, formatter, allowed)
    for key in ("()", "class"):
        cls = formatter.get(key, _FORMATTERS[0])
        if cls not in _FORMATTERS:
            raise _wrong(f"{place}.{key}", cls, f"must be {' or '.join(_FORMATTERS)}")
    if formatter.get("style", "%") not in ("%", "$"):
        raise _wrong(f"{place}.style", formatter["style"], "must be % or $")
    for key in ("format", "datefmt"):
        text = formatter.get(key)
        if text is not None and not _is_simple(text):
            raise _wrong(f"{place}.{key}", text, "must be a plain string")
    colors = formatter.get("log_colors", {})
    if not isinstance(colors, dict) or not all(map(_is_simple, colors.values())):
        raise _wrong(f"{place}.log_colors", colors, "must be colors by level")


def _check_handler(place: str, handler: Any, formatters: dict[str, Any]) -> None:
    if not isinstance(handler, dict):
        raise _wrong(place, handler, "must be a group of settings")
    cls = handler.get("class")
    if not isinstance(cls, str) or cls not in _HANDLERS:
        raise _wrong(f"{place}.class", cls, f"must be {', '.join(_HANDLERS)}")
    _check_keys(place, handler, {"class", "formatter", "level"} | _HANDLERS[cls])
    _check_level(place, handler)
    if "formatter" in handler and handler["formatter"] not in formatters:
        raise _wrong(f"{place}.formatter", handler["formatter"], "no such formatter")
    if handler.get("stream", _STREAMS[0]) not in _STREAMS:
        raise _wrong(f"{place}.stream", handler["stream"], f"must be {' or '.join(_STREAMS)}")
    if cls == "logging.FileHandler":
        name = str(handler.get("filename"))
        if name.removeprefix(_LOG_FOLDER) not in _LOG_FILES:
            raise _wrong(f"{place}.filename", name, f"must be {_LOG_FOLDER}{_LOG_FILES[0]}")
        for key, right in (("mode", "aw"), ("encoding", ("utf-8", None)), ("delay", (True, False))):
            if key in handler and handler[key] not in right:
                raise _wrong(f"{place}.{key}", handler[key], "no such value")


def _check_logger(place: str, logger: Any, handlers: dict[str, Any]) -> None:
    if logger is None:
        return
    _check_keys(place, logger, {"level", "handlers", "propagate"})
    _check_level(place, logger)
    named = logger.get("handlers") or []
    if not isinstance(named, list) or not all(name in handlers for name in named):
        rule = f"must be a list of {', '.join(handlers) or 'no handlers: there are none'}"
        raise _wrong(f"{place}.handlers", named, rule)


def _check_keys(place: str, node: Any, allowed: set[str]) -> None:
    """Raise ConfigError unless a node is a group of settings with these names."""
    if not isinstance(node, dict):
        raise _wrong(place, node, "must be a group of settings")
    for key, value in node.items():
        if key not in allowed:
            there = ", ".join(sorted(allowed))
            raise _wrong(f"{place}.{shortened(key)}", value, f"no such setting; there are {there}")


def _check_level(place: str, node: dict[str, Any]) -> None:
    level = node.get("level")
    if not (level is None or type(level) is int or level in logging.getLevelNamesMapping()):
        raise _wrong(f"{place}.level", level, "must be DEBUG, INFO, WARNING, ERROR or CRITICAL")


def _check_environment(variables: Any, typed: set[str]) -> None:
    """Raise ConfigError for environment variables that a file sets: PATH decides what runs."""
    for name, value in dict(variables or {}).items():
        place = f"hydra.job.env_set.{name}"
        if place not in typed:
            rule = "set in a file, but environment variables can be set only on the command line"
            raise _wrong(place, value, rule)


def _check_names(node: dict[str, Any]) -> None:
    """Raise ConfigError for names of files and folders that lead outside the run's folder."""
    subdir = node.get("output_subdir")
    if subdir is not None:
        check_subfolder("hydra.output_subdir", subdir)
    name = node["job"].get("name")
    if name is not None and not re.fullmatch(r"[^/\0${]{1,200}", str(name)):
        raise _wrong("hydra.job.name", name, "must be a file's name, of up to 200 characters")


def check_subfolder(place: str, subfolder: Any) -> None:
    """Raise ConfigError unless a resolved value names a folder within another, by short names."""
    path = PurePath(str(subfolder))
    plain = _is_simple(subfolder) and path.parts and not path.is_absolute()
    too_long = any(len(part.encode()) > 200 for part in path.parts)
    if not plain or ".." in path.parts or too_long:
        rule = (
            "must be a folder within the one of the run or the sweep, by names of up to 200 bytes"
        )
        raise _wrong(place, subfolder, rule)


def _check_verbose(verbose: Any) -> None:
    """Raise ConfigError unless this is true, false or names loggers of modules that exist."""
    names = [verbose] if isinstance(verbose, str) else verbose
    if isinstance(names, bool) or (isinstance(names, list) and all(map(_is_logger, names))):
        return
    rule = "must be true, false or a list of loggers such as [src,hydra]"
    raise _wrong("hydra.verbose", verbose, rule)


def _is_logger(name: Any) -> bool:
    top = str(name).partition(".")[0]
    return top == "__main__" or (top.isidentifier() and importlib.util.find_spec(top) is not None)


def _is_simple(value: Any) -> bool:
    """Tell whether a value is a number, true, false, null, or a string that is taken as it is."""
    if isinstance(value, str):
        return "${" not in value and "\0" not in value and not value.startswith(("ext:", "cfg:"))
    return value is None or isinstance(value, int | float)


def _leaves(node: Any, place: str) -> Iterator[tuple[str, Any]]:
    """Yield every value in nested settings and lists by its dotted key."""
    if isinstance(node, dict):
        for name, child in node.items():
            yield from _leaves(child, f"{place}.{name}")
    elif isinstance(node, list):
        for number, child in enumerate(node):
            yield from _leaves(child, f"{place}.{number}")
    else:
        yield place, node
