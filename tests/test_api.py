"""A run from Python is the run from the command line."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import hydra
import numpy as np
import pytest
from hydra.core.global_hydra import GlobalHydra

from src.api import Trained, train
from src.nn.weights import load_weights
from src.support.errors import ConfigError, DataError, Diverged
from src.support.paths import CONF
from tests.conftest import Ended
from tests.test_run import digits, history, only_run


def untimed(folder: Path) -> list[dict[str, float]]:
    """Return the history in a folder without the column of the clock."""
    return [{key: row[key] for key in row if key != "time"} for row in history(folder)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    outputs = tmp_path_factory.mktemp("door")
    return train("model=relu2", "epochs=5", "lr=0.1", f"outputs={outputs}", show=False)


def test_it_gives_back_the_network_its_history_and_where_it_is_kept(trained: Trained) -> None:
    test = digits().test
    assert trained.metrics["test/accuracy"] > 0.85
    assert (trained.predict(test.images) == test.labels).mean() == trained.metrics["test/accuracy"]
    probabilities = trained.predict_proba(test.images)
    np.testing.assert_allclose(probabilities.sum(axis=-1), 1, rtol=1e-5)
    np.testing.assert_array_equal(probabilities.argmax(axis=-1), trained.predictions.predicted)
    assert trained.history == untimed(trained.folder)
    assert [row["epoch"] for row in trained.history] == [1, 2, 3, 4, 5]
    found = only_run(Ended(trained.folder.parent.parent, 0, "", ""))
    assert (found.info.run_id, found.info.status) == (trained.run_id, "FINISHED")
    assert found.data.tags["output_dir"] == str(trained.folder)


def test_it_is_the_run_of_the_command_line(trained: Trained, invoke: Callable[..., Ended]) -> None:
    (folder,) = invoke("model=relu2", "epochs=5", "lr=0.1", tracked=True).folders
    assert (folder / "weights.npz").read_bytes() == (trained.folder / "weights.npz").read_bytes()
    assert {p.name for p in folder.iterdir()} == {p.name for p in trained.folder.iterdir()}
    assert {p.name for p in (folder / ".hydra").iterdir()} == {
        p.name for p in (trained.folder / ".hydra").iterdir()
    }
    kept = load_weights(trained.folder / "weights.npz", trained.network, np.float32)
    for layer, same in zip(trained.parameters, kept, strict=True):
        for p, q in zip(layer, same, strict=True):
            np.testing.assert_array_equal(p, q)
    assert "finished in" in (trained.folder / "run.log").read_text()


@pytest.mark.slow
def test_it_shows_what_the_command_shows_or_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train("debug=fast", f"outputs={tmp_path}", show=False)
    assert capsys.readouterr().out == ""
    train("debug=fast", f"outputs={tmp_path}")
    assert "epoch 1/1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("override", "kind", "message"),
    [
        ("modle=relu2", ConfigError, "did you mean model"),
        ("lr=0", ConfigError, "lr=0.0: must be a positive"),
        ("data=csv", ConfigError, "data.path has no value"),
        ("+data.path=none", ConfigError, "data.path: no such key"),
        ("initializer=file", ConfigError, "initializer.path has no value"),
    ],
)
def test_what_is_wrong_is_raised_and_nothing_is_left(
    override: str, kind: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(kind, match=message):
        train(override, f"outputs={tmp_path}/outputs", show=False)
    assert list(tmp_path.iterdir()) == []


def test_missing_data_and_divergence_are_raised_as_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        train("data=csv", "data.path=none.csv", f"outputs={tmp_path}", show=False)
    with pytest.raises(Diverged, match="loss became"):
        train("model=relu2", "lr=1e20", f"outputs={tmp_path}", show=False)
    assert only_run(Ended(tmp_path, 1, "", "")).info.status == "FAILED"


@pytest.mark.slow
def test_threads_wait_for_each_other_and_get_their_own_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with ThreadPoolExecutor(3) as pool:
        runs = list(
            pool.map(
                lambda seed: train(f"seed={seed}", "debug=fast", f"outputs={tmp_path}", show=False),
                range(3),
            )
        )
    assert capsys.readouterr().out == ""
    for seed, each in enumerate(runs):
        assert f"seed={seed}" in (each.folder / ".hydra" / "overrides.yaml").read_text()
        assert (each.folder / "result.json").exists()
        assert each.history == untimed(each.folder)


@pytest.mark.slow
def test_hydra_is_left_as_it_was_found(tmp_path: Path) -> None:
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        before = GlobalHydra.instance().hydra
        train("debug=fast", f"outputs={tmp_path}", show=False)
        assert GlobalHydra.instance().hydra is before
        hydra.compose("config", ["epochs=3"])
