"""The table in the terminal and as Markdown, everything as JSON, and the picture."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from tests.benchmarks.measuring import Times
from tests.benchmarks.works import (
    ALONE,
    JAX,
    JAX_SAME,
    ONE_CORE,
    OURS,
    PEERS,
    PLAIN,
    PYTORCH,
    REQUIRED,
    SKLEARN,
    Work,
)

_INSTALL = 'pip install --editable ".[bench]"'
_INNER_HEAD = ["work", OURS, "beside", "takes"]
_COLOURS = {
    OURS: "#4269d0",
    PLAIN: "#97bbf5",
    PYTORCH: "#ff725c",
    SKLEARN: "#efb118",
    JAX: "#3ca951",
    JAX_SAME: "#9bd8a4",
}


@dataclass(frozen=True)
class Report:
    """What came of the whole benchmark."""

    found: Mapping[Work, Times]
    images: str
    peaks: Mapping[int, float]  # GFLOP/s by the number of threads
    machine: Mapping[str, Any]
    missing: Sequence[str]  # peers
    quick: bool = False

    @property
    def head(self) -> list[str]:
        return ["work", "kFLOP", OURS, "of peak", PLAIN, *PEERS]

    @property
    def rows(self) -> list[list[str]]:
        """Microseconds per sample and network; of the others also how many times ours that is."""
        rows = []
        for work, times in self.found.items():
            row = [
                work.name,
                f"{work.flops / 1e3:.0f}",
                f"{times.median(OURS):.2f}",
                f"{self.share(work):.0%}",
            ]
            row.append(f"{times.median(PLAIN):.2f} · {times.ratio(PLAIN, OURS):.1f}×")
            row += [self._cell(work, peer) for peer in PEERS]
            rows.append(row)
        return rows

    @property
    def inner_rows(self) -> list[list[str]]:
        """Ours beside less: a stack beside networks one after another, all cores beside one."""
        rows = []
        for work, times in self.found.items():
            for who in (ALONE, ONE_CORE):
                if who in times.rounds:
                    rows.append(
                        [work.name, f"{times.median(OURS):.2f}", who, self._cell(work, who)]
                    )
        return rows

    @property
    def notes(self) -> list[str]:
        machine, versions = self.machine, self.machine["versions"]
        blas = ", ".join(
            dict.fromkeys(
                f"{b['internal_api']} {b['version']} {b['architecture']}" for b in machine["blas"]
            )
        )
        peaks = ", ".join(f"{value:.0f} by {threads}" for threads, value in self.peaks.items())
        packages = ", ".join(f"{name} {version}" for name, version in versions.items())
        load = f" Load before it began: {machine['load'][0]:g}." if machine["load"] else ""
        settings = "".join(f", {name}={value}" for name, value in machine["settings"].items())
        what = (
            "Microseconds per sample and network of one training pass in float32 on "
            f"{self.images}, medians of {self._rounds} rounds; × is the ratio to ours, "
            "✓ or ✗ whether it is what is required (≥)."
        )
        where = (
            f"{machine['cpu']}, {machine['cores']} cores, Python {machine['python']}, "
            f"{blas}{settings}; {packages}.{load}"
        )
        limit = (
            f"sgemm at its best, in GFLOP/s: {peaks} thread(s). Of peak: the arithmetic as books "
            "count it, beside the peak of as many threads as ours has."
        )
        how = (
            "Ours reads pixels as bytes and scales them in every pass; the others have them "
            "scaled. Of a stack, plain and PyTorch train one network: theirs go one after another."
        )
        notes = [what, where, limit, how]
        if self.quick:
            notes.append("Quick: so few samples that the figures say nothing.")
        elif len(self.peaks) > 1 and max(self.peaks.values()) < 1.4 * self.peaks[1]:
            notes.append(
                "All cores are hardly faster than one: other processes use them. "
                "No figure for several cores is sure."
            )
        if self.missing:
            notes.append(f"Not installed: {', '.join(self.missing)}. To have them: {_INSTALL}")
        return notes

    @property
    def unmet(self) -> list[str]:
        """Each required ratio that was measured and is not reached."""
        return [
            f"{work.name}: {who} {times.ratio(who, OURS):.2f}×, required {required:g}×"
            for work, times in self.found.items()
            for who, required in REQUIRED.get(work.name, {}).items()
            if who in times.rounds and times.ratio(who, OURS) < required
        ]

    @property
    def _rounds(self) -> int:
        return max((len(times.rounds[OURS]) for times in self.found.values()), default=0)

    def share(self, work: Work) -> float:
        """Return how much of the peak of as many threads ours comes to."""
        times = self.found[work]
        return work.flops / (times.median(OURS) * 1e3) / self.peaks[times.threads[OURS]]

    def _cell(self, work: Work, who: str) -> str:
        times = self.found[work]
        if who not in times.rounds:
            return ""
        ratio, required = times.ratio(who, OURS), REQUIRED.get(work.name, {}).get(who)
        mark = "" if required is None else f" {'✓' if ratio >= required else '✗'} ≥ {required:g}"
        digits = 0 if ratio >= 100 else 2 if ratio < 10 else 1
        return f"{times.median(who):.2f} · {ratio:.{digits}f}×{mark}"

    def show(self, console: Console) -> None:
        """Print the tables, and below them what they are of."""
        for head, rows in ((self.head, self.rows), (_INNER_HEAD, self.inner_rows)):
            table = Table(*head)
            for row in rows:
                table.add_row(*row)
            console.print(table)
        for note in self.notes:
            console.print(note, markup=False)
        for line in self.unmet:
            console.print(f"not met: {line}", markup=False)

    def save(self, folder: Path) -> None:
        """Keep everything in a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        tables = [_markdown(self.head, self.rows), _markdown(_INNER_HEAD, self.inner_rows)]
        unmet = [
            f"Not met: {'; '.join(self.unmet)}." if self.unmet else "Every required ratio is met."
        ]
        (folder / "bench.md").write_text(
            "\n".join([*tables, *(f"{n}\n" for n in [*self.notes, *unmet])]), "utf-8"
        )
        (folder / "bench.json").write_text(
            json.dumps(self._plain(), indent=1, ensure_ascii=False) + "\n", "utf-8"
        )
        self._draw().savefig(folder / "bench.png", dpi=110, metadata={"Software": None})

    def _plain(self) -> dict[str, Any]:
        rows = [
            {
                "work": work.name,
                "flops": work.flops,
                "share_of_peak": self.share(work),
                "threads": times.threads,
                "microseconds": times.rounds,
                "medians": {who: times.median(who) for who in times.rounds},
                "ratios": {who: times.ratio(who, OURS) for who in times.rounds if who != OURS},
                "required": REQUIRED.get(work.name, {}),
            }
            for work, times in self.found.items()
        ]
        return {
            "images": self.images,
            "quick": self.quick,
            "machine": self.machine,
            "peak_gflops": self.peaks,
            "missing": self.missing,
            "rows": rows,
            "unmet": self.unmet,
        }

    def _draw(self) -> Figure:
        """Draw the times as bars on a logarithmic scale, one group per row."""
        works = list(self.found)
        who = [
            name for name in _COLOURS if any(name in times.rounds for times in self.found.values())
        ]
        figure = Figure(figsize=(10, 1.2 + 0.75 * len(works)), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        height = 0.85 / len(who)
        for k, name in enumerate(who):
            at = [i for i, work in enumerate(works) if name in self.found[work].rounds]
            values = [self.found[works[i]].median(name) for i in at]
            places = np.array(at) + (k - (len(who) - 1) / 2) * height
            bars = axes.barh(places, values, height, color=_COLOURS[name], label=name)
            axes.bar_label(bars, [f"{value:.3g}" for value in values], fontsize=6, padding=2)
        axes.set(
            xscale="log", xlabel="microseconds per sample and network (log scale, less is better)"
        )
        axes.set_yticks(range(len(works)), [work.name for work in works])
        axes.set_ylim(len(works) - 0.4, -0.6)
        axes.grid(axis="x", alpha=0.3)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        figure.legend(loc="outside upper center", ncols=len(who), frameon=False)
        return figure


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in [head, ["---"] * len(head), *rows])
