"""Names the packages that some of Hydra's launchers and sweepers come with."""

from importlib.util import find_spec

from src.support.errors import ConfigError

_PACKAGES = {
    "hydra/launcher/joblib": "hydra-joblib-launcher",
    "hydra/launcher/ray": "hydra-ray-launcher",
    "hydra/launcher/submitit_local": "hydra-submitit-launcher",
    "hydra/launcher/submitit_slurm": "hydra-submitit-launcher",
    "hydra/sweeper/ax": "hydra-ax-sweeper",
    "hydra/sweeper/nevergrad": "hydra-nevergrad-sweeper",
}


def missing_extra(file: str | None) -> str | None:
    """Return what to install for an option that Hydra does not find, or None if nothing helps.

    ``file`` is the option as Hydra names it, such as ``hydra/launcher/joblib``.
    """
    if file not in _PACKAGES:
        return None
    group, _, name = file.rpartition("/")
    package = "'.[joblib]'" if name == "joblib" else _PACKAGES[file]
    return f"{group}={name}: is not installed; pip install {package} adds it"


def require_package(module: str, setting: str, extra: str) -> None:
    """Raise ConfigError, which names our extra, if a module that a setting needs is missing."""
    if find_spec(module) is None:
        raise ConfigError(f"{setting}: needs {module}; pip install '.[{extra}]' adds it")
