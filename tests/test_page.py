"""The HTML page of a comparison, as a browser shows it: its numbers, its links, its manners."""

import html
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from src.comparison.page import write_page
from src.comparison.page.page import headline
from src.comparison.page.payload import payload
from src.tracking.told import ids
from tests.browser import CHROMIUM, Page, browser
from tests.comparisons import StandIn, compared
from tests.conftest import Ended

GRID: dict[str, list[Any]] = {"model": ["relu2", "sigmoid3"], "lr": [0.003, 0.03, 0.3, 3.0, 10.0]}
MANY: dict[str, list[Any]] = {
    "model": ["relu2", "sigmoid3"],
    "initializer": ["he", "zeros"],
    "lr": [0.01, 0.1, 1.0],
}
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture
def shown(page: Page, tmp_path: Path) -> Iterator[Page]:
    """The browser; whatever a test opens in it must neither fail nor ask for anything else."""
    page.errors.clear()
    page.requests.clear()
    yield page
    assert page.errors == []
    outside = [address for address in page.requests if not address.startswith(("file:", "data:"))]
    assert outside == []


def opened(page: Page, comparison: StandIn, folder: Path, **window: Any) -> Page:
    write_page(comparison.comparison, folder / "report.html")
    page.open(folder / "report.html", **window)
    assert page.value("document.documentElement.dataset.ready") == "yes", page.value(
        "document.getElementById('unavailable').textContent"
    )
    return page


def rows(page: Page, table: str) -> list[list[str]]:
    """Return the texts of the rows that a table shows."""
    found: list[list[str]] = page.value(
        f"""[...document.querySelectorAll('#{table} tbody tr')].filter((row) => !row.hidden)
            .map((row) => [...row.cells].map((cell) => cell.innerText.trim()))"""
    )
    return found


def traces(page: Page, chart: str) -> list[dict[str, Any]]:
    """Return what Plotly draws, with lists instead of its own arrays."""
    found: list[dict[str, Any]] = json.loads(
        page.value(f"JSON.stringify(document.getElementById('{chart}').data)")
    )
    return found


def trace(page: Page, chart: str, name: str) -> dict[str, Any]:
    return next(one for one in traces(page, chart) if one.get("name") == name)


@needs_chromium
def test_the_leaderboard_shows_what_the_runs_give(shown: Page, tmp_path: Path) -> None:
    comparison = compared(GRID)
    opened(shown, comparison, tmp_path)
    titles = shown.value(
        "[...document.querySelectorAll('#leaderboard thead th')].map((cell) => cell.innerText)"
    )
    table = pd.DataFrame(rows(shown, "leaderboard"), columns=titles).set_index("Configuration")
    runs = comparison.runs
    finished = runs[runs["status"] == "FINISHED"].groupby("configuration")
    for label, own in finished:
        row = table.loc[label]
        values = own["value"].to_numpy()
        assert row["mean"] == f"{values.mean():.4f}"
        assert row["sd"] == f"{np.std(values, ddof=1):.4f}"
        assert row["lowest"] == f"{min(values):.4f}"
        assert row["highest"] == f"{max(values):.4f}"
        assert row["test mean"] == f"{own['test'].mean():.4f}"
        half = 4.303 * np.std(values, ddof=1) / np.sqrt(3)  # Student's t with 2 degrees of freedom
        expected = f"{values.mean() - half:.4f} to {values.mean() + half:.4f}"
        assert row["95% interval"] == expected
        assert (row["model"], row["lr"]) == (own["model"].iloc[0], f"{own['lr'].iloc[0]:g}")
    assert table.loc["C10", ["mean", "95% interval", "runs"]].tolist() == [
        "–",
        "–",
        "0 of 3: 3 diverged",
    ]
    assert table.loc[["C1", "C2", "C4"], "against the first"].tolist() == [
        "leads",
        "may be as good (p = 0.050)",
        "worse (p = 0.006)",
    ]


@pytest.mark.slow
@needs_chromium
def test_the_first_is_the_best_if_no_other_ties_with_it(shown: Page, tmp_path: Path) -> None:
    comparison = compared(GRID)
    comparison.configurations["tied"] = [True, *[False] * 9]
    opened(shown, comparison, tmp_path)
    assert [row[5] for row in rows(shown, "leaderboard")][:2] == ["the best", "worse (p = 0.050)"]


@needs_chromium
@pytest.mark.parametrize(
    "over",
    [
        "epoch",
        pytest.param("updates", marks=pytest.mark.slow),
        pytest.param("samples", marks=pytest.mark.slow),
        pytest.param("seconds", marks=pytest.mark.slow),
    ],
)
def test_curves_show_mean_and_band_over_every_budget(
    shown: Page, tmp_path: Path, over: str
) -> None:
    comparison = compared(GRID)
    opened(shown, comparison, tmp_path)
    shown.value(f"document.querySelector('input[value={over}]').click()")
    epochs = comparison.epochs
    for chart, metric in (("loss-chart", "val/loss"), ("accuracy-chart", "val/accuracy")):
        own = epochs[epochs["configuration"] == "C2"].groupby("epoch")
        drawn = trace(shown, chart, "C2")
        np.testing.assert_allclose(drawn["x"], own[over].mean(), rtol=1e-3)
        np.testing.assert_allclose(drawn["y"], own[metric].mean(), rtol=1e-3)
        every = traces(shown, chart)
        band = every[every.index(drawn) - 1]
        half = len(own)
        np.testing.assert_allclose(band["y"][:half], own[metric].max(), rtol=1e-3)
        np.testing.assert_allclose(band["y"][half:][::-1], own[metric].min(), rtol=1e-3)


@needs_chromium
def test_curves_change_their_set_and_their_axes(shown: Page, tmp_path: Path) -> None:
    comparison = compared(GRID)
    opened(shown, comparison, tmp_path)
    axes = "(({xaxis, yaxis}) => [xaxis.type, yaxis.type])(document.getElementById('{}').layout)"
    loss, accuracy = (axes.replace("{}", f"{name}-chart") for name in ("loss", "accuracy"))
    assert shown.value(loss) == ["linear", "log"]
    shown.click("input[name=loss-axis][value=linear] + span")
    shown.click("input[name=over-axis][value=log] + span")
    shown.click("input[name=set][value=train] + span")
    assert shown.value(loss) == shown.value(accuracy) == ["log", "linear"]
    epochs = comparison.epochs
    own = epochs[epochs["configuration"] == "C1"].groupby("epoch")["train/loss"]
    np.testing.assert_allclose(trace(shown, "loss-chart", "C1")["y"], own.mean(), rtol=1e-3)
    lines = len(traces(shown, "loss-chart"))
    shown.click("#single")
    assert len(traces(shown, "loss-chart")) == lines - 8  # seven in colour, and the others


@pytest.mark.slow
@needs_chromium
def test_curves_of_means_go_as_far_as_all_their_runs(shown: Page, tmp_path: Path) -> None:
    comparison = compared(GRID)
    first = comparison.runs.index[comparison.runs["configuration"] == "C1"][0]
    epochs = comparison.epochs
    comparison.epochs = epochs[(epochs["run"] != first) | (epochs["epoch"] <= 6)]
    opened(shown, comparison, tmp_path)
    assert trace(shown, "loss-chart", "C1")["x"] == [1, 2, 3, 4, 5, 6]
    assert trace(shown, "loss-chart", "C2")["x"] == list(range(1, 11))


@pytest.mark.slow
@needs_chromium
def test_single_runs_and_their_ends_are_drawn(shown: Page, tmp_path: Path) -> None:
    comparison = compared(GRID)
    opened(shown, comparison, tmp_path)
    drawn: set[int] = set()
    for one in traces(shown, "loss-chart"):
        if one["mode"] == "lines" and "customdata" in one:
            drawn |= {target[1] for target in one["customdata"] if target}
    assert drawn == set(comparison.runs.index)
    ends = traces(shown, "loss-chart")[-1]
    epochs = comparison.epochs
    lost = epochs[(epochs["configuration"] == "C10") & np.isfinite(epochs["val/loss"])]
    last = lost.groupby("run")["val/loss"].last()
    assert [target[1] for target in ends["customdata"]] == last.index.tolist()
    np.testing.assert_allclose(ends["y"], last, rtol=1e-3)


@needs_chromium
def test_a_choice_is_highlighted_everywhere(shown: Page, tmp_path: Path) -> None:
    opened(shown, compared(GRID), tmp_path)
    shown.value("document.querySelector('#runs-section details').open = true")
    picked = """[...document.querySelectorAll('tr.picked')].map((row) =>
        [row.closest('table').id, row.dataset.configuration])"""

    def widths(chart: str) -> dict[str, float]:
        return {
            one["name"]: one["line"]["width"] for one in traces(shown, chart) if one.get("name")
        }

    shown.click("#leaderboard tr[data-configuration=C3] td")
    assert shown.value(picked) == [
        ["leaderboard", "C3"],
        ["explained", "C3"],
        ["layers", "C3"],
        ["layers", "C3"],
        *[["runs", "C3"]] * 3,
    ]
    assert widths("loss-chart")["C3"] == widths("accuracy-chart")["C3"] == 4
    assert widths("loss-chart")["C1"] < 4
    assert shown.value("document.querySelector('#picked span').innerText").startswith(
        "Highlighted: C3 model="
    )
    assert len(shown.value("document.getElementById('settings-chart').layout.shapes")) == 1
    assert shown.value("document.getElementById('pair-b').value") == "C3"
    pressed = (
        "[...document.querySelectorAll('#legend [aria-pressed=true]')].map((e) => e.innerText)"
    )
    assert [text.split()[0] for text in shown.value(pressed)] == ["C3"]

    shown.press("Escape", 27)
    assert shown.value(picked) == []
    assert shown.value("document.getElementById('picked').hidden")

    shown.click("#legend button:nth-of-type(2)")
    assert shown.value(picked)[0] == ["leaderboard", "C2"]

    # A configuration without a colour of its own gets one while it is highlighted.
    assert "C9" not in widths("loss-chart")
    shown.click("#leaderboard tr[data-configuration=C9] button")
    assert widths("loss-chart")["C9"] == 4

    # A single run: its line, and of the table of runs its row only.
    shown.click("#runs tr[data-run='4'] button")
    assert [found for found in shown.value(picked) if found[0] == "runs"] == [["runs", "C2"]]
    assert any(
        one["line"]["width"] == 3.5 and {target[1] for target in one["customdata"]} == {4}
        for one in traces(shown, "loss-chart")
        if one["mode"] == "lines" and "customdata" in one
    )


@pytest.mark.slow
@needs_chromium
def test_a_point_of_a_chart_can_be_chosen(shown: Page, tmp_path: Path) -> None:
    opened(shown, compared(GRID), tmp_path)
    x, y = shown.value(
        """(() => {
            const chart = document.getElementById('time-chart');
            chart.scrollIntoView({block: "center", behavior: "instant"});
            const box = chart.querySelectorAll('.points path')[1].getBoundingClientRect();
            return [box.x + box.width / 2, box.y + box.height / 2];
        })()"""
    )
    shown.click_at(x, y)
    assert (
        shown.value("document.querySelector('#leaderboard tr.picked')?.dataset.configuration")
        == "C2"
    )


@pytest.mark.slow
@needs_chromium
def test_tables_are_sorted_with_the_keyboard(shown: Page, tmp_path: Path) -> None:
    opened(shown, compared(GRID), tmp_path)
    shown.value("document.getElementById('leaderboard').querySelector('button.sort').focus()")
    shown.press("Tab", 9)
    assert shown.value("document.activeElement.innerText") == "mean"
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert shown.value(outline) == "solid"
    sorted_by = "document.activeElement.closest('th').ariaSort"
    for direction in ("ascending", "descending"):
        shown.press("Enter", 13, "\r")
        assert shown.value(sorted_by) == direction
        means = [row[1] for row in rows(shown, "leaderboard")]
        assert means[-1] == "–"  # last in both directions
        figures = [float(mean) for mean in means[:-1]]
        assert figures == sorted(figures, reverse=direction == "descending")
    shown.press("Tab", 9)
    shown.press("Tab", 9)
    shown.press("Enter", 13, "\r")
    assert [float(row[3]) for row in rows(shown, "leaderboard")] == sorted(
        GRID["lr"] * 2
    )  # numbers


@needs_chromium
def test_the_filter_narrows_the_whole_page(shown: Page, tmp_path: Path) -> None:
    comparison = compared(GRID)
    opened(shown, comparison, tmp_path)
    shown.value("document.querySelector('#runs-section details').open = true")
    shown.value("document.getElementById('filter').focus()")
    shown.call("Input.insertText", text="model=relu2")
    frame = comparison.configurations
    expected = frame.index[frame["model"] == "relu2"].tolist()
    assert [row[0] for row in rows(shown, "leaderboard")] == expected
    assert len(rows(shown, "runs")) == 3 * len(expected)
    drawn = {
        target[0]
        for one in traces(shown, "accuracy-chart")
        for target in one.get("customdata", [])
        if target
    }
    assert drawn <= set(expected)
    assert shown.value("document.getElementById('found').innerText") == (
        "5 of 10 configurations are shown on this page"
    )
    choice = "document.querySelector('#choices label:nth-of-type(2) select')"
    shown.value(f"{choice}.value = '0.3'; {choice}.dispatchEvent(new Event('change'))")
    found = rows(shown, "leaderboard")
    assert [row[2:4] for row in found] == [["relu2", "0.3"]]  # and not lr=3 or lr=0.03


@needs_chromium
def test_a_grid_of_two_settings_is_a_heat_map(shown: Page, tmp_path: Path) -> None:
    comparison = compared(GRID)
    opened(shown, comparison, tmp_path)
    heat = traces(shown, "settings-chart")[0]
    columns = shown.value("document.getElementById('settings-chart').layout.xaxis.ticktext")
    assert columns == ["0.003", "0.03", "0.3", "3", "10"]
    expected = comparison.configurations.pivot_table(
        index="model", columns="lr", values="mean", dropna=False
    )
    np.testing.assert_allclose(np.array(heat["z"], float), expected.to_numpy())


@pytest.mark.slow
@needs_chromium
def test_more_settings_are_parallel_coordinates(shown: Page, tmp_path: Path) -> None:
    comparison = compared(MANY)
    opened(shown, comparison, tmp_path)
    found: dict[str, list[float]] = {}
    for one in traces(shown, "settings-chart"):
        for target, height in zip(one.get("customdata", []), one["y"], strict=True):
            if target:
                found.setdefault(target[0], []).append(height)
    frame = comparison.configurations.dropna(subset="mean")
    assert set(found) == set(frame.index)
    for label, heights in found.items():
        row = frame.loc[label]
        expected = [
            row["model"] == "sigmoid3",
            row["initializer"] == "zeros",
            [0.01, 0.1, 1.0].index(row["lr"]) / 2,
        ]
        # Lines through one value are spread around it.
        np.testing.assert_allclose(heights[:3], expected, atol=0.071)
    order = sorted(found, key=lambda label: -found[label][3])
    assert order[0] == "C1"


@pytest.mark.slow
@needs_chromium
def test_what_matters_and_time_show_their_frames(shown: Page, tmp_path: Path) -> None:
    comparison = compared(GRID)
    opened(shown, comparison, tmp_path)
    bars = traces(shown, "matters-chart")[0]
    expected = comparison.importance().sort_values("share")
    assert bars["y"] == expected["effect"].tolist()
    np.testing.assert_allclose(bars["x"], 100 * expected["share"])
    line, points = traces(shown, "time-chart")
    frame = comparison.front().dropna()
    np.testing.assert_allclose(points["x"], frame["seconds"])
    np.testing.assert_allclose(points["y"], frame["value"])
    front = frame[frame["on_front"]].sort_values("seconds")
    np.testing.assert_allclose(line["y"], front["value"])


@needs_chromium
def test_two_configurations_are_compared_by_their_mistakes(shown: Page, tmp_path: Path) -> None:
    comparison = compared(GRID)
    opened(shown, comparison, tmp_path)
    choose = "document.getElementById('pair-{}').value = '{}';"
    change = "document.getElementById('pair-a').dispatchEvent(new Event('change'))"
    shown.value(choose.format("a", "C3") + choose.format("b", "C2") + change)
    cells = """[...document.querySelectorAll('#{} tbody tr')].map((row) =>
        [...row.querySelectorAll('td')].map((cell) => cell.innerText))"""
    third, second = (comparison.confusion(label) for label in ("C3", "C2"))
    assert third is not None
    assert second is not None
    read = shown.value(cells.replace("{}", "confusion"))
    np.testing.assert_array_equal([[int(cell or 0) for cell in row] for row in read], third)
    difference = 100 * (third / third.sum(1, keepdims=True) - second / second.sum(1, keepdims=True))
    read = shown.value(cells.replace("{}", "difference"))
    found = [[float(cell.replace("−", "-") or 0) for cell in row] for row in read]
    np.testing.assert_allclose(found, difference, atol=0.051)
    said = shown.value("document.getElementById('pair-verdict').innerText")
    gap = comparison.configurations["mean"]["C2"] - comparison.configurations["mean"]["C3"]
    assert f"val/accuracy differs by {gap:+.4f} (C2 minus C3), 95% interval " in said
    assert "Of 180 test samples C2 alone is right on " in said
    samples = shown.value(
        """[...document.querySelectorAll('#samples li')].map((item) => [item.title,
            item.querySelector('img').naturalWidth, ...[...item.querySelectorAll('span')]
            .map((side) => side.innerText)])"""
    )
    frame = comparison.disagreement("C3", "C2").set_index("sample")
    assert len(samples) == min(24, len(frame))
    for title, width, ours, theirs in samples:
        match = re.fullmatch(r"test sample (\d+), a (\d)", title)
        assert match
        row = frame.loc[int(match[1])]
        assert int(match[2]) == row["label"]
        assert (ours, theirs) == (f"C3 {100 * row['a']:.0f}%", f"C2 {100 * row['b']:.0f}%")
        assert width == 28


@pytest.mark.slow
@needs_chromium
def test_runs_that_failed_are_named_with_their_reason(shown: Page, tmp_path: Path) -> None:
    opened(shown, compared(GRID, diverging=2), tmp_path)
    found = rows(shown, "failed")
    assert len(found) == 6
    assert found[0][1:4] == ["diverged", "diverged in epoch 5: val/loss is inf; lower lr=3", "C9"]


@needs_chromium
def test_the_report_of_a_sweep_says_what_its_runs_left(
    shown: Page, swept: Ended, tmp_path: Path
) -> None:
    folder = next(swept.outputs.glob("sweeps/*"))
    shown.open(folder / "report.html")
    shown.value("document.querySelector('#runs-section details').open = true")
    results = [json.loads(path.read_text()) for path in folder.glob("*/result.json")]
    ended = {one["name"]: one for one in results}
    table = {row[0].removesuffix(" MLflow"): row for row in rows(shown, "runs")}
    assert set(table) == set(ended)
    for name, one in ended.items():
        if one["status"] == "FINISHED":
            assert table[name][3:5] == ["finished", f"{one['metrics']['val/accuracy']:.4f}"]
    lost = {row[0].removesuffix(" MLflow"): row[2] for row in rows(shown, "failed")}
    expected = {one["name"]: one["failure"] for one in results if one["status"] != "FINISHED"}
    assert lost == {name: " ".join(reason.split()) for name, reason in expected.items()}
    links = shown.value("[...document.querySelectorAll('#runs a')].map((link) => link.href)")
    assert {link.partition("/runs/")[2].partition("?")[0] for link in links} == {
        known[1] for path in folder.glob("*/result.json") if (known := ids(path.parent))
    }

    best = max(folder.glob("*/result.json"), key=_score)
    history = pd.read_csv(best.with_name("history.csv"))
    np.testing.assert_allclose(
        trace(shown, "loss-chart", "C1")["y"], history["val/loss"], rtol=1e-3
    )


def _score(path: Path) -> float:
    """Return the accuracy of a run by its file; a run that failed has none."""
    result = json.loads(path.read_text())
    return float(result["metrics"]["val/accuracy"]) if result["status"] == "FINISHED" else -1.0


HOSTILE = [
    "</script><script>window.hacked = 1</script>",
    "<img src=x onerror='window.hacked = 1'>",
    '" onmouseover="window.hacked = 1" x=\'',
    "{{ 7 * 7 }} {% raw %} <!-- ${window.hacked = 1} `",
    "</style><b>bold</b> &amp; ]]>",
]


@needs_chromium
def test_hostile_names_stay_text(shown: Page, tmp_path: Path) -> None:
    comparison = compared({"model": HOSTILE, "lr": [0.1, 0.3]})
    comparison.runs["name"] = [HOSTILE[i % len(HOSTILE)] for i in range(len(comparison.runs))]
    comparison.runs["link"] = "javascript:window.hacked=1"
    comparison.runs["failure"] = comparison.runs["failure"].where(
        comparison.runs["failure"] == "", HOSTILE[0]
    )
    comparison.answer, comparison.notes, comparison.explanations = (
        HOSTILE[:2],
        HOSTILE,
        {"C2": HOSTILE[0]},
    )
    comparison.provenance = dict.fromkeys(HOSTILE, HOSTILE[0])
    comparison.effects["effect"] = (HOSTILE * 2)[: len(comparison.effects)]
    opened(shown, comparison, tmp_path)
    shown.value("document.querySelector('#runs-section details').open = true")
    shown.click("#leaderboard tr[data-configuration=C2] button")
    assert shown.value("window.hacked") is None
    assert {row[2] for row in rows(shown, "leaderboard")} == {
        " ".join(name.split()) for name in HOSTILE
    }
    assert {row[0] for row in rows(shown, "runs")} == set(HOSTILE)
    assert rows(shown, "failed")[0][2] == HOSTILE[0]
    assert shown.value("document.querySelector('h1').innerText") == HOSTILE[0]
    assert shown.value("document.querySelectorAll('td a, th a').length") == 0
    ticks = shown.value(
        """[...document.querySelectorAll('#settings-chart .ytick text')]
            .map((text) => text.textContent)"""
    )
    assert set(ticks) == set(HOSTILE)


@pytest.mark.slow
@needs_chromium
def test_a_script_from_elsewhere_would_not_run(shown: Page, tmp_path: Path) -> None:
    write_page(compared(GRID).comparison, tmp_path / "report.html")
    path = tmp_path / "report.html"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("<main>", "<main><script>window.hacked = 1</script>"))
    shown.open(path)
    assert shown.value("window.hacked") is None
    assert any("Content Security Policy" in error for error in shown.errors)
    shown.errors.clear()


@needs_chromium
@pytest.mark.parametrize("dark", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_page_fits_a_phone_in_both_themes(shown: Page, tmp_path: Path, dark: bool) -> None:
    opened(shown, compared(MANY), tmp_path, width=390, height=844, dark=dark)
    assert shown.value("document.documentElement.scrollWidth") == 390
    ground = shown.value("getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(20, 23, 27)" if dark else "rgb(255, 255, 255)")
    ink = shown.value("document.getElementById('loss-chart').layout.font.color")
    assert ink == ("#e8ebee" if dark else "#1b1f24")
    cut = """[...document.querySelectorAll('main > section')].filter((section) =>
        section.getBoundingClientRect().right > 390).map((section) => section.id)"""
    assert shown.value(cut) == []


# The contrast of each text with the ground behind it, by WCAG 2.2; charts draw their own texts.
CONTRAST = """(() => {
    const mixed = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
    const known = new Map();
    const parts = (colour) => {
        if (!known.has(colour)) {
            mixed.clearRect(0, 0, 1, 1);
            mixed.fillStyle = colour;
            mixed.fillRect(0, 0, 1, 1);
            known.set(colour, [...mixed.getImageData(0, 0, 1, 1).data]);
        }
        return known.get(colour);
    };
    const light = (colour) => {
        const share = parts(colour).slice(0, 3).map((part) => part / 255)
            .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
        return 0.2126 * share[0] + 0.7152 * share[1] + 0.0722 * share[2];
    };
    const ground = (element) => {
        const own = getComputedStyle(element).backgroundColor;
        return parts(own)[3] === 255 ? own : ground(element.parentElement);
    };
    const pale = [];
    for (const element of document.querySelectorAll('body *:not(.chart *)')) {
        const texts = [...element.childNodes].some((node) =>
            node.nodeType === Node.TEXT_NODE && node.textContent.trim());
        if (!texts || !element.checkVisibility() || element.closest('script')) continue;
        const [a, b] = [light(getComputedStyle(element).color), light(ground(element))];
        const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        if (ratio < 4.5) pale.push([element.tagName, element.innerText, ratio]);
    }
    return pale;
})()"""


@pytest.mark.slow
@needs_chromium
@pytest.mark.parametrize("dark", [False, True])
def test_texts_stand_out_from_their_ground(shown: Page, tmp_path: Path, dark: bool) -> None:
    opened(shown, compared(GRID), tmp_path, dark=dark)
    shown.value("document.querySelector('#runs-section details').open = true")
    shown.click("#leaderboard tr[data-configuration=C3] td")
    assert shown.value(CONTRAST) == []


@pytest.mark.slow
@needs_chromium
def test_charts_follow_the_theme(shown: Page, tmp_path: Path) -> None:
    opened(shown, compared(GRID), tmp_path)
    dark = [{"name": "prefers-color-scheme", "value": "dark"}]
    shown.call("Emulation.setEmulatedMedia", features=dark)
    ink = "document.getElementById('loss-chart').layout.font.color"
    assert shown.value(
        f"""new Promise((resolve) => {{
            const look = () => {ink} === '#e8ebee' ? resolve(true) : setTimeout(look, 20);
            look();
        }})"""
    )


@pytest.mark.slow
@needs_chromium
def test_what_is_missing_is_said(shown: Page, tmp_path: Path) -> None:
    comparison = compared({"lr": [0.1]}, seeds=1, diverging=0, predictions=0)
    comparison.differing = []
    comparison.epochs = comparison.epochs.iloc[:0]
    comparison.effects, comparison.layers = comparison.effects.iloc[:0], comparison.layers.iloc[:0]
    comparison.answer, comparison.notes, comparison.explanations, comparison.common = [], [], {}, {}
    for name in ("sd", "low", "high", "p", "seconds", "test_mean"):
        comparison.configurations[name] = np.nan
    opened(shown, comparison, tmp_path)
    text = shown.value("document.body.innerText")
    for said in (
        "1 run of 1 configuration",
        "There is no answer yet.",
        "All runs have the same settings.",
        "There are too few runs, or too few seeds, to divide the variance.",
        "No predictions were kept, so there is no confusion matrix.",
        "The layers were not examined.",
        "The run finished.",
    ):
        assert said in text
    assert rows(shown, "leaderboard")[0][2] == "–"


class Texts(HTMLParser):
    """The texts of a page's table cells, without running anything."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_data(self, data: str) -> None:
        self.found.append(data.strip())


def test_the_tables_are_there_without_scripts(tmp_path: Path) -> None:
    comparison = compared(GRID)
    write_page(comparison.comparison, tmp_path / "report.html")
    reader = Texts()
    reader.feed((tmp_path / "report.html").read_text(encoding="utf-8"))
    for mean in comparison.configurations["mean"].dropna():
        assert f"{mean:.4f}" in reader.found


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [1, 5])
def test_a_thousand_runs_stay_below_four_and_a_half_megabytes(tmp_path: Path, seeds: int) -> None:
    settings: dict[str, list[Any]] = {
        "model": ["relu2", "relu3", "sigmoid3", "relu2_small", "relu2_dropout"],
        "initializer": ["xavier", "he", "uniform", "zeros", "lecun"],
        "lr": [0.01, 0.03, 0.1, 0.3],
        "batching": ["mini", "full"],
        "schedule": ["constant", "cosine", "step", "inverse", "plateau"][: 5 // seeds],
    }
    comparison = compared(settings, seeds=seeds, epochs=100, diverging=3)
    comparison.explanations = dict.fromkeys(comparison.configurations.index, "learns slowly, " * 6)
    epochs = comparison.epochs
    random = np.random.default_rng(1)  # real curves are rough, which compresses badly
    for name in ("train/loss", "val/loss", "seconds"):
        epochs[name] *= 1 + 0.02 * random.standard_normal(len(epochs))
    for name, samples in (("train/accuracy", 50_000), ("val/accuracy", 10_000)):
        rough = epochs[name] * (1 + 0.002 * random.standard_normal(len(epochs)))
        epochs[name] = np.round(rough.clip(0, 1) * samples) / samples
    write_page(comparison.comparison, tmp_path / "report.html")
    assert len(comparison.runs) == 1000
    assert (tmp_path / "report.html").stat().st_size < 4_500_000


def test_longer_curves_are_thinned_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("src.comparison.page.payload.MOST_POINTS", 300)
    collected = payload(compared(GRID, epochs=100, diverging=0).comparison)
    assert collected["every"] == 10  # 3,000 points
    assert collected["curves"]["0"]["epoch"] == [*range(1, 100, 10), 100]


def test_numbers_of_the_charts_are_finite(tmp_path: Path) -> None:
    comparison = compared(GRID)
    text = json.dumps(payload(comparison.comparison), allow_nan=False)  # raises if one is not
    assert "NaN" not in text
    write_page(comparison.comparison, tmp_path / "report.html")
    text = re.sub("</?span[^>]*>", "", (tmp_path / "report.html").read_text())
    first = headline(comparison.answer)
    assert html.escape(first.text + first.detail) in text
    assert html.escape(first.rest) in text


@pytest.mark.parametrize(
    ("said", "parts"),
    [
        (
            "C1 is best: 0.97 (3 seeds; 0.9). C2 is worse (p = 0.01).",
            ("C1 is best: 0.97", " (3 seeds; 0.9).", "C2 is worse (p = 0.01)."),
        ),
        ("There is no clear winner. C1 has 0.9.", ("There is no clear winner", ".", "C1 has 0.9.")),
        ("None has 0.5.", ("None has 0.5", ".", "")),
        ("without an end", ("without an end", "", "")),
    ],
)
def test_the_headline_is_the_first_sentence(said: str, parts: tuple[str, str, str]) -> None:
    assert headline([said]) == parts
