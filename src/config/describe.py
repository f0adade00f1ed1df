"""Describes types and values in plain words, for error messages."""

import types
import typing
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from src.support.errors import suggest

_WORDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a string",
    Path: "a path",
    type(None): "null",
}
_LONGEST = 60  # characters of a value in a message

# What other libraries and textbooks call our options, by configuration group.
_SYNONYMS = {
    "activation": {
        "linear": "identity",
        "logistic": "sigmoid",
        "lrelu": "leaky_relu",
        "none": "identity",
    },
    "batching": {
        "batch": "full",
        "full_batch": "full",
        "mini_batch": "mini",
        "minibatch": "mini",
        "online": "sample",
        "stochastic": "sample",
    },
    "distribution": {
        "glorot": "xavier_normal",
        "glorot_normal": "xavier_normal",
        "glorot_uniform": "xavier_uniform",
        "he_normal": "he",
        "kaiming": "he",
        "kaiming_normal": "he",
        "lecun": "lecun_normal",
        "xavier": "xavier_normal",
    },
    "initializer": {
        "glorot": "xavier",
        "glorot_normal": "xavier",
        "glorot_uniform": "xavier_uniform",
        "he_normal": "he",
        "kaiming": "he",
        "kaiming_normal": "he",
        "lecun_normal": "lecun",
        "xavier_normal": "xavier",
    },
    "loss": {
        "bce": "sigmoid_cross_entropy",
        "binary_cross_entropy": "sigmoid_cross_entropy",
        "cross_entropy": "softmax_cross_entropy",
        "mse": "squared_error",
        "quadratic": "squared_error",
    },
    "optimizer": {"gd": "sgd", "gradient_descent": "sgd", "nag": "nesterov"},
    "schedule": {"exponential": "step", "invscaling": "inverse", "none": "constant"},
    "stopping": {"early_stopping": "early", "none": "never"},
}


def in_words(kind: Any) -> str:
    """Return what a value of an annotated type is called, such as "a whole number"."""
    if kind in _WORDS:
        return _WORDS[kind]
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        example = "[300, 100]" if arguments[0] in (int, float) else "[a, b]"
        return f"a list such as {example}, each {in_words(arguments[0])}"
    if origin in (typing.Union, types.UnionType):
        return " or ".join(in_words(option) for option in arguments)
    return f"a group of settings ({getattr(kind, '__name__', kind)})"


def shortened(value: Any) -> str:
    """Return a value as text, cut where it is too long for a message."""
    text = str(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def suggest_option(group: str, name: str, options: Iterable[str]) -> str:
    """Return the end of a message about an unknown option, which offers the one that is meant.

    Knows the names that other libraries use: ``initializer=kaiming`` is our ``he``.
    """
    options = list(options)
    synonym = _SYNONYMS.get(group, {}).get(name)
    if synonym in options:
        return f"; did you mean {synonym}?"
    return suggest(name, options)


def listed(names: Sequence[str], word: str = "and") -> str:
    """Return names as a person lists them: "a, b and c"."""
    *others, last = names
    return f"{', '.join(others)} {word} {last}" if others else last
