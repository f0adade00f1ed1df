"""Has Optuna choose configurations, through its own ask-and-tell interface.

This module imports Optuna, which is an extra: import it only where a study is asked for.
"""

import statistics
import warnings
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.exceptions import ExperimentalWarning
from optuna.importance import FanovaImportanceEvaluator
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.pruners import SuccessiveHalvingPruner as HalvingPruner
from optuna.trial import Trial, TrialState

from src.support.errors import ConfigError, suggest
from src.sweep.pruning import Judge, Values, Verdict
from src.sweep.sampling import Interval, Listed, Setting

_PRUNERS: Mapping[str, type[BasePruner]] = {
    "median": MedianPruner,
    "halving": HalvingPruner,
    "hyperband": HyperbandPruner,
    "none": NopPruner,
}
_RUNGS = 10  # a trial may be pruned after each tenth of its epochs, but the first


class Study:
    """A study in a database, which another process can continue.

    Each trial is a configuration; its value is the mean of its runs, one per seed.
    """

    def __init__(
        self, database: Path, name: str, settings: Sequence[Setting], metric: str, pruner: str
    ) -> None:
        """Open a study, or continue it. Raises ConfigError if it searched among other values."""
        if pruner not in _PRUNERS:
            raise ConfigError(
                f"hydra.sweeper.pruner={pruner}: no such pruner{suggest(pruner, _PRUNERS)}"
            )
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        warnings.filterwarnings("ignore", category=ExperimentalWarning)
        self.name, self.metric = name, metric
        self._settings = {setting.key: setting for setting in settings}
        self._space = {setting.key: _distribution(setting) for setting in settings}
        database.parent.mkdir(parents=True, exist_ok=True)
        self._study = optuna.create_study(
            storage=f"sqlite:///{database}",
            study_name=name,
            direction="minimize" if metric.endswith("loss") else "maximize",
            pruner=_PRUNERS[pruner](),
            load_if_exists=True,
        )
        self._check_continued()
        self._before = len(self._study.trials)
        # The same search chooses the same trials; a study that goes on does not draw them again.
        self._study.sampler = optuna.samplers.TPESampler(seed=self._before)

    def _check_continued(self) -> None:
        """Close what a process that died has left, and check that the study is the same search."""
        known = self._study.user_attrs.get("metric", self.metric)
        if known != self.metric:
            raise ConfigError(
                f"metric={self.metric}: the study {self.name} searches by {known}; "
                f"set metric={known}, or choose another name with hydra.sweeper.study=…"
            )
        self._study.set_user_attr("metric", self.metric)
        for trial in self._study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
            self._study.tell(trial.number, state=TrialState.FAIL)
        for trial in self._study.get_trials(deepcopy=False)[-1:]:
            if trial.distributions != self._space:
                raise ConfigError(
                    f"hydra.sweeper.study={self.name}: this study searched among other values: "
                    f"{', '.join(f'{key} {kind}' for key, kind in trial.distributions.items())}; "
                    "choose another name"
                )

    def ask(self, count: int) -> list["Asked"]:
        """Return trials to run next to each other."""
        return [self._asked(self._study.ask(self._space)) for _ in range(count)]

    def _asked(self, trial: Trial) -> "Asked":
        overrides: list[str] = []
        for key, setting in self._settings.items():
            value = trial.params[key]
            overrides += (
                [setting.override(value)] if isinstance(setting, Interval) else value.split()
            )
        return Asked(trial, overrides)

    def tell(self, asked: "Asked", values: Sequence[float | None]) -> None:
        """Take the values of a trial's runs; None for a run that left early or failed.

        Such a trial is told as pruned. Without any value at a rung, as after a divergence, Optuna's
        sampler takes it for the worst.
        """
        if None in values:
            self._study.tell(asked.trial, state=TrialState.PRUNED)
        else:
            self._study.tell(asked.trial, _mean(values))

    def forget(self, asked: "Sequence[Asked]") -> None:
        """Take note that trials did not run to an end, for a reason that is not their own."""
        for one in asked:
            self._study.tell(one.trial, state=TrialState.FAIL, skip_if_finished=True)

    @property
    def counted(self) -> int:
        """How many trials this process has asked for."""
        return len(self._study.get_trials(deepcopy=False)) - self._before

    def best(self) -> tuple[Mapping[str, object], float] | None:
        """Return the parameters and the value of the best trial so far, or None without any."""
        done = self._study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
        return (self._study.best_params, self._study.best_value) if done else None

    def counts(self) -> dict[str, int]:
        """Return how many trials there are in each state."""
        states = [trial.state.name.lower() for trial in self._study.get_trials(deepcopy=False)]
        return {state: states.count(state) for state in dict.fromkeys(states)}

    def importances(self) -> dict[str, float]:
        """Return the share of the variance that each setting alone explains, by functional ANOVA.

        It is that of a forest of trees that Optuna fits to the finished trials: the seeds' noise is
        not told apart. Empty where too few trials have finished, or one setting alone varies.
        """
        done = self._study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
        varying = [key for key, space in self._space.items() if not space.single()]
        if len(done) < 4 or len(varying) < 2 or len({trial.value for trial in done}) == 1:
            return {}
        # Optuna's default is another method, PED-ANOVA.
        return dict(FanovaImportanceEvaluator(seed=0).evaluate(self._study))


class Asked:
    """A trial, and the overrides of its configuration."""

    def __init__(self, trial: Trial, overrides: Sequence[str]) -> None:
        self.trial, self.overrides = trial, overrides
        self.jobs: list[tuple[str, ...]] = []  # the overrides of each, one per seed


class Pruning(Judge):
    """Has the study's pruner decide at each rung which trials of a batch leave."""

    def __init__(
        self, batch: Mapping[Hashable, Sequence[Asked]], runs: Mapping[int, Hashable], epochs: int
    ) -> None:
        """``runs`` gives the configuration of each job, ``batch`` the trials of each of these."""
        self._batch, self._runs, self._epochs = batch, runs, epochs
        first = min(asked.trial.number for same in batch.values() for asked in same)
        self.name = f"trials_from_{first}"
        places = (epochs * k // _RUNGS for k in range(2, _RUNGS))
        self.rungs = sorted({place for place in places if 0 < place < epochs})

    def judge(self, epoch: int, values: Values) -> Verdict:
        own: dict[Hashable, list[int]] = {}
        for number in values:
            own.setdefault(self._runs[number], []).append(number)
        reported = {kind: [values[n] for n in numbers] for kind, numbers in own.items()}
        sound = {kind: known for kind, known in reported.items() if None not in known}
        for kind, known in sound.items():
            for asked in self._batch[kind]:
                asked.trial.report(_mean(known), epoch)
        leaving: dict[int, str] = {}
        for kind, numbers in own.items():
            if kind not in sound or self._batch[kind][0].trial.should_prune():
                reason = "the pruner expects no good of it" if kind in sound else "a run failed"
                place = f"left after {epoch} of {self._epochs} epochs"
                leaving |= dict.fromkeys(numbers, f"{place}: {reason}")
        stay = len(own) - len({self._runs[number] for number in leaving})
        return Verdict(
            leaving, f"after {epoch} of {self._epochs} epochs, {stay} of {len(own)} trials stay"
        )


def _mean(values: Sequence[float | None]) -> float:
    return statistics.fmean(value for value in values if value is not None)


def _distribution(setting: Setting) -> BaseDistribution:
    """Return a setting as Optuna knows it: a list of overrides, or an interval."""
    if isinstance(setting, Listed):
        return CategoricalDistribution([" ".join(value) for value in setting.values])
    if setting.whole:
        return IntDistribution(int(setting.low), int(setting.high) - 1, log=setting.log)
    return FloatDistribution(setting.low, setting.high, log=setting.log)
