"""Sweeps that Optuna chooses: what it is asked and told, and studies that are continued."""

from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from optuna.importance import FanovaImportanceEvaluator

from src.support.errors import ConfigError
from src.sweep.pruning import Values
from src.sweep.sampling import Interval, Listed, Setting
from src.sweep.study import Pruning, Study
from tests.conftest import Ended

Invoke = Callable[..., Ended]

SETTINGS: list[Setting] = [
    Interval("lr", 0.001, 10, log=True),
    Listed("model", (("model=a",), ("model=b", "lr2=3"))),
]


def opened(folder: Path, **changes: object) -> Study:
    given: dict[str, object] = {
        "database": folder / "optuna.db",
        "name": "s",
        "settings": SETTINGS,
        "metric": "val/accuracy",
        "pruner": "median",
    }
    return Study(**{**given, **changes})  # type: ignore[arg-type]


def test_a_study_is_continued_from_its_database(tmp_path: Path) -> None:
    study = opened(tmp_path)
    asked = study.ask(4)
    for number, trial in enumerate(asked[:3]):
        study.tell(trial, [0.1 * number, 0.2 * number])
    again = opened(tmp_path)  # the first process died with a trial under way
    assert again.counts() == {"complete": 3, "fail": 1}
    assert again.counted == 0
    best = again.best()
    assert best
    assert best[1] == pytest.approx(0.3)
    with pytest.raises(ConfigError, match="searched among other values"):
        opened(tmp_path, settings=SETTINGS[:1])
    with pytest.raises(ConfigError, match="searches by val/accuracy"):
        opened(tmp_path, metric="val/loss")
    with pytest.raises(ConfigError, match="pruner=mediam: no such pruner; did you mean median"):
        opened(tmp_path, pruner="mediam")


@pytest.mark.slow
def test_importance_is_functional_anova_and_not_optuna_s_default(tmp_path: Path) -> None:
    study = opened(tmp_path)
    asked = study.ask(40)
    for trial in asked:  # the model helps with a small lr only: an interaction
        is_small = trial.trial.params["lr"] < 0.1
        is_first = trial.trial.params["model"] == "model=a"
        study.tell(trial, [0.9 if is_small and is_first else 0.5])
    found = study.importances()
    assert found == FanovaImportanceEvaluator(seed=0).evaluate(study._study)
    assert sum(found.values()) < 0.95  # the interaction is of no setting alone
    ped = optuna.importance.get_param_importances(study._study)
    assert sum(ped.values()) == pytest.approx(1)


def test_one_setting_alone_has_no_importance(tmp_path: Path) -> None:
    study = opened(tmp_path, settings=SETTINGS[:1])
    for number, trial in enumerate(study.ask(6)):
        study.tell(trial, [0.1 * number])
    assert study.importances() == {}


def test_the_same_search_chooses_the_same_trials_and_goes_on_with_others(tmp_path: Path) -> None:
    first, second = opened(tmp_path), opened(tmp_path, name="t")
    chosen = [[trial.overrides for trial in study.ask(5)] for study in (first, second)]
    assert chosen[0] == chosen[1]
    later = [trial.overrides for trial in opened(tmp_path).ask(5)]
    assert not any(overrides in chosen[0] for overrides in later)


@pytest.mark.slow
def test_trials_are_overrides_and_a_run_that_failed_counts_as_worst(tmp_path: Path) -> None:
    study = opened(tmp_path)
    for trial in study.ask(20):
        (lr,) = [float(o[3:]) for o in trial.overrides if o.startswith("lr=")]
        assert 0.001 <= lr <= 10
        assert "model=a" in trial.overrides or trial.overrides[-2:] == ["model=b", "lr2=3"]
        # Great rates diverge; of the others the greatest is best.
        study.tell(trial, [lr, None] if lr > 1 else [lr, lr])
    later = []
    for _ in range(30):
        (trial,) = study.ask(1)
        lr = float(trial.overrides[0].removeprefix("lr="))
        study.tell(trial, [None] if lr > 1 else [lr])
        later.append(lr)
    assert sum(lr > 1 for lr in later) < 20  # all 30 are, if such trials are forgotten
    assert study.counts().keys() == {"pruned", "complete"}


def test_the_pruner_ends_trials_that_are_worse_than_those_before(tmp_path: Path) -> None:
    study = opened(tmp_path)

    def batch(first: int, reached: Values) -> set[int]:
        asked = study.ask(len(reached))
        judge = Pruning(
            {n: [one] for n, one in zip(reached, asked, strict=True)}, {n: n for n in reached}, 20
        )
        assert judge.rungs[0] == 4
        verdict = judge.judge(4, reached)
        assert verdict.sentence.startswith("after 4 of 20 epochs, ")
        for number, reason in verdict.leaving.items():
            assert reason.startswith("left after 4 of 20 epochs: ")
            assert ("a run failed" in reason) == (reached[number] is None)
        for number, one in zip(reached, asked, strict=True):
            study.tell(one, [None if number in verdict.leaving else 0.5])
        return set(verdict.leaving)

    assert batch(0, {n: 0.5 + n / 100 for n in range(6)}) == set()  # nothing to compare with
    assert batch(6, {6: 0.1, 7: 0.9, 8: None}) == {6, 8}
    assert study.counts() == {"complete": 7, "pruned": 2}
    assert set(study.importances()) <= {"lr", "model"}


def test_trials_that_did_not_run_to_an_end_are_no_part_of_the_search(tmp_path: Path) -> None:
    study = opened(tmp_path)
    asked = study.ask(3)
    study.tell(asked[0], [0.5])
    study.forget(asked[:2])
    assert study.counts() == {"complete": 1, "fail": 1, "running": 1}
    assert study.counted == 3
    assert study.importances() == {}  # too few


@pytest.mark.slow
def test_a_study_runs_in_batches_and_goes_on(invoke: Invoke, tmp_path: Path) -> None:
    search = (
        "-m",
        "hydra/sweeper=optuna",
        "model=relu2_small",
        "lr=tag(log,interval(0.001,1e12))",
        "seed=0,1",
        "epochs=3",
        "hydra.sweeper.study=mine",
        "hydra.sweeper.batch=2",
    )
    ended = invoke(*search, "samples=3")
    assert ended.code in (0, 1), ended.err
    assert "mine: 3 trials" in ended.out
    ended = invoke(*search, "samples=1")
    assert "mine: 4 trials" in ended.out
    assert len(ended.folders) == 8
    assert {folder.parent.name for folder in ended.folders} == {"mine"}
    study = optuna.load_study(
        study_name="mine", storage=f"sqlite:///{tmp_path / 'outputs' / 'optuna.db'}"
    )
    rates = {f"lr={trial.params['lr']:.4g}" for trial in study.trials}
    overrides = [(folder / ".hydra" / "overrides.yaml").read_text() for folder in ended.folders]
    assert all(sum(rate in text for text in overrides) == 2 for rate in rates)  # two seeds


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lr=0.1,0.2"], "say how many configurations to try, as with samples=50"),
        (["lr=0.1", "samples=3"], "give at least one setting several values or an interval"),
        (["lr=0.1,0.2", "samples=3", "metric=test/accuracy"], "use metric=val/accuracy"),
        (["lr=0.1,0.2", "samples=3", "sweep.halving=3"], "use hydra.sweeper.pruner=halving"),
        (["lr=0.1,0.2", "samples=3", "plan=true"], "Optuna decides on the way what it runs"),
        (["lr=0.1,0.2", "samples=3", "hydra.sweeper.study=../x"], "must be a name of letters"),
        (["lr=0.1,0.2", "samples=3", "hydra.sweeper.batch=0"], "batch=0: must be 1 or more"),
    ],
)
def test_what_optuna_can_not_do_is_refused(
    arguments: list[str], message: str, invoke: Invoke, tmp_path: Path
) -> None:
    ended = invoke("-m", "hydra/sweeper=optuna", *arguments)
    assert ended.code == 2, ended.out + ended.err
    assert message in ended.err
    assert list(tmp_path.iterdir()) == []
