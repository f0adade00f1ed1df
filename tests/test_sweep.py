"""What a sweep plans, and what it makes of runs that left something, little or nothing."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from src.runs.record import Record
from src.sweep.plan import Plan, collect, run_name
from src.tracking.links import run_link, ui_address, view_link
from src.tracking.view import best_view, comparison, sweep_filter, view_tag
from tests.conftest import Ended

JOBS = [
    ["model=relu2", "lr=0.1", "epochs=3"],
    ["model=relu2", "lr=0.3", "epochs=3"],
    ["model=sigmoid3", "lr=0.1", "epochs=3"],
]


def test_names_say_what_differs_and_nothing_else() -> None:
    plan = Plan.of("s", JOBS)
    assert plan.names == ("model=relu2, lr=0.1", "model=relu2, lr=0.3", "model=sigmoid3, lr=0.1")
    assert plan.varied == ("model", "lr")
    assert Plan.of("s", [["lr=0.1"]]).names == ("lr=0.1",)
    assert Plan.of("s", [["lr=0.1"], ["lr=0.1"]]).names == ("lr=0.1", "lr=0.1")
    assert Plan.of("s", [[]]).names == ("job 0",)


def test_names_begin_with_the_seed_and_leave_out_what_does_not_change_the_result() -> None:
    assert run_name(["model=relu2", "outputs=/tmp/x", "lr=0.1", "note=my", "seed=3"]) == (
        "seed=3, model=relu2, lr=0.1"
    )
    assert run_name(["++tags.purpose=thesis", "hydra.job.chdir=true", "name=mine"]) == ""
    assert run_name(["+seed=1"]) == "+seed=1"
    plan = Plan.of("s", [["lr=0.1", "seed=0", "epochs=3"], ["lr=0.1", "seed=1", "epochs=3"]])
    assert plan.names == ("seed=0", "seed=1")


@pytest.mark.slow
def test_what_is_chosen_for_a_place_is_a_column_under_its_place(
    invoke: Callable[..., Ended],
) -> None:
    jobs = [[f"distribution@initializer.output={name}", "lr=0.1"] for name in ("zeros", "he")]
    assert Plan.of("s", jobs).varied == ("initializer.output",)
    choice = "distribution@initializer.output"
    ended = invoke("-m", f"{choice}=zeros,he", "epochs=1", "tags.purpose=a", "note=b", tracked=True)
    assert ended.code == 0, ended.err
    client = MlflowClient(ended.store)
    (experiment,) = [e for e in client.search_experiments() if e.name == "scratchgrid"]
    (view,) = [json.loads(v) for k, v in experiment.tags.items() if k.startswith(view_tag(""))]
    assert "params.`initializer.output`" in view["selectedColumns"]
    found = client.search_runs([experiment.experiment_id], "params.lr != ''")
    assert {run.data.params["initializer.output"] for run in found} == {"zeros", "he"}
    assert {(run.data.tags["purpose"], run.data.tags["mlflow.note.content"]) for run in found} == {
        ("a", "b")
    }


def test_a_plan_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    plan = Plan.of("s", JOBS)
    plan.write(tmp_path)
    assert Plan.load(tmp_path) == plan
    assert Plan.load(tmp_path / "elsewhere") is None


def test_a_run_without_a_result_is_failed_for_its_reason_or_lost(tmp_path: Path) -> None:
    plan = Plan.of("s", JOBS)
    done = Record(
        plan.names[0],
        JOBS[0],
        "val/accuracy",
        status="FINISHED",
        value=0.9,
        metrics={"val/accuracy": 0.9},
    )
    (tmp_path / "0").mkdir()
    done.write(tmp_path / "0")
    results = collect(
        plan,
        [tmp_path / str(k) for k in range(3)],
        {1: ("FAILED", "the store is gone")},
        "val/accuracy",
    )
    assert results[0] == Record.load(tmp_path / "0")
    assert [(result.status, result.value) for result in results] == [
        ("FINISHED", 0.9),
        ("FAILED", None),
        ("LOST", None),
    ]
    assert results[1].failure == "the store is gone"
    assert [list(result.overrides) for result in results] == JOBS


def test_a_sweep_of_nothing_says_so(invoke: Callable[..., Ended]) -> None:
    alone = invoke("-m", "model=relu2_small", "epochs=1", "plan=true")
    assert "note        nothing is swept" in alone.out
    assert "nothing is swept" not in invoke("-m", "seed=0,1", "plan=true").out


@pytest.mark.slow
def test_results_are_found_where_hydra_put_them(
    invoke: Callable[..., Ended], tmp_path: Path
) -> None:
    ended = invoke(
        "-m", "epochs=1,2", "hydra.sweep.subdir=${hydra.job.num}_${epochs}", "metric=train/loss"
    )
    assert ended.code == 0, ended.out + ended.err
    ranks = [
        line.split()[:3] for line in ended.out.splitlines() if line.strip()[:2] in ("1 ", "2 ")
    ]
    assert [rank[1] for rank in ranks] == ["epochs=2", "epochs=1"]  # a loss: the lowest leads
    assert {path.name for path in tmp_path.glob("outputs/sweeps/*/*_*")} == {"0_1", "1_2"}


@pytest.mark.parametrize("metric", ["val/accuracy", "train/best/loss"])
def test_the_view_of_a_sweep_leads_with_its_metric_and_fits_into_a_tag(metric: str) -> None:
    view = json.loads(comparison(sweep_filter("s1"), metric, ["model", "lr"]))
    assert view["searchFilter"] == "tags.sweep_id = 's1'"
    assert (view["orderByKey"], view["orderByAsc"]) == (
        f"metrics.`{metric}`",
        metric.endswith("loss"),
    )
    part = metric.split("/")[0]
    assert [chart["metricKey"] for chart in view["compareRunCharts"][:2]] == [
        f"{part}/accuracy",
        f"{part}/loss",
    ]
    assert view["compareRunCharts"][2]["selectedParams"] == ["model", "lr"]
    assert {chart["metricSectionId"] for chart in view["compareRunCharts"]} == {
        s["uuid"] for s in view["compareRunSections"]
    }
    assert (
        len(
            comparison(
                sweep_filter("s1"), metric, [f"a.very.long.setting.number.{k}" for k in range(60)]
            )
        )
        <= 5000
    )
    assert view_tag("s1").endswith("s1")


def test_the_grouped_view_of_a_large_sweep_shows_whole_configurations() -> None:
    runs = [[f"{number:032x}" for number in range(5 * k, 5 * k + 5)] for k in range(21)]
    assert best_view("s1", "val/accuracy", ["model", "lr"], runs[:20]) == {}  # 100 runs fit
    view = json.loads(best_view("s1", "val/accuracy", ["model", "lr"], runs)[view_tag("s1")])
    shown = re.findall(r"'([0-9a-f]{32})'", view["searchFilter"])
    assert len(shown) >= 50
    assert len(shown) % 5 == 0
    assert shown == [run for own in runs for run in own][: len(shown)]
    assert view["searchFilter"].startswith("tags.sweep_id = 's1' and attributes.run_id IN ('")
    assert [key["groupByData"] for key in view["groupBy"]["groupByKeys"]] == ["model", "lr"]
    for differing in (["model", "lr"], [f"a.long.setting.number.{k}" for k in range(20)]):
        for text in best_view("s1", "val/accuracy", differing, runs).values():
            assert len(text) <= 5000
            assert '"groupBy":null' not in text
    single = [[f"{number:032x}"] for number in range(200)]
    assert best_view("s1", "val/accuracy", ["lr"], single) == {}  # nothing is grouped


def test_links_lead_to_the_store_s_own_server_and_never_show_a_password() -> None:
    assert ui_address("sqlite:////tmp/x.db") == "http://127.0.0.1:5000"
    assert run_link("https://me:secret@host:8443/mlflow/", "3", "abc") == (
        "https://host:8443/mlflow/#/experiments/3/runs/abc?workflowType=machine_learning"
    )
    assert view_link("http://host", "3", "s1").startswith(
        "http://host/#/experiments/3/runs?workflowType=machine_learning"
    )
    assert view_link("http://host", "3", "s1").endswith("viewStateShareKey=s1")
