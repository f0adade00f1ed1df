"""How many networks train faster as a stack, by size and batching, for ``src.sweep.grouping``.

``python -m tests.benchmarks.stacks`` prints, for each number of networks, how many times faster a
stack of them is than they are one by one, on one core: first with one order of the samples for all,
then with one order for each.
"""

import argparse
from dataclasses import replace

import numpy as np
from rich.console import Console
from rich.table import Table

from src.nn.initializers import Random, XavierNormal, Zeros
from src.nn.layers import ReLU
from src.nn.losses import SoftmaxCrossEntropy
from src.nn.network import MLP, parameter_count
from src.support.randomness import stream
from src.support.threads import use_at_most
from src.training.batching import Batching, Full, Mini, Sample
from src.training.engines.base import Arrays
from src.training.loop import train, train_one
from src.training.optimizers import SGD, Adam, Optimizer
from src.training.training_run import Epoch, TrainingRun
from tests.benchmarks.images import load

SHAPES = ((16, 16), (30,), (64,), (128,), (300,), (100, 200))
TOGETHER = (2, 4, 8, 16, 32, 64)
BATCHINGS: dict[str, tuple[Batching, int]] = {  # and how many samples are trained on
    "per sample": (Sample(), 640),
    "batch 10": (Mini(10), 2_000),
    "batch 32": (Mini(32), 3_200),
    "batch 128": (Mini(128), 6_400),
    "full batch": (Full(), 8_000),
}
OPTIMIZERS: dict[str, Optimizer] = {"sgd": SGD(), "momentum": SGD(momentum=0.9), "adam": Adam()}


def main() -> None:
    """Print a table for each batching."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.stacks", description=main.__doc__
    )
    parser.add_argument(
        "--only", default="", metavar="SUBSTRING", help="batchings with this in their name"
    )
    parser.add_argument(
        "--optimizer", default="sgd", choices=OPTIMIZERS, help="with this (default: sgd)"
    )
    asked = parser.parse_args()
    use_at_most(1)
    images = load()
    console = Console(width=140)
    optimizer = OPTIMIZERS[asked.optimizer]
    for name, (batching, samples) in BATCHINGS.items():
        if asked.only not in name:
            continue
        table = Table(
            "hidden",
            "weights",
            *(f"{k}" for k in TOGETHER),
            title=f"{name}: one order · an order each",
        )
        data = Arrays(images.pixels[:samples], images.labels[:samples], 1 / 255, np.float32)
        for hidden in SHAPES:
            network = MLP(784, hidden, 10, ReLU()).layers
            start = Random(XavierNormal(), Zeros()).initialize(
                network, stream(0, "weights"), np.float32
            )
            run = TrainingRun(
                network,
                {"train": data},
                SoftmaxCrossEntropy(),
                batching,
                optimizer,
                lr=0.01,
                epochs=4,
                seed=0,
            )
            cells = []
            for k in TOGETHER:
                alone = _fastest([epoch.seconds for epoch in train_one(run, start)])
                ratios = []
                for seeds in ([0] * k, range(k)):
                    runs = [replace(run, seed=seed) for seed in seeds]
                    epochs = [records[0] for records in train(runs, [start] * k)]
                    ratios.append(
                        alone
                        / _fastest([epoch.seconds for epoch in epochs if isinstance(epoch, Epoch)])
                    )
                cells.append(" · ".join(f"{ratio:.2f}" for ratio in ratios))
            table.add_row(
                "-".join(map(str, hidden)), f"{parameter_count(network) * 4 / 1024:.0f} KiB", *cells
            )
        console.print(table)


def _fastest(seconds: list[float]) -> float:
    """Return what the fastest epoch took, given how long it was to the end of each."""
    return float(np.diff(seconds, prepend=0).min())


if __name__ == "__main__":
    main()
