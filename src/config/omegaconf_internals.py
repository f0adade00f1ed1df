"""Everything of OmegaConf that this project uses beyond what OmegaConf documents.

``tests/test_omegaconf_internals.py`` names what broke when OmegaConf changes.
"""

import functools
from typing import Any

import omegaconf.base


def parse_interpolations_once() -> None:
    """Have OmegaConf keep the parse trees of interpolations such as ``${hydra:job.num}``.

    It parses one anew at each access otherwise, which is a fifth of the time that the jobs of a
    sweep take to check. What a tree stands for is still worked out at each access.
    """
    module: Any = omegaconf.base
    if not hasattr(module.parse, "cache_info"):
        module.parse = functools.lru_cache(maxsize=1000)(module.parse)
