"""Writes a comparison as one HTML file that holds everything it shows.

The file needs no network: Plotly's script and the data are inside, compressed. Its security policy
admits these scripts only, so a run's name cannot bring another one.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from src.comparison.page.inlined import digest, packed
from src.comparison.page.payload import payload
from src.comparison.page.tables import (
    COLOURS,
    EXAMINED,
    diagnosis,
    explanations,
    failures,
    intervals,
    leaderboard,
    runs,
    summary,
)
from src.support.files import write_whole

if TYPE_CHECKING:
    from src.comparison.comparison import Comparison

_FOLDER = Path(__file__).parent
# In the order in which they read each other.
_FIRST_SENTENCE = re.compile(r"(.+?)(\.| \(.*?\)\.)(?: (.*))?$")
_SCRIPTS = ("data", "selection", "tables", "charts", "curves", "settings", "pairs", "start")


def write_page(comparison: "Comparison", path: Path) -> None:
    """Write the page of a comparison to ``path``, all of it or nothing."""
    write_whole(path, page(comparison).encode())


def page(comparison: "Comparison") -> str:
    """Return the page of a comparison as HTML."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from plotly.offline import get_plotlyjs

    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,  # names and reasons may hold anything
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    plotly = get_plotlyjs()
    script = "\n".join(_read(f"script/{name}.js") for name in _SCRIPTS)
    data = json.dumps(payload(comparison), allow_nan=False, separators=(",", ":"))
    return environment.get_template("page.html.jinja").render(
        comparison=comparison,
        summary=summary(comparison),
        headline=headline(comparison.answer),
        leaderboard=leaderboard(comparison),
        intervals=intervals(comparison),
        runs=runs(comparison),
        failures=failures(comparison),
        explanations=explanations(comparison),
        diagnosis=diagnosis(comparison),
        colours=COLOURS,
        examined=EXAMINED,
        methods=sorted(set(map(str, comparison.importance()["method"]))),
        style=_read("page.css"),
        script=script,
        script_digest=digest(script),
        plotly_digest=digest(plotly),
        plotly=packed(plotly.encode()),
        data=packed(data.encode()),
    )


class Headline(NamedTuple):
    """The first paragraph of an answer in three parts, which are shown in three sizes."""

    text: str  # the first sentence without what stands in parentheses
    detail: str
    rest: str  # the other sentences


def headline(answer: Sequence[str]) -> Headline:
    """Return the parts of the first paragraph of an answer."""
    said = answer[0] if answer else "There is no answer yet."
    found = _FIRST_SENTENCE.match(said)
    return Headline(*(part or "" for part in found.groups())) if found else Headline(said, "", "")


def _read(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")
