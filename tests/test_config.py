"""What a configuration may say, and what it is told when it says something else."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

import src.run  # noqa: F401 (registers the resolver that folder names use)
from src.config.composition import compose as compose_all
from src.config.composition import composer
from src.config.explain import explain
from src.config.preflight import check
from src.config.reader import flatten, option, read
from src.data.mnist import Mnist
from src.nn.initializers import (
    Distribution,
    HeNormal,
    Initializer,
    Random,
    Uniform,
    XavierNormal,
    Zeros,
)
from src.nn.layers import Activation, LeakyReLU, Tanh
from src.nn.losses import Loss, SquaredError
from src.runs.job import Job, read_curve
from src.support.errors import ConfigError
from src.support.paths import CONF
from src.training.batching import Batching, Mini
from src.training.optimizers import Optimizer
from src.training.schedules import Schedule
from src.training.stopping import Stopping

GROUPS = [
    "model",
    "initializer",
    "loss",
    "batching",
    "optimizer",
    "schedule",
    "stopping",
    "data",
    "tracking",
    "experiment",
    "debug",
]
# What some choices can't do without.
NEEDED = {
    "initializer=file": ["initializer.path=w.npz"],
    "stopping=target": ["stopping.value=0.1"],
    "data=csv": ["data.path=x.csv"],
    "data=idx": ["data.path=x"],
    "data=npz": ["data.path=x"],
}
CHOICES = [
    f"{group}={path.stem}" for group in GROUPS for path in sorted((CONF / group).glob("*.yaml"))
]


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", list(overrides))


def job(*overrides: str) -> Job:
    return read(composed(*overrides))


@pytest.mark.parametrize("choice", CHOICES)
def test_every_file_composes_and_builds(choice: str) -> None:
    built = job(choice, *NEEDED.get(choice, []))
    assert isinstance(built, Job)


@pytest.mark.parametrize("place", ["weights", "biases", "output"])
@pytest.mark.parametrize(
    "path", sorted((CONF / "distribution").glob("*.yaml")), ids=lambda path: path.stem
)
def test_every_distribution_serves_every_place(place: str, path: Path) -> None:
    initializer = job(f"distribution@initializer.{place}={path.stem}").experiment.initializer
    assert getattr(initializer, place) is not None


@pytest.mark.parametrize("launcher", ["basic", "joblib"])
def test_every_launcher_composes(launcher: str) -> None:
    job(f"hydra/launcher={launcher}")


def test_no_file_under_conf_is_left_out() -> None:
    tested = {f"{choice.replace('=', '/')}.yaml" for choice in CHOICES} | {"config.yaml"}
    elsewhere = ("hydra/", "distribution/", "activation/", "sweep/")
    files = {path.relative_to(CONF).as_posix() for path in CONF.rglob("*.yaml")}
    assert {file for file in files if not file.startswith(elsewhere)} == tested


@pytest.mark.parametrize(
    ("name", "sizes", "activation"),
    [
        ("relu2", (784, 128, 10), "relu"),
        ("sigmoid3", (784, 16, 16, 10), "sigmoid"),
        ("relu3", (784, 100, 200, 10), "relu"),
        ("relu2_small", (784, 10, 10), "relu"),
    ],
)
def test_models_are_what_their_names_promise(
    name: str, sizes: tuple[int, ...], activation: str
) -> None:
    model = job(f"model={name}").experiment.model
    assert (model.sizes, str(model.activation)) == (sizes, activation)


def test_a_name_stands_for_the_option_of_that_name() -> None:
    experiment = job(
        "model.activation=leaky_relu",
        "loss=squared_error",
        "loss.output=tanh",
        "initializer.output=he",
    ).experiment
    assert experiment.model.activation == LeakyReLU(0.01)
    assert experiment.loss == SquaredError(Tanh())
    assert experiment.initializer == Random(XavierNormal(), Zeros(), HeNormal())
    other = job("+activation@model.activation=leaky_relu", "model.activation.slope=0.2").experiment
    assert other.model.activation == LeakyReLU(0.2)
    assert experiment.digest != other.digest


@pytest.mark.parametrize(
    "kind", [Activation, Initializer, Loss, Batching, Optimizer, Schedule, Stopping, Distribution]
)
def test_python_can_have_every_option_by_its_name(kind: type) -> None:
    for path in sorted((CONF / kind.__name__.lower()).glob("*.yaml")):
        if path.stem not in ("file", "target"):  # which can't do without a value
            assert isinstance(option(kind, path.stem), kind)


def test_a_named_initializer_is_the_composed_one() -> None:
    assert option(Initializer, "nielsen") == job("initializer=nielsen").experiment.initializer
    with pytest.raises(ConfigError, match="initializer=file: needs a value for path"):
        option(Initializer, "file")
    with pytest.raises(
        ConfigError, match="initializer=xaver: no such initializer; did you mean xavier"
    ):
        option(Initializer, "xaver")


def test_settings_arrive_where_they_are_meant_to() -> None:
    found = job(
        "model.hidden=[300,100]",
        "model.activation=tanh",
        "initializer=uniform",
        "distribution@initializer.output=he",
        "batching.size=64",
        "batching.drop_last=true",
        "lr=1e-2",
        "epochs=1e3",
        "seed=7",
        "dtype=float64",
        "name=mine",
    ).experiment
    assert found.model.sizes == (784, 300, 100, 10)
    assert found.initializer == Random(Uniform(-0.5, 0.5), Uniform(-0.5, 0.5), HeNormal())
    assert found.batching == Mini(64, shuffle=True, drop_last=True)
    assert (found.lr, found.epochs, found.seed, found.dtype) == (0.01, 1000, 7, "float64")


def test_an_environment_variable_set_to_nothing_counts_as_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SCRATCHGRID_MNIST", "")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    found = job("data=mnist")
    assert isinstance(found.experiment.data, Mnist)
    assert found.experiment.data.path is None
    assert found.tracking.uri is None


def test_the_default_initializer_is_xavier_with_zero_biases() -> None:
    assert job().experiment.initializer == Random(XavierNormal(), Zeros())


def test_identity_follows_what_decides_the_result_and_nothing_else() -> None:
    base = job().experiment.digest
    assert base == job("name=other", "metric=test/loss", "outputs=elsewhere").experiment.digest
    changes = [
        "lr=0.1",
        "seed=1",
        "epochs=2",
        "dtype=float64",
        "model.hidden=[16]",
        "batching.shuffle=false",
        "data.split.seed=1",
        "initializer=he",
    ]
    assert len({base, *(job(change).experiment.digest for change in changes)}) == 1 + len(changes)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("epochs=many", "epochs=many: must be a whole number"),
        ("epochs=1.5", "epochs=1.5: must be a whole number"),
        ("epochs=true", "epochs=True: must be a whole number"),
        ("epochs=null", "epochs=None: must be a whole number"),
        ("epochs=0", "epochs=0: must be 1 or more"),
        ("lr=fast", "lr=fast: must be a number"),
        ("lr=0", "lr=0.0: must be a positive, finite number"),
        ("lr=-1", "lr=-1.0: must be a positive, finite number"),
        ("lr=nan", "lr=nan: must be a positive, finite number"),
        ("lr=inf", "lr=inf: must be a positive, finite number"),
        (
            "lr=[0.1,0.2]",
            "must be a number; a sweep over several values is written -m lr=0.1,0.2",
        ),
        ("model.activation=logistic", "no such activation; did you mean sigmoid?"),
        ("initializer.weights=xavier", "no such distribution; did you mean xavier_normal?"),
        ("seed=-1", "seed=-1: must be 0 or more"),
        ("dtype=float16", "dtype=float16: must be float32 or float64"),
        ("dtype=foat32", "did you mean float32?"),
        ("batching.size=0", "batching.size=0: must be 1 or more"),
        ("batching.size=abc", "batching.size=abc: must be a whole number"),
        ("batching.shuffle=3", "batching.shuffle=3: must be true or false"),
        ("model.hidden=16", "model.hidden=16: must be a list such as [300, 100]"),
        ("model.hidden=[16,x]", "model.hidden[1]=x: must be a whole number"),
        ("model.hidden=[16,0]", "model.hidden=[16, 0]: every layer needs 1 unit or more"),
        ("model.activation=sigmod", "did you mean sigmoid?"),
        (
            "initializer.weights=hee",
            "initializer.weights=hee: no such distribution; did you mean he?",
        ),
        ("initializer=file", "initializer.path has no value: set it with initializer.path=…"),
        (
            "data.split.val=2.5",
            "data.split.val=2.5: must be a count, a fraction from 0 to 1, or null",
        ),
        ("data.split.val=half", "data.split.val=half: must be a whole number or a number or null"),
        ("data.scale=0/1", "data.scale=0/1: must be a positive number or a fraction"),
        ("metric=val/acc", "did you mean val/accuracy?"),
        ("lr=${nowhere}", "Interpolation key 'nowhere' not found"),
        ("~lr", "lr is missing: set it with lr=…"),
        ("+typo=1", "typo: no such key"),
        ("+batchng=1", "did you mean batching?"),
        ("+batching.sise=3", "batching.sise: no such key; did you mean size?"),
        ("+data.split.vall=3", "data.split.vall: no such key; did you mean val?"),
    ],
)
def test_a_wrong_value_is_told_with_its_place_and_what_would_be_right(
    override: str, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        job(override)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "src.data.mnist.os.system",
        "subprocess.Popen",
        "builtins.eval",
        "src.run.main",
        "src.nn.initializers.Zeros",
        "src.nn.initializers.np.fromfile",
    ],
)
def test_a_target_can_only_be_a_class_of_the_kind_its_place_expects(
    target: str, tmp_path: Path
) -> None:
    """A configuration from a stranger selects and sets; it never imports or runs anything."""
    for place in ("model", "batching", "data", "initializer", "tracking"):
        with pytest.raises(ConfigError, match=r"not a class that can stand here"):
            job(f"{place}._target_={target}")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model=sigmiod3"], "model=sigmiod3: no such option; did you mean sigmoid3?"),
        (["model=xyz"], "there are relu2, relu2_dropout, relu2_small, relu3, sigmoid3"),
        (["modle=relu2"], "modle=relu2: there is no key or choice modle; did you mean model?"),
        (["lrr=0.1"], "lrr=0.1: there is no key or choice lrr; did you mean lr?"),
        (["model.hiden=[3]"], "did you mean model.hidden?"),
        (["batching=full", "batching.sise=3"], "there is no key or choice batching.sise"),
        (["data=csv", "data.pth=x"], "did you mean data.path?"),
        (
            ["lr=0.1,0.2"],
            "lr=0.1,0.2: several values are a sweep: add -m; for one list write lr=[0.1,0.2]",
        ),
        (["model=relu2,relu3"], "model=relu2,relu3: several values are a sweep: add -m"),
        (["name=ünï"], "quote values that contain special characters: \"name='ünï'\""),
        (["lr=[1"], "lr=[1: not of the form key=value"),
        (["lr"], "lr: not of the form key=value"),
        (["experiment=none_such"], "experiment=none_such: no such option"),
        (["distribution@initializer.output=zeross"], "did you mean zeros?"),
        (["hydra/launcher=foo"], "there are basic"),
        (["initializer=xavier_normal"], "no such option; did you mean xavier?"),
        (["initializer=glorot_uniform"], "no such option; did you mean xavier_uniform?"),
        (["initializer=kaiming"], "no such option; did you mean he?"),
        (
            ["optimizer=adam", "optimizer.momentum=0.9"],
            "optimizer=adam has no setting momentum; momentum, nesterov and sgd have it",
        ),
        (["batching=full", "batching.size=3"], "batching=full has no setting size; mini has it"),
        (["model.activation.slope=0.2"], "name the activation too: activation=leaky_relu"),
        (["debug=null"], "debug=null: must be the name of an option"),
        (["zzzzzz=1"], "zzzzzz=1: there is no key or choice zzzzzz; --help lists them all"),
    ],
)
def test_a_composition_that_fails_is_told_in_a_line_with_the_nearest_right_name(
    overrides: list[str], message: str
) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011 (Hydra raises several kinds)
        composed(*overrides)
    told = explain(caught.value, overrides)
    assert message in told
    assert "\n" not in told


def test_parameters_are_flat_and_resolved() -> None:
    settings = flatten(composed("model=relu2", "data.split.val=100"))
    assert settings["model.hidden"] == [128]
    assert settings["data.split.val"] == 100
    assert settings["lr"] == 0.05
    assert not any(isinstance(value, dict) for value in settings.values() if value)


def overlays() -> list[str]:
    return [path.stem for path in sorted((CONF / "experiment").glob("*.yaml"))]


@pytest.mark.parametrize("name", overlays())
def test_every_recipe_carries_its_published_figures_and_curve(name: str) -> None:
    found = job(f"experiment={name}")
    assert found.reference is not None
    for metric, figure in found.reference.figures.items():
        assert metric.split("/")[0] in ("train", "val", "test")
        assert 0 < figure <= 1
    if found.reference.curve:
        epochs, values = read_curve(found.reference.curve)
        assert len(epochs) == len(values) > 5
        assert max(epochs) == found.experiment.epochs
        metric = found.reference.curve.metric
        assert found.reference.figures[metric] == pytest.approx(values[-1], abs=1e-4)


def test_a_recipe_gives_way_to_the_command_line() -> None:
    found = job(
        "experiment=sigmoid16x16_fullbatch",
        "lr=0.1",
        "data=digits",
        "data.split.train=null",
        "data.split.test=360",
    )
    assert found.experiment.lr == 0.1
    assert found.experiment.epochs == 500


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["batching.size=5000"], "batching.size=5000: must be at most the 1077 training samples"),
        (
            ["model.inputs=64"],
            "model.inputs=64: digits has images of 28×28 = 784 pixels: set model.inputs=784",
        ),
        (["model.outputs=9"], "model.outputs=9: digits has labels up to 9: set model.outputs=10"),
        (
            ["data.split.val=0"],
            (
                "metric=val/accuracy: digits has only train and test sets; "
                "did you mean train/accuracy?"
            ),
        ),
        (
            ["data.split.val=5000"],
            (
                "data.split.val=5000: train, val and test ask for 5,360 samples in total, "
                "there are 1,797"
            ),
        ),
        (["data.split.test=own"], "data.split.test=own: this data has no test set of its own"),
    ],
)
def test_what_does_not_fit_the_data_is_found_before_anything_is_begun(
    overrides: list[str], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        check(composed(*overrides))
    assert message in str(caught.value)


@dataclass(frozen=True)
class Faulty(Distribution):
    """A distribution with a fault of its own."""

    def draw(self, rng: Any, shape: Any, fan_in: int, fan_out: int) -> Any:
        raise ValueError("the scale has no sign")


def test_a_fault_in_an_initializer_is_not_taken_for_a_lack_of_memory() -> None:
    experiment = replace(job().experiment, initializer=Random(Faulty(), Zeros()))
    with pytest.raises(ValueError, match="the scale has no sign"):
        experiment.prepare(experiment.data.load())


@pytest.mark.parametrize("units", [10**9, 10**17])  # past this memory, past any address
def test_too_many_parameters_are_told_as_such(units: int) -> None:
    with pytest.raises(ConfigError, match=r"model\.hidden=.* parameters don't fit into memory"):
        check(composed(f"model.hidden=[{units}]"))


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (["stopping=early", "stopping.metric=test/loss"], "stopping.metric=test/loss"),
        (
            ["stopping=target", "stopping.value=0.9", "stopping.metric=test/accuracy"],
            "val/accuracy",
        ),
        (["schedule=plateau", "schedule.metric=test/loss"], "schedule.metric=test/loss"),
    ],
)
def test_training_is_not_steered_by_the_test_set(overrides: list[str], key: str) -> None:
    with pytest.raises(ConfigError, match="the test set is for reporting") as caught:
        job(*overrides)
    assert key in str(caught.value)


def test_a_list_in_place_of_one_option_is_refused() -> None:
    with composer():
        config = compose_all(["model=[relu2,sigmoid3]"], with_hydra=True)
    with pytest.raises(
        ConfigError, match="a sweep over several is written -m model=relu2,sigmoid3"
    ):
        check(config)


def test_other_image_sizes_and_class_counts_work_when_the_net_fits(tmp_path: Path) -> None:
    # Three classes of 3×4 pixels, each with a row of its own lit.
    lines = [
        f"{i % 3}," + ",".join(str(200 if j // 4 == i % 3 else (i * j) % 50) for j in range(12))
        for i in range(90)
    ]
    (tmp_path / "small.csv").write_text("\n".join(lines))
    overrides: list[Any] = [
        "data=csv",
        f"data.path={tmp_path}/small.csv",
        "model.inputs=12",
        "model.outputs=3",
        "batching.size=8",
    ]
    _, prepared = check(composed(*overrides))
    assert prepared.dataset.shape == (1, 12)
    assert list(prepared.train())[-1].scores["test"].accuracy == 1
