"""Labelled images, from wherever they lie to the three sets that a run needs."""

from src.data.csv import Csv
from src.data.dataset import Dataset, Samples, Source, Split
from src.data.digits import Digits
from src.data.idx import Idx
from src.data.mnist import Mnist
from src.data.npz import Npz
from src.data.splitting import Splitting

__all__ = [
    "Csv",
    "Dataset",
    "Digits",
    "Idx",
    "Mnist",
    "Npz",
    "Samples",
    "Source",
    "Split",
    "Splitting",
]
