"""Labelled images: read from a source, checked, and divided into three sets."""

import importlib
import pkgutil

from src.data.dataset import Dataset, Samples, Source, Split
from src.data.splitting import Splitting

__all__ = ["Dataset", "Samples", "Source", "Split", "Splitting"]

# A configuration can name any class whose module has been imported: here, every module of data.
for _module in pkgutil.iter_modules(__path__, f"{__name__}."):
    importlib.import_module(_module.name)
