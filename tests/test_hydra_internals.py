"""What the project uses of Hydra's inside: each test names what broke when Hydra changes."""

import logging
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hydra
import pytest
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobStatus, run_job
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf

from src.config import hydra_internals as internals
from src.config.composition import compose, composer
from src.support.errors import ConfigError


@pytest.fixture
def config() -> Iterator[DictConfig]:
    import src.run  # noqa: F401 (registers a resolver)

    with composer():
        yield compose(["lr=0.5", "seed=3"], with_hydra=True)


def test_hydra_set_aside_brings_back_the_hydra_of_before() -> None:
    with composer():
        ours = internals.config_loader()
        with internals.hydra_set_aside(), hydra.initialize(None, version_base="1.3"):
            assert internals.config_loader() is not ours
        assert internals.config_loader() is ours


def test_config_loader_knows_our_options() -> None:
    with composer():
        assert "sigmoid3" in internals.config_loader().get_group_options("model")


def run(config: DictConfig, folder: Path, context: HydraContext, task: Any) -> Any:
    config = OmegaConf.merge(config, {"hydra": {"run": {"dir": str(folder)}}})  # type: ignore[assignment]
    return run_job(task, config, "hydra.run.dir", None, context, configure_logging=False)


def test_context_without_callbacks_runs_a_job(config: DictConfig, tmp_path: Path) -> None:
    context = internals.context_without_callbacks()
    returned = run(config, tmp_path, context, lambda config: config.lr)
    assert internals.value_or_error(returned) == 0.5


def test_context_with_starts_only_passes_on_starts_and_no_ends(
    config: DictConfig, tmp_path: Path
) -> None:
    heard: list[str] = []

    class Callbacks:
        def on_job_start(self, **_: Any) -> None:
            heard.append("start")

        def on_job_end(self, **_: Any) -> None:
            heard.append("end")

    whole = HydraContext(internals.config_loader(), Callbacks())  # type: ignore[arg-type]
    run(config, tmp_path, internals.context_with_starts_only(whole), lambda config: None)
    assert heard == ["start"]


def test_hydra_config_is_what_the_resolver_sees_in_the_block(config: DictConfig) -> None:
    before = HydraConfig.instance().cfg
    config.hydra.job.num = 7
    OmegaConf.register_new_resolver("seen", lambda: HydraConfig.get().job.num, replace=True)
    with internals.hydra_config(config):
        assert OmegaConf.create({"x": "${seen:}"}).x == 7
        assert HydraConfig.initialized()
    assert HydraConfig.instance().cfg is before


def test_set_job_name_names_the_job(config: DictConfig, tmp_path: Path) -> None:
    internals.set_job_name("mine")
    context = internals.context_without_callbacks()
    assert run(config, tmp_path, context, lambda config: None).task_name == "mine"


def test_log_as_configured_sends_the_log_to_the_run_s_file(
    config: DictConfig, tmp_path: Path
) -> None:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    try:
        config.hydra.runtime.output_dir = str(tmp_path)
        with internals.hydra_config(config):
            internals.log_as_configured(config.hydra)
        logging.getLogger("src.anything").info("written")
        assert "written" in (tmp_path / "run.log").read_text()
    finally:
        for handler in root.handlers[:]:
            handler.close()
        root.handlers[:], root.level = before


def test_job_environment_sets_and_restores(config: DictConfig) -> None:
    config.hydra.job.env_set = {"SCRATCHGRID_SEEN": "yes"}
    with internals.job_environment(config.hydra):
        assert os.environ["SCRATCHGRID_SEEN"] == "yes"
    assert "SCRATCHGRID_SEEN" not in os.environ


def test_failed_is_a_return_with_its_error_that_can_be_pickled() -> None:
    returned = pickle.loads(pickle.dumps(internals.failed(("lr=1",), RuntimeError("no"))))
    assert (returned.status, returned.overrides) == (JobStatus.FAILED, ["lr=1"])
    assert str(internals.value_or_error(returned)) == "no"


def test_value_or_error_gives_what_a_job_raised(config: DictConfig, tmp_path: Path) -> None:
    def task(config: DictConfig) -> None:
        raise ValueError("wrong")

    returned = run(config, tmp_path, internals.context_without_callbacks(), task)
    assert returned.status == JobStatus.FAILED
    assert str(internals.value_or_error(returned)) == "wrong"


def test_override_dirname_is_what_hydra_makes_of_it(config: DictConfig) -> None:
    settings = config.hydra.job.config.override_dirname
    settings.exclude_keys = ["epochs"]
    parser = OverridesParser.create()
    overrides = parser.parse_overrides(["seed=3", "lr=0.5", "epochs=2"])
    assert internals.override_dirname(overrides, settings) == config.hydra.job.override_dirname


def test_check_compositions_sees_every_way_to_compose(config: DictConfig) -> None:
    """Without the check of the loader, a recipe could run code through Hydra's own nodes."""
    with pytest.raises(ConfigError, match=r"^hydra\.verbose=nope"):
        compose(["hydra.verbose=nope"])
    with pytest.raises(ConfigError, match=r"^hydra\.verbose=nope"):
        internals.config_loader().load_sweep_config(config, ["hydra.verbose=nope"])
