"""Finds the options of a choice: one YAML file per option, in a folder named after the class."""

import inspect
import typing
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import MissingMandatoryValue, OmegaConf

from src.config.describe import suggest_option
from src.support.errors import ConfigError
from src.support.paths import CONF
from src.support.serialization import with_subclasses

# The choices that belong to one setting of another choice, and that setting.
SHORT_FORMS = {"activation": "model.activation", "distribution": "initializer.weights"}


@dataclass(frozen=True)
class Choices:
    """The options that the configuration folders offer. An earlier folder wins.

    ``built`` keeps what nodes were made into, so that the jobs of a sweep make equal ones once.
    """

    folders: tuple[Path, ...] = (CONF,)
    built: dict[Hashable, Any] | None = field(default=None, compare=False)

    def options(self, kind: Any) -> Mapping[str, Path]:
        """Return the files of a class's options by name; none where the class has no folder.

        The options of ``Activation`` are the files of ``activation/``.
        """
        if not inspect.isabstract(kind):
            return {}
        found: dict[str, Path] = {}
        for folder in self.folders:
            for path in sorted((folder / group(kind)).glob("*.yaml")):
                found.setdefault(path.stem, path)
        return dict(sorted(found.items()))

    def node(self, kind: type, name: str, place: str) -> dict[str, Any]:
        """Return the configuration node that an option's name stands for.

        ``model.activation=tanh`` stands for what ``conf/activation/tanh.yaml`` holds. Raises
        ConfigError for an unknown name and for an option that needs more than its name.
        """
        options = self.options(kind)
        if name not in options:
            near = suggest_option(group(kind), name, options)
            raise ConfigError(f"{place}={name}: no such {group(kind)}{near}")
        try:
            plain = OmegaConf.to_container(OmegaConf.load(options[name]), throw_on_missing=True)
        except MissingMandatoryValue as error:
            raise ConfigError(
                f"{place}={name}: needs a value for {error.full_key}, which a name alone can't give"
            ) from None
        return _with_defaults(typing.cast(dict[str, Any], plain))


def _with_defaults(node: dict[str, Any]) -> dict[str, Any]:
    """Return a node with its defaults list applied.

    An entry such as ``/distribution@weights: he`` becomes the setting ``weights: he``.
    """
    for entry in node.pop("defaults", []):
        if entry != "_self_":
            node |= {target.partition("@")[2]: option for target, option in entry.items()}
    return node


def group(kind: type) -> str:
    """Return the name of the configuration group that a class belongs to."""
    return kind.__name__.lower()


def concrete_classes(kind: type) -> list[type]:
    """Return the class itself and all classes derived from it, without the abstract ones."""
    return [cls for cls in with_subclasses(kind) if not inspect.isabstract(cls)]
