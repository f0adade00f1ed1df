"""How a store is opened and served, and what is read from it."""

import contextlib
import json
import logging
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric

from src.config.composition import compose, composer
from src.config.reader import read
from src.runs.tracking import Tracking, database_uri
from src.support.errors import ConfigError, UserError
from src.support.paths import SOURCE
from src.support.signals import GRACE
from src.tracking import fetch, store
from src.tracking.fetch import fetch_runs
from src.tracking.kept_run import add_files, folder_of, require_store
from src.tracking.links import with_ui
from src.tracking.model import write_code
from src.tracking.schema import revisions
from src.tracking.search import KIND, Search
from src.tracking.store import (
    check_database,
    check_server,
    check_store,
    database_file,
    open_store,
    open_tracking,
    server_command,
)
from src.tracking.team_server import TeamServer, settings
from src.tracking.view import best_view, comparison, run_by_run, sweep_views, view_tag

START = 1_000_000
Opened = tuple[MlflowClient, str]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("outputs")


@pytest.fixture(scope="module")
def opened(outputs: Path) -> Opened:
    return open_tracking(Tracking(None, "mine"), outputs)


@pytest.fixture
def run(opened: Opened) -> str:
    client, experiment = opened
    run_id: str = client.create_run(experiment, START).info.run_id
    return run_id


# --- the model ------------------------------------------------------------------------------------


def test_the_code_of_a_model_is_a_package_of_its_own(tmp_path: Path) -> None:
    package = write_code(tmp_path)
    assert package == write_code(tmp_path)
    files = {path.relative_to(package).as_posix() for path in package.rglob("*.py")}
    assert files >= {"tracking/served_model.py", "nn/layers.py", "nn/losses.py"}
    assert "tracking/upload.py" not in files
    text = (package / "tracking" / "served_model.py").read_text()
    assert f"from {package.name}.nn.layers import" in text
    assert "from src." not in text


# --- runs that are found again --------------------------------------------------------------------


def test_runs_are_found_with_what_mlflow_has_of_them(opened: Opened, tmp_path: Path) -> None:
    client = opened[0]
    experiment = client.create_experiment("found", (tmp_path / "artifacts").as_uri())
    runs = [
        client.create_run(experiment, START + n, {"n": str(n)}, f"run {n}").info.run_id
        for n in (2, 0, 1)
    ]
    client.set_terminated(runs[0], "FINISHED", START + 3502)
    client.log_batch(runs[1], [Metric("val/loss", step / 10, START, step) for step in (2, 0, 1)])
    client.log_metric(runs[1], "test/loss", 0.5, step=0)
    client.log_metric(runs[2], "val/loss", 0.5, step=3)
    summary = client.create_run(experiment, START, {KIND: "sweep"}).info.run_id
    (tmp_path / "a.txt").touch()
    client.log_artifact(runs[0], str(tmp_path / "a.txt"))
    search = Search(client, experiment)
    found = search.runs()
    assert [one.files is not None for one in found] == [False, False, True]
    assert found[2].files is not None
    assert [path.name for path in found[2].files.iterdir()] == ["a.txt"]
    assert [one.name for one in found] == ["run 0", "run 1", "run 2"]
    assert summary not in [one.run_id for one in found]
    assert [one.seconds for one in found] == [None, None, 3.5]
    assert [one.start for one in found] == [START, START + 1, START + 2]
    assert found[0].metrics["test/loss"] == 0.5
    assert found[0].tags["n"] == "0"
    assert [one.run_id for one in search.runs("tags.n = '2'")] == [runs[0]]
    with pytest.raises(UserError, match="--filter x: MLflow refuses it"):
        search.runs("x")
    wanted = {runs[1]: ["val/loss", "test/loss"], runs[2]: ["test/loss"]}
    curves = {runs[1]: {"val/loss": {0: 0.0, 1: 0.1, 2: 0.2}}, runs[2]: {}}
    assert search.curves(wanted) == curves
    with pytest.MonkeyPatch.context() as patch:  # as of a server
        patch.setattr("src.tracking.mlflow_internals.points_in_database", lambda *_: None)
        assert search.curves(wanted) == curves


def test_runs_come_in_pages(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    client = opened[0]
    experiment = client.create_experiment("pages", "file:///nowhere")
    runs = [client.create_run(experiment, START + n).info.run_id for n in range(5)]
    monkeypatch.setattr("src.tracking.search._PER_PAGE", 2)
    found = Search(client, experiment).runs()
    assert [one.run_id for one in found] == runs
    assert all(one.files is None or one.files.is_dir() for one in found)


def test_the_folder_of_a_run_is_found_by_its_id(opened: Opened, run: str, tmp_path: Path) -> None:
    client, _ = opened
    with pytest.raises(UserError, match="is gone"):
        folder_of(client, run)
    client.set_tag(run, "output_dir", str(tmp_path))
    assert folder_of(client, run) == tmp_path
    client.set_tag(run, "output_dir", str(tmp_path / "moved"))
    with pytest.raises(UserError, match="moved, is gone"):
        folder_of(client, run)
    with pytest.raises(UserError, match="no run in the MLflow store"):
        folder_of(client, "0" * 32)
    (tmp_path / "a.txt").touch()
    add_files(client, run, [tmp_path / "a.txt"], "pictures")
    assert [file.path for file in client.list_artifacts(run, "pictures")] == ["pictures/a.txt"]
    with pytest.raises(UserError, match="MLflow refuses files"):
        add_files(client, run, [tmp_path / "none"], "pictures")


def test_a_store_in_a_file_must_be_there(tmp_path: Path) -> None:
    require_store("http://host")
    with pytest.raises(UserError, match="there is no MLflow store"):
        require_store(f"sqlite:///{tmp_path}/mlflow.db")
    (tmp_path / "mlflow.db").touch()
    require_store(f"sqlite:///{tmp_path}/mlflow.db")


# --- runs that go on elsewhere --------------------------------------------------------------------


def test_the_runs_of_a_stack_are_fetched(opened: Opened, tmp_path: Path) -> None:
    client, experiment = opened
    (tmp_path / "a").write_text("a")
    (tmp_path / "run").write_text("{}")
    runs = []
    for place in range(4):
        tags = {"sweep_id": "s1", "stack": "5 6 7 8", "stack_position": str(place)}
        runs.append(client.create_run(experiment, START, tags).info.run_id)
        for name in ("a", "run") if place != 1 else ("a",):
            client.log_artifact(runs[-1], str(tmp_path / name))
    for run_id in runs:
        client.set_terminated(run_id, "KILLED")
    folders = {str(place): tmp_path / "sweep" / str(place) for place in (0, 1, 3)}
    fetch_runs(lambda: opened, "s1", "5 6 7 8", folders, ["none", "a", "run"])
    found = {
        path.relative_to(tmp_path / "sweep").as_posix() for path in tmp_path.rglob("sweep/*/*")
    }
    assert found == {"0/a", "0/run", "3/a", "3/run"}
    stages = [client.get_run(run_id).info.lifecycle_stage for run_id in runs]
    assert stages == ["active", "deleted", "active", "active"]  # nothing was kept of the second


def test_a_run_that_is_being_closed_is_waited_for(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, experiment = opened
    tags = {"sweep_id": "s2", "stack": "0", "stack_position": "0"}
    run_id = client.create_run(experiment, START, tags).info.run_id
    clock = [0.0]

    def sleep(seconds: float) -> None:
        clock[0] += seconds
        if clock[0] >= limit:
            client.set_terminated(run_id, "KILLED")

    monkeypatch.setattr("src.tracking.fetch.time.sleep", sleep)
    monkeypatch.setattr("src.tracking.fetch.time.monotonic", lambda: clock[0])
    limit = 1e9
    assert [one.info.status for one in fetch._closed(client, experiment, "tags.stack = '0'")] == [
        "RUNNING"
    ]
    assert clock[0] > GRACE
    clock[0], limit = 0.0, 2.0
    assert [one.info.status for one in fetch._closed(client, experiment, "tags.stack = '0'")] == [
        "KILLED"
    ]
    clock[0] = 0.0
    answers: list[Any] = [UserError("away"), UserError("away"), opened]

    def answer() -> Opened:
        given = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(given, UserError):
            raise given
        return given  # type: ignore[no-any-return]

    assert fetch._opened(answer) == opened
    assert clock[0] == 2 * fetch._PAUSE
    answers[:] = [UserError("away")]
    with pytest.raises(UserError, match="away"):
        fetch._opened(answer)
    assert 60 < clock[0] < 70


# --- opening --------------------------------------------------------------------------------------


def test_a_store_stays_open_until_its_file_is_another_one(tmp_path: Path) -> None:
    uri = database_uri(tmp_path / "mlflow.db")
    first = open_store(uri, "mine", tmp_path)
    # What it logs of a database's errors, with a traceback, it raises, too.
    assert not logging.getLogger("mlflow.store.db.utils").isEnabledFor(logging.ERROR)
    assert open_store(uri, "mine", tmp_path)[0] is first[0]
    second = open_store(uri, "other", tmp_path)
    assert second[1] != first[1]
    assert first[0].get_experiment(first[1]).artifact_location == (tmp_path / "artifacts").as_uri()
    (tmp_path / "mlflow.db").unlink()
    anew = open_store(uri, "mine", tmp_path)
    assert anew[0] is not first[0]
    anew[0].delete_experiment(anew[1])
    store._opened.clear()
    with pytest.raises(UserError, match="'mine' is deleted"):
        open_store(uri, "mine", tmp_path)
    with pytest.raises(UserError, match="can't be opened"):
        open_store("nothing://x", "mine", tmp_path)


@pytest.mark.parametrize("name", ["mlflow.db", "a b%20?c/mlflow.db"])
def test_a_database_s_uri_names_its_file(name: str, tmp_path: Path) -> None:
    assert database_file(database_uri(tmp_path / name)) == tmp_path / name
    assert database_file("http://host/a") is None
    assert database_file("sqlite:////tmp/a.db?mode=ro") == Path("/tmp/a.db")


@contextlib.contextmanager
def changed(path: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        yield connection
        connection.commit()


def test_a_database_is_checked_without_mlflow(outputs: Path, tmp_path: Path) -> None:
    assert outputs.exists()
    path = tmp_path / "copy.db"
    uri = database_uri(path)
    check_database(uri, "mine")  # there is none yet
    with changed(path) as connection:
        connection.execute("CREATE TABLE a (b)")
    check_database(uri, "mine")  # MLflow adds its tables
    with changed(path) as connection:
        connection.execute("CREATE TABLE experiments (name, lifecycle_stage)")
        connection.execute("INSERT INTO experiments VALUES ('gone', 'deleted'), ('mine', 'active')")
    with pytest.raises(UserError, match="'gone' is deleted"):
        check_database(uri, "gone")
    with pytest.raises(UserError, match="belongs to a newer MLflow"):
        check_database(uri, "mine")
    known = revisions()
    assert known.newest in known.all
    assert len(known.all) > 20
    with changed(path) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num)")
        connection.execute("INSERT INTO alembic_version VALUES (?)", [known.newest])
    check_database(uri, "mine")
    before = sqlite3.connect(path)
    before.execute("BEGIN EXCLUSIVE")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "_BUSY_SECONDS", 0.01)
        check_database(uri, "mine")  # a lock passes
    before.rollback()
    before.close()
    older = min(known.all - {known.newest or ""})
    for version, said in ((older, "mlflow db upgrade"), ("ffffffffffff", "newer MLflow")):
        with changed(path) as connection:
            connection.execute("UPDATE alembic_version SET version_num = ?", [version])
        with pytest.raises(UserError, match=said):
            check_database(uri, "mine")
    (tmp_path / "text.db").write_text("no database, but long enough to be one" * 100)
    with pytest.raises(UserError, match="file is not a database"):
        check_database(database_uri(tmp_path / "text.db"), "mine")
    with pytest.raises(UserError, match="not a regular file"):
        check_database(database_uri(tmp_path), "mine")


def test_a_full_disk_is_told_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = database_uri(tmp_path / "none" / "mlflow.db")
    free = [2**20]
    monkeypatch.setattr(
        store, "shutil", SimpleNamespace(disk_usage=lambda _: SimpleNamespace(free=free[0]))
    )
    check_database(uri, "mine")
    free[0] -= 1
    with pytest.raises(UserError, match="the disk is full"):
        check_database(uri, "mine")


def test_a_server_that_is_not_there_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    check_server("postgresql://host/db")
    with pytest.raises(UserError, match=r"me:\*\*\*@127.0.0.1:9.*tracking.offline=true"):
        check_server("http://me:secret@127.0.0.1:9")
    asked: list[str] = []

    def late(address: str, timeout: float) -> None:
        asked.append(address)
        raise TimeoutError("timed out")

    monkeypatch.setattr("src.tracking.store.urllib.request.urlopen", late)
    with pytest.raises(UserError, match="it does not answer"):
        check_server("https://me:secret@host:9/a?token=b")
    assert asked == ["https://host:9/a"]


# --- servers --------------------------------------------------------------------------------------


def test_the_command_that_shows_a_local_store(tmp_path: Path) -> None:
    command, environment = server_command(database_uri(tmp_path / "mlflow.db"), 5001)
    text = " ".join(command)
    assert f"--default-artifact-root {(tmp_path / 'artifacts').as_uri()}" in text
    assert "--host 127.0.0.1 --port 5001 --workers 1" in text
    assert environment["MLFLOW_BACKEND_STORE_URI"] == database_uri(tmp_path / "mlflow.db")
    command, _ = server_command("postgresql://me:secret@host/db", 1)
    assert "--default-artifact-root" not in command
    assert "secret" not in " ".join(command)


def test_a_team_s_server_asks_for_a_password_beyond_this_machine(tmp_path: Path) -> None:
    here = TeamServer(tmp_path / "here", "127.0.0.1", 5000, 3, None)
    command, environment = here.command("postgresql://db")
    assert "basic-auth" not in command
    assert "--workers 3" in " ".join(command)
    assert environment["MLFLOW_SQLALCHEMYSTORE_POOL_SIZE"] == "40"
    assert environment["MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW"] == "80"
    assert not (tmp_path / "here").exists()
    assert settings(here) == {"MLFLOW_TRACKING_URI": "http://127.0.0.1:5000"}
    there = replace(here, folder=tmp_path / "there", host="0.0.0.0", database="postgresql://u@h/n")
    command, environment = there.command("postgresql://db")
    assert command[-2:] == ["--app-name", "basic-auth"]
    assert "MLFLOW_SQLALCHEMYSTORE_POOL_SIZE" not in environment
    account = Path(environment["MLFLOW_AUTH_CONFIG_PATH"])
    assert account.stat().st_mode & 0o777 == 0o600
    assert len(environment["MLFLOW_FLASK_SERVER_SECRET_KEY"]) == 64
    before = account.read_text()
    again = there.command("postgresql://db")[1]
    assert again["MLFLOW_FLASK_SERVER_SECRET_KEY"] == environment["MLFLOW_FLASK_SERVER_SECRET_KEY"]
    assert account.read_text() == before
    assert settings(there)["MLFLOW_TRACKING_USERNAME"] == "admin"
    with there.open_database() as uri:
        assert uri == "postgresql+psycopg://u@h/n"


# --- views ----------------------------------------------------------------------------------------


def test_a_sweep_with_seeds_has_a_view_of_configurations_and_one_of_runs() -> None:
    single = sweep_views("s", "val/loss", ["lr"])
    assert single == {view_tag("s"): comparison("tags.sweep_id = 's'", "val/loss", ["lr"])}
    views = {
        key: json.loads(text) for key, text in sweep_views("s", "val/loss", ["lr", "seed"]).items()
    }
    assert list(views) == [view_tag("s"), view_tag(run_by_run("s"))]
    grouped, runs = views.values()
    assert [key["groupByData"] for key in grouped["groupBy"]["groupByKeys"]] == ["lr"]
    assert runs["groupBy"] is None
    kinds = [[chart["type"] for chart in view["compareRunCharts"]] for view in (grouped, runs)]
    assert ["PARALLEL" in own for own in kinds] == [False, True]
    only = json.loads(sweep_views("s", "val/loss", ["seed"])[view_tag("s")])
    assert [key["groupByData"] for key in only["groupBy"]["groupByKeys"]] == ["model"]
    for view in (grouped, runs):
        assert view["hideEmptyCharts"] is view["useGroupedValuesInCharts"] is True
        assert all(
            not chart["deleted"] and chart["isGenerated"] for chart in view["compareRunCharts"]
        )
        assert {chart["runsCountToCompare"] for chart in view["compareRunCharts"]} == {100}
        assert all(s["display"] and s["isReordered"] for s in view["compareRunSections"])


@pytest.mark.parametrize(
    ("metric", "order"),
    [
        ("val/loss", ["val", "test", "train"]),
        ("test/accuracy", ["test", "val", "train"]),
        ("train/best/loss", ["train", "val", "test"]),
    ],
)
def test_the_charts_of_the_metric_come_first(metric: str, order: list[str]) -> None:
    view = json.loads(comparison("", metric, ["lr"]))
    assert [section["name"] for section in view["compareRunSections"]] == order
    charts = [chart["metricKey"] for chart in view["compareRunCharts"] if "metricKey" in chart]
    assert charts == [f"{part}/{measure}" for part in order for measure in ("accuracy", "loss")]


def test_how_to_open_a_link(tmp_path: Path) -> None:
    assert with_ui("link", "http://host", tmp_path) == "link"
    for outputs, command in (
        (SOURCE.parent / "outputs", "make ui"),
        (tmp_path / "a b", f"python -m src.ui --outputs '{tmp_path}/a b'"),
    ):
        assert (
            with_ui("link", Tracking(None, "x").store(outputs), outputs) == f"{command}, then link"
        )
        own = with_ui("link", "sqlite:///own.db", outputs)
        assert own == "MLFLOW_TRACKING_URI=sqlite:///own.db make ui, then link"


def test_a_view_that_is_too_long_leaves_out_the_settings_and_then_the_groups() -> None:
    long = [f"a.long.name.{n}" for n in range(100)]
    assert json.loads(comparison("", "val/loss", long))["selectedColumns"] == ["metrics.`val/loss`"]
    assert json.loads(comparison("", "val/loss", long, long))["groupBy"] is None
    assert json.loads(comparison("", "val/loss", long, ["lr"]))["groupBy"]


def test_a_view_may_have_5000_characters() -> None:
    begin = len(comparison("", "val/loss", ["lr"]))
    for more, columns in ((5000, 2), (5001, 1)):
        view = comparison("x" * (more - begin), "val/loss", ["lr"])
        assert len(json.loads(view)["selectedColumns"]) == columns


def test_the_best_view_holds_at_most_100_runs_of_whole_configurations() -> None:
    def shown(runs: list[list[str]]) -> int:
        views = best_view("s", "val/loss", ["lr"], runs)
        return sum(text.count("r0") for text in views.values())

    pairs = [[f"r0{n}", f"r0{n}b"] for n in range(60)]
    assert shown(pairs) == 100
    assert shown(pairs[:50]) == 0  # 100 runs fit without it
    assert shown([*pairs[:50], ["r0x"]]) == 100
    assert shown([["r0"] * 101]) == 0
    assert shown([[f"r0{n}"] for n in range(200)]) == 0


def test_a_database_that_was_moved_leads_to_the_files_beside_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before, after = tmp_path / "a" / "outputs", tmp_path / "b" / "outputs"
    tracking = Tracking(None, "scratchgrid")
    client, experiment_id = open_tracking(tracking, before)
    run_id = client.create_run(experiment_id).info.run_id
    (tmp_path / "a").rename(tmp_path / "b")
    check_store(tracking, after)
    assert f"not in {before / 'artifacts'}" in caplog.text
    client, experiment_id = open_tracking(tracking, after)
    here = (after / "artifacts").as_uri()
    assert client.get_experiment(experiment_id).artifact_location == here
    assert str(client.get_run(run_id).info.artifact_uri).startswith(f"{here}/")
    caplog.clear()
    check_store(tracking, after)
    assert caplog.text == ""


@pytest.mark.parametrize("name", ["overrides", "sweep_id", "kind", "mlflow.user"])
def test_a_tag_that_every_run_has_is_refused(name: str) -> None:
    with composer(), pytest.raises(ConfigError, match=r"tags\..*choose another"):
        read(compose([f"+tags={{{name}:x}}"]))
