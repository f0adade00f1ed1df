"""The page on which MLflow's UI compares runs: all of them, the curves first, beside them what differs.

Left to itself the UI draws ten runs at most and leads with whatever comes first in the alphabet. A view that somebody
arranged and shared is kept as a tag of the experiment, in plain JSON; this is one that nobody has to arrange.
"""

import json
from collections.abc import Sequence
from typing import Any

_MOST_RUNS = 100
_TAG_LENGTH = 5000  # MLflow's limit for an experiment's tag


ALL_RUNS = "all"  # the key of the view of an experiment's every run; a sweep's is its sweep_id


def view_tag(key: str) -> str:
    """Return the name of the experiment's tag that keeps the view which a link names by its key."""
    return f"mlflow.sharedViewState.{key}"


def sweep_filter(sweep_id: str) -> str:
    """Return what finds the runs of a sweep."""
    return f"tags.sweep_id = '{sweep_id}'"


def comparison(search_filter: str, metric: str, varied: Sequence[str]) -> str:
    """Return the view of the runs found, which differ in the parameters ``varied``, the best by ``metric`` first."""
    part = metric.split("/")[-2]
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
    section(part, line(f"{part}/accuracy"), line(f"{part}/loss"), *([parallel] if varied else []))
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
        "selectedColumns": [f"metrics.`{metric}`", *(f"params.`{name}`" for name in varied)],
    }
    text = json.dumps(state, separators=(",", ":"))
    return text if len(text) <= _TAG_LENGTH or not varied else comparison(search_filter, metric, [])
