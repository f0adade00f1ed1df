"""Arranges the page on which MLflow's UI compares runs: curves of all runs, then their settings.

By default the UI draws ten runs and orders charts by their names. A view that a user arranges and
shares is kept as a tag of the experiment, in JSON. We write such a tag.
"""

import json
from collections.abc import Sequence
from typing import Any

_MOST_RUNS = 100
_TAG_LENGTH = 5000  # MLflow's limit for an experiment's tag
_LONG = 1000  # characters of the names of parameters
_UNGROUPED = '"groupBy":null'
# Runs that differ in these parameters alone repeat one configuration.
SEED, DIVISION = "seed", "data.split.seed"
SEEDS = (SEED, DIVISION)


# The key of the view of all runs of an experiment; the key of a sweep's view is its sweep_id.
ALL_RUNS = "all"


def view_tag(key: str) -> str:
    """Return the name of the experiment's tag that keeps the view with this key."""
    return f"mlflow.sharedViewState.{key}"


def sweep_filter(sweep_id: str) -> str:
    """Return the search filter for the runs of a sweep."""
    return f"tags.sweep_id = '{sweep_id}'"


def run_by_run(key: str) -> str:
    """Return the key of the view that shows single runs, where the one of ``key`` groups them."""
    return f"{key}-runs"


def sweep_views(sweep_id: str, metric: str, varied: Sequence[str]) -> dict[str, str]:
    """Return the views of a sweep whose runs differ in the parameters ``varied``, by their tags.

    Where seeds vary, the first view groups the runs by configuration: it draws mean curves with
    bands from the least to the greatest. A second view then shows the runs one by one, with
    parallel coordinates, which MLflow draws of single runs only.
    """
    found, settings = sweep_filter(sweep_id), [name for name in varied if name not in SEEDS]
    if len(settings) == len(varied):
        return {view_tag(sweep_id): comparison(found, metric, varied)}
    return {
        view_tag(sweep_id): comparison(found, metric, varied, settings or ["model"]),
        view_tag(run_by_run(sweep_id)): comparison(found, metric, varied),
    }


def best_view(
    sweep_id: str, metric: str, settings: Sequence[str], runs: Sequence[Sequence[str]]
) -> dict[str, str]:
    """Return the view of a large sweep's best configurations, by its tag; nothing for a small one.

    MLflow's UI loads 100 runs. Of a sweep with more, it would draw means over those of each
    configuration that are among the best 100, which flatters all of them. So this view takes the
    place of the one that groups all runs.

    Args:
        sweep_id: Of the sweep.
        metric: That ranks the configurations.
        settings: The parameters in which configurations differ.
        runs: The ids of each configuration's runs in MLflow, the best configuration first.
    """
    if sum(map(len, runs)) <= _MOST_RUNS or max(map(len, runs)) < 2:
        return {}

    def view(chosen: Sequence[str]) -> str:
        listed = ",".join(f"'{run_id}'" for run_id in chosen)
        found = f"{sweep_filter(sweep_id)} and attributes.run_id IN ({listed})"
        return comparison(found, metric, settings, settings or ["model"])

    chosen: list[str] = []
    text = ""
    for own in runs:
        chosen += own
        longer = view(chosen)
        if len(chosen) > _MOST_RUNS or len(longer) > _TAG_LENGTH or _UNGROUPED in longer:
            break
        text = longer
    return {view_tag(sweep_id): text} if text else {}


def comparison(
    search_filter: str, metric: str, varied: Sequence[str], grouped: Sequence[str] = ()
) -> str:
    """Return the view of the runs that a filter finds, as JSON.

    The runs differ in the parameters ``varied``; the best one by ``metric`` comes first. Runs with
    equal parameters ``grouped`` are drawn as one.
    """
    part = metric.split("/")[0]
    parts = [part, *(other for other in ("val", "test", "train") if other != part)]
    sections: list[dict[str, Any]] = []
    charts: list[dict[str, Any]] = []

    def section(name: str, *drawn: dict[str, Any]) -> None:
        sections.append({"uuid": name, "name": name, "display": True, "isReordered": True})
        for chart in drawn:
            uuid = f"{name}-{chart.get('metricKey', chart['type'])}"
            common = {
                "uuid": uuid,
                "metricSectionId": name,
                "runsCountToCompare": _MOST_RUNS,
                "deleted": False,
            }
            charts.append({**chart, **common, "isGenerated": True})

    def line(key: str) -> dict[str, Any]:
        scales = {
            "scaleType": "linear",
            "xAxisScaleType": "linear",
            "xAxisKey": "step",
            "lineSmoothness": 0,
            "range": {},
        }
        return {
            "type": "LINE",
            "metricKey": key,
            "selectedMetricKeys": [key],
            "selectedXAxisMetricKey": "",
            **scales,
        }

    parallel = {
        "type": "PARALLEL",
        "selectedParams": list(varied),
        "selectedMetrics": [metric],
        "showAllRuns": True,
    }
    section(
        part,
        line(f"{part}/accuracy"),
        line(f"{part}/loss"),
        *([parallel] if varied and not grouped else []),
    )
    for other in parts[1:]:
        section(other, line(f"{other}/accuracy"), line(f"{other}/loss"))
    state = {
        "searchFilter": search_filter,
        "orderByKey": f"metrics.`{metric}`",
        "orderByAsc": metric.endswith("loss"),
        "compareRunCharts": charts,
        "compareRunSections": sections,
        "isAccordionReordered": True,
        "runsHiddenMode": "SHOWALL",
        "hideEmptyCharts": True,
        "useGroupedValuesInCharts": True,
        "groupBy": _grouping(grouped),
        "selectedColumns": [f"metrics.`{metric}`", *(f"params.`{name}`" for name in varied)],
    }
    text = json.dumps(state, separators=(",", ":"))
    if len(text) <= _TAG_LENGTH or not varied:
        return text
    return comparison(search_filter, metric, [], grouped if len(str(grouped)) < _LONG else ())


def _grouping(parameters: Sequence[str]) -> dict[str, Any] | None:
    """Return how the UI groups runs by parameters."""
    if not parameters:
        return None
    keys = [{"mode": "param", "groupByData": name} for name in parameters]
    return {"aggregateFunction": "average", "groupByKeys": keys}
