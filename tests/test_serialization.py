"""Configured values come back from JSON equal, and a stranger's JSON can name no other class."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from src.nn.layers import GELU, LeakyReLU, Sigmoid
from src.nn.losses import Loss, SigmoidCrossEntropy, SoftmaxCrossEntropy, SquaredError
from src.nn.network import MLP
from src.support.serialization import from_plain, to_plain

CLASSES = [MLP, LeakyReLU, GELU, Sigmoid, SoftmaxCrossEntropy, SquaredError]


@pytest.mark.parametrize(
    "value",
    [
        MLP(784, (16, 8), 10, LeakyReLU(0.2), dropout=0.5),
        MLP(4, (), 2, GELU()),
        SoftmaxCrossEntropy(0.1),
        SquaredError(Sigmoid()),
    ],
    ids=str,
)
def test_a_value_comes_back_through_json_equal(value: object) -> None:
    assert from_plain(json.loads(json.dumps(to_plain(value))), iter(CLASSES)) == value


def test_a_class_stands_for_all_that_derive_from_it() -> None:
    for value in (SoftmaxCrossEntropy(0.1), SigmoidCrossEntropy()):
        assert from_plain(to_plain(value), [Loss]) == value
    with pytest.raises(KeyError):
        from_plain(to_plain(GELU()), [Loss])


def test_a_path_becomes_a_string() -> None:
    assert to_plain((Path("a/b"), 1, None)) == ["a/b", 1, None]


def test_the_class_is_part_of_the_description() -> None:
    @dataclass(frozen=True)
    class Other:
        slope: float

    assert to_plain(Other(0.2)) == {"class": "Other", "slope": 0.2}
    assert to_plain(Other(0.2)) != to_plain(LeakyReLU(0.2))


@pytest.mark.parametrize(
    "plain",
    [
        {"class": "Popen", "args": ["true"]},
        {"class": "os.system", "command": "true"},
        {"class": "SquaredError", "output": {"class": "Popen", "args": ["true"]}},
        [{"class": "Popen", "args": ["true"]}],
    ],
    ids=str,
)
def test_a_class_that_is_not_given_is_refused_at_any_depth(plain: Any) -> None:
    with pytest.raises(KeyError):
        from_plain(plain, CLASSES)
