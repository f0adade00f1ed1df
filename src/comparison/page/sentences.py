"""Says in sentences how two configurations differ."""

from typing import TYPE_CHECKING

from src.comparison.page.wording import probability, real

if TYPE_CHECKING:
    from src.comparison.comparison import Pair
    from src.comparison.statistics import Samples


def pair_sentences(pair: "Pair", metric: str) -> list[str]:
    """Return what is known of two configurations: over their seeds, and on the same samples."""
    found = []
    if real(pair.difference) is not None:
        found.append(_over_seeds(pair, metric))
    if pair.samples is not None:
        found.append(_on_samples(pair, pair.samples))
    return found


def _over_seeds(pair: "Pair", metric: str) -> str:
    difference = f"{metric} differs by {pair.difference:+.4f} ({pair.first} minus {pair.second}"
    if real(pair.low) is None:
        return f"{difference}); with so few seeds there is no interval."
    over = "the same seeds" if pair.paired else "different seeds"
    ends = f"95 % interval {pair.low:+.4f} to {pair.high:+.4f}"
    return ", ".join([difference, ends, probability(pair.p), f"over {over})."])


def _on_samples(pair: "Pair", samples: "Samples") -> str:
    summed = f", summed over {samples.networks} networks each" if samples.networks > 1 else ""
    return (
        f"Of {samples.samples} test samples {pair.first} alone is right on {samples.only_first} "
        f"and {pair.second} alone on {samples.only_second}{summed}: the test accuracy differs by "
        f"{samples.difference:+.4f} (95 % interval {samples.low:+.4f} to {samples.high:+.4f}, "
        f"{probability(samples.p)}, {samples.method})."
    )
