"""Every reader of a file, given damaged files and free bytes by Hypothesis.

The same readers are fuzzed for hours, guided by coverage: ``make fuzz``.
"""

import contextlib
import copy
import functools
import io
import itertools
import json
import resource
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hypothesis_numpy

from src.support.input_files import MAX_BYTES
from tests.fuzz.readers import LIMIT, READERS, Reader, samples

SLOW = "config.yaml"  # it builds a whole experiment
EXAMPLES = {name: 60 if name == SLOW else 250 for name in READERS}
MOST_MEMORY = 32 * LIMIT  # bytes that a reader may take at once; xz alone takes 16 MiB
MOST_CALLS = 2_000_000  # Python's and C's, of a reader: work that no file of this size needs
# Of these a checksum covers all that is read: they are read as they were, or refused.
COVERED = ("checkpoint",)


# What parsers stumble over. A network of 99999999 units is refused for memory, not tried.
WORDS = [
    *(b"nan", b"-inf", b"1e999", b"-1", b"99999999999999999999", b"null", b"true", b"[]", b"{}"),
    *(b'""', b"\n", b"\r", b",,", b"\x00", b"\xef\xbb\xbf", "é".encode(), b"\x93NUMPY", b"PK"),
    *(b"|O", b"'<f8'", b"(-1,)", b"(4294967296, 4294967296)", b"&a", b"*a", b"${oc.env:HOME}"),
    *(b"[" * 3000, b"{" * 3000, b'{"a":' * 1000, b"- " * 1000),
]
# A change: its place as a share of the file, the bytes that it replaces, and what takes their place
# (a number repeats them so many times).
CHANGES = st.tuples(
    st.floats(0, 1, width=16),
    st.integers(0, 64),
    st.one_of(st.integers(0, 5), st.binary(max_size=8), st.sampled_from(WORDS)),
)


def damaged(content: bytes, changes: list[tuple[float, int, int | bytes]]) -> bytes:
    """Return a file with some changes."""
    for place, length, new in changes:
        at = int(place * len(content))
        there = content[at : at + length]
        content = (
            content[:at] + (new if isinstance(new, bytes) else there * new) + content[at + length :]
        )
    return content


def flip(content: bytes, place: float, bit: int) -> bytes:
    """Return a file with one bit changed."""
    at = min(int(place * len(content)), len(content) - 1)
    return content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :]


@pytest.fixture
def reader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    monkeypatch.setenv(MAX_BYTES, str(LIMIT))
    made = Reader(request.param)
    with bounded_memory():
        yield made
    made.close()


@contextlib.contextmanager
def bounded_memory() -> Iterator[None]:
    """Let this process have a gigabyte more than it has: what asks for it gets a MemoryError."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + 2**30, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def work(reader: Reader, content: bytes) -> list[Any] | None:
    """Give a file to a reader, and check that it takes a limited amount of work and memory."""
    calls = itertools.count()
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]

    def count(*_: Any) -> None:
        assert next(calls) < MOST_CALLS, "it does not come to an end"

    sys.setprofile(count)
    try:
        found = reader(content)
    finally:
        sys.setprofile(None)
    peak = tracemalloc.get_traced_memory()[1] - before
    assert peak < MOST_MEMORY, f"it took {peak:,} bytes"
    return found


def equal(ours: list[Any], theirs: list[Any]) -> bool:
    """Return whether two readings have the same values, of the same types."""

    def plain(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return value.dtype.str, value.shape, value.tobytes()
        return value

    return repr([plain(one) for one in ours]) == repr([plain(one) for one in theirs])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("reader", "name"), [(name, name) for name in READERS], indirect=["reader"]
)
def test_damaged_files_and_free_bytes_are_refused_in_a_line_or_read_right(
    reader: Reader, name: str
) -> None:
    sound = samples(name)
    read = [reader(content) for content in sound]
    whole = [one for one in read if one is not None]
    assert len(whole) >= 1, "no valid file is read"
    changed = st.builds(damaged, st.sampled_from(sound), st.lists(CHANGES, min_size=1, max_size=4))
    flipped = st.builds(flip, st.sampled_from(sound), st.floats(0, 1), st.integers(0, 7))
    files = st.one_of(changed, flipped, st.binary(max_size=300))

    @settings(
        max_examples=EXAMPLES[name],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(content=files)
    def try_it(content: bytes) -> None:
        found = work(reader, content)
        if found is not None and name in COVERED:
            assert any(equal(found, one) for one in whole)

    tracemalloc.start()
    try:
        try_it()
    finally:
        tracemalloc.stop()


def test_what_is_untouched_is_read_as_it_was_written() -> None:
    images, labels = np.arange(24).reshape(6, 4), np.arange(6) % 3
    for name in ("csv", "csv.gz", "csv.bz2", "csv.xz", "npz"):
        reader = Reader(name)
        found = reader(samples(name)[0])
        assert found is not None
        if name == "npz":
            np.testing.assert_array_equal(found[0], images)
        else:
            assert found[0].tolist()[5] == [5, 6, 255, 0]
        np.testing.assert_array_equal(found[1], labels)
        reader.close()


# What a stranger may put in the place of a value: of any type and size.
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=4,
)


def places(values: Any, *keys: Any) -> list[tuple[Any, ...]]:
    """Return the keys to every value within a JSON value."""
    inner = values.items() if isinstance(values, dict) else enumerate(values)
    found = []
    for key, value in inner:
        found.append((*keys, key))
        if isinstance(value, dict | list):
            found += places(value, *keys, key)
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("reader", "name"),
    [(name, name) for name in ("run.json", "result.json", "mlflow.json")],
    indirect=["reader"],
)
def test_values_of_other_types_are_refused_in_a_line_or_harmless(reader: Reader, name: str) -> None:
    sound = json.loads(samples(name)[-1])

    @settings(max_examples=EXAMPLES[name])
    @given(place=st.sampled_from(places(sound)), value=VALUES)
    def try_it(place: tuple[Any, ...], value: Any) -> None:
        forged = copy.deepcopy(sound)
        *way, last = place
        functools.reduce(lambda inner, key: inner[key], way, forged)[last] = value
        reader(json.dumps(forged).encode())

    try_it()


ARRAYS = st.one_of(
    hypothesis_numpy.arrays(
        st.sampled_from([np.dtype(name) for name in ("f8", "f4", "u1", "i8", "?", "c8", "U3")]),
        hypothesis_numpy.array_shapes(min_dims=0, max_side=6),
    ),
    VALUES.map(lambda value: np.frombuffer(json.dumps(value).encode(), np.uint8)),
)


@pytest.mark.slow
@pytest.mark.parametrize("reader", ["sealed checkpoint"], indirect=True)
def test_a_forged_checkpoint_is_refused_in_a_line_or_harmless(reader: Reader) -> None:
    contents = []
    for content in samples("sealed checkpoint"):
        with np.load(io.BytesIO(content)) as archive:
            contents.append(dict(archive))
    about = json.loads(contents[-1]["about"].tobytes())

    @settings(max_examples=EXAMPLES["checkpoint"])
    @given(
        arrays=st.sampled_from(contents),
        name=st.sampled_from(sorted(contents[-1])),
        array=ARRAYS,
        place=st.none() | st.sampled_from(places(about)),
        value=VALUES,
    )
    def try_it(
        arrays: dict[str, Any], name: str, array: Any, place: tuple[Any, ...] | None, value: Any
    ) -> None:
        forged = dict(arrays)
        if place is None:
            forged[name] = array
        else:
            *way, last = place
            told = json.loads(arrays["about"].tobytes())
            try:
                functools.reduce(lambda inner, key: inner[key], way, told)[last] = value
            except (KeyError, IndexError):  # this one has no such place
                return
            forged["about"] = np.frombuffer(json.dumps(told).encode(), np.uint8)
        content = io.BytesIO()
        np.savez(content, allow_pickle=False, **forged)
        reader(content.getvalue())

    try_it()
