"""What the command line accepts beyond Hydra's own form."""

import pytest

from src.config.arguments import overrides, prepare
from src.nn.initializers import HeNormal, Random, Uniform, Zeros
from src.nn.layers import LeakyReLU, Tanh
from src.support.errors import ConfigError
from tests.test_config import job


def test_activation_and_distribution_are_short_for_the_setting_they_choose() -> None:
    experiment = job(*overrides(["activation=tanh", "distribution=he"])).experiment
    assert experiment.model.activation == Tanh()
    assert experiment.initializer == Random(HeNormal(), Zeros())


def test_a_short_form_beats_a_recipe() -> None:
    found = job(*overrides(["experiment=lecun300", "activation=leaky_relu"])).experiment
    assert found.model.activation == LeakyReLU()


def test_an_option_in_short_form_takes_its_own_settings() -> None:
    given = ["activation=leaky_relu", "activation.slope=0.2", "distribution=uniform"]
    experiment = job(*overrides([*given, "distribution.low=-0.1"])).experiment
    assert experiment.model.activation == LeakyReLU(0.2)
    assert experiment.initializer == Random(Uniform(-0.1, 0.5), Zeros())


def test_lists_of_a_sweep_are_kept() -> None:
    assert prepare(["activation=relu,tanh", "-m"]) == ["-m", "model.activation=relu,tanh"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--lr=0.1"], "--lr=0.1: settings have no dashes: write lr=0.1"),
        (["--lr", "0.1"], "--lr: settings have no dashes: write lr=0.1"),
        (["--model.hidden=[3]"], "write model.hidden=[3]"),
        (["--activation=relu"], "write activation=relu"),
    ],
)
def test_a_setting_with_dashes_is_told_without_them(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        prepare(arguments)
    assert message in str(caught.value)


def test_options_of_hydra_pass() -> None:
    given = ["--cfg", "job", "--config-dir=mine", "--hydra-help", "--info=plugins", "lr=0.1"]
    assert prepare(given) == given
