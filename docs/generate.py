"""Writes docs/reference.md from the YAML files, the classes and a template: ``make docs``.

The YAML files say what each option and setting means, in comments. An option without a comment is
described by the docstring of its class.
"""

import inspect
import pkgutil
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

import yaml

from src.runs.job import METRICS
from src.support.paths import CONF

DOCS = Path(__file__).parent
PAGE = DOCS / "reference.md"

# In the order of the page, each with what a reader chooses by it.
CHOICES = {
    "model": "the layers of the network",
    "activation": "the function of each hidden unit",
    "initializer": "the weights and biases that training starts from",
    "distribution": "how the entries of one array are drawn, within an initializer",
    "loss": "what training minimizes",
    "batching": "which samples form an update",
    "optimizer": "what an update does with the gradient",
    "schedule": "how the learning rate changes",
    "stopping": "when training ends, and which epoch's weights are kept",
    "data": "what the network learns",
    "experiment": "a published recipe, which sets everything it needs",
    "debug": "a check of a configuration that does not learn",
    "tracking": "where MLflow keeps the runs",
    "sweep": "a preset for `-m`: the lists of a sweep, chosen as `-m +sweep=card`",
    "hydra/sweeper": "which runs a sweep has",
    "hydra/launcher": "how the runs of a sweep are carried out",
}
PICTURES = {"activation": "![Every activation and its derivative](pictures/activations.png)"}
# What a choice is called where it belongs to another choice's setting.
PLACES = {"activation": "model.activation", "distribution": "initializer.weights"}

_PARTS = {"train": "training set", "val": "validation set", "test": "test set"}


@dataclass(frozen=True)
class Setting:
    """A setting of one option: its dotted key within the option, its default and its meaning."""

    key: str
    default: str
    meaning: str


@dataclass(frozen=True)
class Option:
    """One YAML file."""

    name: str
    meaning: str
    settings: Sequence[Setting]


def reference() -> str:
    """Return the whole page."""
    template = Template((DOCS / "reference.template.md").read_text(encoding="utf-8"))
    contents = " · ".join(f"[`{group}`](#{group.replace('/', '')})" for group in CHOICES)
    page = template.substitute(
        contents=contents,
        root=_table(("setting", "default", "meaning"), _root_rows()),
        choices="\n\n".join(_choice(group, what) for group, what in CHOICES.items()),
        metrics="\n".join(f"| `{metric}` | {_metric(metric)} |" for metric in METRICS),
    )
    return page.rstrip() + "\n"


def options(group: str) -> list[Option]:
    """Return the options of a configuration group, in alphabetical order."""
    return [_option(path) for path in sorted((CONF / group).glob("*.yaml"))]


def root_settings() -> list[Setting]:
    """Return the settings of ``conf/config.yaml`` that belong to no choice."""
    text = (CONF / "config.yaml").read_text(encoding="utf-8")
    choices = {"hydra", *CHOICES} - {"sweep"}  # whose settings stand beside its presets
    return [s for s in _settings(text) if re.split(r"[. ]", s.key)[0] not in {"override", *choices}]


def _option(path: Path) -> Option:
    text = path.read_text(encoding="utf-8")
    meaning = _heading(text) or _docstring(text)
    is_recipe = "# @package _global_" in text
    return Option(path.stem, meaning, [] if is_recipe else _settings(text))


def _heading(text: str) -> str:
    """Return the comment that a file opens with, in one line."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("# @package"):
            lines.append(line.removeprefix("#").strip())
    return " ".join(lines)


def _docstring(text: str) -> str:
    """Return the first paragraph of the docstring of a file's class, in one line."""
    target = yaml.safe_load(text)["_target_"]
    paragraph = (inspect.getdoc(pkgutil.resolve_name(target)) or "").split("\n\n")[0]
    return " ".join(paragraph.split())


def _settings(text: str) -> list[Setting]:
    """Return the settings of a file, and the choices that its defaults list makes within it."""
    node = yaml.compose(text)
    assert isinstance(node, yaml.MappingNode)
    lines = text.splitlines()
    found: dict[str, Setting] = {}
    for key, value, mark in _leaves(node, ""):
        meaning = lines[mark.line][mark.column :].partition("#")[2].strip()
        key = key.rpartition("@")[2].removeprefix("/")
        known = found.get(key)
        found[key] = Setting(key, value, meaning or (known.meaning if known else ""))
    return list(found.values())


def _leaves(node: yaml.MappingNode, place: str) -> Iterator[tuple[str, str, yaml.Mark]]:
    """Yield the key, the value as written and the end of each setting in a node."""
    for key_node, value in node.value:
        key = f"{place}{key_node.value}"
        if key == "defaults":
            for item in value.value:
                if isinstance(item, yaml.MappingNode):
                    yield from _leaves(item, "")
        elif isinstance(value, yaml.MappingNode) and value.value:
            yield from _leaves(value, f"{key}.")
        elif key != "_target_":
            yield key, _written(value), value.end_mark


def _written(node: yaml.Node) -> str:
    if isinstance(node, yaml.SequenceNode):
        return f"[{', '.join(_written(item) for item in node.value)}]"
    if isinstance(node, yaml.MappingNode):
        return "{}"
    return str(node.value)


def _root_rows() -> Iterator[Sequence[str]]:
    for setting in root_settings():
        yield f"`{setting.key}`", f"`{setting.default}`", setting.meaning


def _choice(group: str, what: str) -> str:
    found = options(group)
    place = PLACES.get(group)
    title = f"## {group}\n\n{what[0].upper()}{what[1:]}."
    if place:
        title += f" Chosen as `{place}={found[0].name}`."
    parts = [title, _table(("option", "meaning"), ((f"`{o.name}`", o.meaning) for o in found))]
    if group in PICTURES:
        parts.append(PICTURES[group])
    if rows := list(_setting_rows(place or group.replace("/", "."), found)):
        parts.append(_table(("setting", "default", "meaning"), rows))
    return "\n\n".join(parts)


def _setting_rows(prefix: str, found: Sequence[Option]) -> Iterator[Sequence[str]]:
    """Yield a row per setting: options that share a default share its mention."""
    keys = dict.fromkeys(setting.key for option in found for setting in option.settings)
    for key in keys:
        having = {o.name: s for o in found for s in o.settings if s.key == key}
        meanings = dict.fromkeys(setting.meaning for setting in having.values() if setting.meaning)
        yield f"`{prefix}.{key}`", _defaults(having, len(found)), "; ".join(meanings)


def _defaults(having: dict[str, Setting], total: int) -> str:
    by_default: dict[str, list[str]] = {}
    for name, setting in having.items():
        by_default.setdefault(setting.default, []).append(name)
    if len(by_default) == 1 and len(having) == total:
        return f"`{next(iter(by_default))}`"
    return "<br>".join(f"{', '.join(names)}: `{d}`" for d, names in by_default.items())


def _metric(metric: str) -> str:
    part, *best, measure = metric.split("/")
    what = "mean loss" if measure == "loss" else "share of correct predictions"
    if best:
        extreme = "lowest" if measure == "loss" else "highest"
        return f"{extreme} `{part}/{measure}` of all epochs"
    return f"{what} on the {_PARTS[part]}"


def _table(heading: Sequence[str], rows: Iterator[Sequence[str]] | Sequence[Sequence[str]]) -> str:
    lines = [heading, ["---"] * len(heading), *(map(_escaped, row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _escaped(cell: str) -> str:
    return re.sub(r"(?<!\\)\|", r"\\|", cell)


def main() -> None:
    """Write the page."""
    PAGE.write_text(reference(), encoding="utf-8")


if __name__ == "__main__":
    main()
