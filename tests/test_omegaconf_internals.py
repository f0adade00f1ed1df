"""What is used of OmegaConf beyond its documentation: a failure here names what it changed."""

from typing import Any

import omegaconf.base
import pytest
from omegaconf import OmegaConf

from src.config.omegaconf_internals import parse_interpolations_once


def test_interpolations_are_parsed_once_and_worked_out_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parse_interpolations_once()
    parse_interpolations_once()  # wraps once
    module: Any = omegaconf.base
    parse = module.parse
    config = OmegaConf.create({"path": "${oc.env:SCRATCHGRID_TEST,none}/${name}", "name": "a"})
    assert config.path == "none/a"
    parsed = parse.cache_info().misses
    monkeypatch.setenv("SCRATCHGRID_TEST", "x")
    config.name = "b"
    assert config.path == "x/b"
    assert parse.cache_info().misses == parsed
