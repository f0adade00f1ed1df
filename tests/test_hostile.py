"""Input from a stranger: files that hang, burst, lie or carry code, and odd but fair input."""

import bz2
import gzip
import io
import lzma
import os
import signal
import socket
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from src.data import Splitting
from src.data.csv import Csv
from src.data.idx import Idx
from src.data.mnist import read_cache
from src.data.npz import Npz
from src.experiment.predictions import Predictions
from src.nn.layers import Sigmoid
from src.nn.network import MLP
from src.nn.weights import load_weights
from src.support.archives import read_arrays
from src.support.errors import ConfigError, DataError
from src.support.input_files import MAX_BYTES
from tests.conftest import Ended

Invoke = Callable[..., Ended]

ALL = Splitting(train=None, val=0, test=0)
NETWORK = MLP(4, (3,), 2, Sigmoid()).layers
MIB = 1024**2


@pytest.fixture(autouse=True)
def _no_hang() -> Iterator[None]:
    """Fail a test that waits for ever, instead of waiting with it."""

    def give_up(*_: Any) -> None:
        raise AssertionError("the reader hangs")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(120)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def _read_idx(path: Path) -> object:
    path.rename(path.parent / "train-images-idx3-ubyte")
    return Idx(path=path.parent, split=ALL).load()


READERS: dict[str, Callable[[Path], object]] = {
    "a.csv": lambda path: Csv(path=path, split=ALL).load(),
    "a.csv.gz": lambda path: Csv(path=path, split=ALL).load(),
    "a.npz": lambda path: Npz(path=path, split=ALL).load(),
    "idx": _read_idx,
    "weights.npz": lambda path: load_weights(path, NETWORK, np.float32),
    "predictions.npz": Predictions.load,
    "mnist.npy": read_cache,
}


def fault(read: Callable[[Path], object], path: Path) -> str:
    """Return the one line with which a reader refuses a file."""
    with pytest.raises(DataError) as caught:
        read(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ─── What is not a regular file ───


@pytest.mark.parametrize("name", READERS)
def test_a_fifo_is_refused_instead_of_waited_for(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    assert "is a FIFO; a regular file is needed" in fault(READERS[name], tmp_path / name)


@pytest.mark.parametrize("name", READERS)
def test_a_device_is_refused_instead_of_read_for_ever(tmp_path: Path, name: str) -> None:
    (tmp_path / name).symlink_to("/dev/zero")
    assert "is a device; a regular file is needed" in fault(READERS[name], tmp_path / name)


@pytest.mark.parametrize("name", READERS)
def test_a_socket_and_a_folder_are_refused(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder" / name).mkdir(parents=True)
    assert "Is a directory" in fault(READERS[name], tmp_path / "folder" / name)
    monkeypatch.chdir(tmp_path)  # the address of a socket must be short
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(name)
        assert "is a socket; a regular file is needed" in fault(READERS[name], tmp_path / name)


@pytest.mark.parametrize("name", [name for name in READERS if name != "idx"])
@pytest.mark.parametrize("path", ["no\0path", "n" * 5000, "~nobody-of-this-name/x"])
def test_a_path_that_cannot_be_is_refused_in_a_line(name: str, path: str) -> None:
    fault(READERS[name], Path(path))


@pytest.mark.parametrize("path", ["no\0path", "n" * 5000, "~nobody-of-this-name/x"])
def test_a_folder_that_cannot_be_is_refused_in_a_line(path: str) -> None:
    fault(lambda path: Idx(path=path, split=ALL).load(), Path(path))


# ─── What bursts ───


def _zeros() -> bytes:
    return bytes(64 * MIB)


def _idx_bomb() -> bytes:
    shape = np.array([64, 1024, 1024], ">u4").tobytes()
    return gzip.compress(b"\0\0\x08\x03" + shape + _zeros(), 1)


def _archive(arrays: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in arrays.items():
            archive.writestr(f"{name}.npy", content)
    return file.getvalue()


def _npy(array: npt.NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, allow_pickle=False)
    return file.getvalue()


def _npz_bomb() -> bytes:
    return _archive({"x_train": _npy(np.zeros((64, MIB), np.uint8))})


BOMBS: dict[str, Callable[[], bytes]] = {
    "idx": _idx_bomb,
    "a.csv": lambda: b"1,2\n" * MIB,
    "a.csv.gz": lambda: gzip.compress(b"1,2\n" * (16 * MIB), 1),
    "a.csv.xz": lambda: lzma.compress(b"1,2\n" * (16 * MIB), preset=0),
    "a.csv.bz2": lambda: bz2.compress(b"\n" * (16 * MIB)),
    "a.npz": _npz_bomb,
    "weights.npz": _npz_bomb,
    "predictions.npz": _npz_bomb,
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_by_the_limit_before_it_takes_memory(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).write_bytes(BOMBS[name]())
    monkeypatch.setenv(MAX_BYTES, str(MIB))
    read = READERS.get(name, READERS["a.csv"])
    tracemalloc.start()
    try:
        message = fault(read, tmp_path / name)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert f"1,048,576 bytes; set {MAX_BYTES} to raise the limit" in message
    assert peak < 16 * MIB


def test_a_line_that_never_ends_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(_zeros(), 1))
    message = fault(READERS["a.csv.gz"], tmp_path / "a.csv.gz")
    assert message.endswith("has a line of more than 16,777,216 bytes; not a CSV of images")


def test_the_limit_can_be_raised_and_lowered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.npz"
    images = np.zeros((20, 2, 2), np.uint8)
    path.write_bytes(_archive({"x_train": _npy(images), "y_train": _npy(images[:, 0, 0])}))
    monkeypatch.setenv(MAX_BYTES, "200")
    assert MAX_BYTES in fault(READERS["a.npz"], path)
    monkeypatch.setenv(MAX_BYTES, "2000")
    READERS["a.npz"](path)


@pytest.mark.parametrize("limit", ["0", "-1", "2G", "1e9", "٣", "9" * 400])
def test_a_limit_that_is_no_number_of_bytes_is_named(
    tmp_path: Path, limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MAX_BYTES, limit)
    (tmp_path / "a.csv").write_text("1,2\n")
    with pytest.raises(ConfigError, match=f"^{MAX_BYTES}=.{{1,60}}: must be a number of bytes"):
        READERS["a.csv"](tmp_path / "a.csv")


# ─── What lies or is damaged ───


@pytest.mark.parametrize("compress", [lzma.compress, bz2.compress, gzip.compress])
@pytest.mark.parametrize("harm", ["cut", "flipped"])
def test_a_damaged_compressed_csv_is_named(
    tmp_path: Path, compress: Callable[[bytes], bytes], harm: str
) -> None:
    names = {lzma.compress: "xz", bz2.compress: "bz2", gzip.compress: "gz"}
    content = bytearray(compress(b"1,2,3,4,5\n" * 200))
    if harm == "cut":
        del content[-8:]
    else:
        content[len(content) // 2] ^= 0xFF
    path = tmp_path / f"a.csv.{names[compress]}"
    path.write_bytes(content)
    assert fault(READERS["a.csv"], path).startswith(f"data.path={path}: ")


HEADER = "{{'descr': '{}', 'fortran_order': False, 'shape': {}}}"


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [
        ("|u1", "(1000000000000,)"),
        ("|u1", "(4611686018427387904, 4)"),  # the product is 0 in 64 bits
        ("<f8", "(-1, 2)"),
        ("<f8", "(-2, -2)"),
        ("|O", "(2,)"),
        ("<f8", "(9,)" * 50),
        ("nope", "(2,)"),
    ],
)
def test_an_array_that_announces_what_is_not_there_is_refused(
    tmp_path: Path, dtype: str, shape: str
) -> None:
    header = HEADER.format(dtype, shape).encode() + b"\n"
    content = b"\x93NUMPY\x01\0" + len(header).to_bytes(2, "little") + header + bytes(16)
    path = tmp_path / "a.npz"
    path.write_bytes(_archive({"x_train": content}))
    message = fault(read_arrays, path)
    assert message.startswith(f"{path}: not a readable .npz of plain arrays (")


def test_methods_that_numpy_does_not_write_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    for method in (zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2):
        path.write_bytes(_archive({"a": _npy(np.zeros(3))}, method))
        assert "a method that NumPy does not write" in fault(read_arrays, path)


def test_an_array_that_an_archive_holds_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", _npy(np.array(1.0)))
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a.npy", _npy(np.array(2.0)))
    assert "it holds a twice" in fault(read_arrays, path)


def test_names_in_an_archive_lead_nowhere(tmp_path: Path) -> None:
    folder = tmp_path / "in" / "here"
    folder.mkdir(parents=True)
    path = folder / "a.npz"
    path.write_bytes(_archive({"../../escaped": _npy(np.zeros(3)), "/a": _npy(np.zeros(3))}))
    assert set(read_arrays(path)) == {"../../escaped", "/a"}
    assert list(tmp_path.rglob("*.np*")) == [path]


def _weights(path: Path, value: float) -> None:
    np.savez(
        path,
        W1=np.full((4, 3), value),
        b1=np.zeros(3),
        W2=np.zeros((3, 2)),
        b2=np.zeros(2),
    )


def test_weights_too_large_for_the_precision_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.npz"
    _weights(path, -1e39)
    message = fault(READERS["weights.npz"], path)
    assert message == (
        f"{path}: W1 holds a value of size 1e+39, too large for float32; "
        "its values must be at most 3.4e+38"
    )
    (W1, _), *_ = load_weights(path, NETWORK, np.float64)
    assert (W1 == -1e39).all()


@pytest.mark.parametrize(
    "changed",
    [
        {"labels": np.zeros((3, 2), int)},
        {"labels": np.array(["1", "2", "3"])},
        {"labels": np.zeros(3)},
        {"predicted": np.zeros(2, int)},
        {"probabilities": np.zeros((2, 2))},
        {"probabilities": np.zeros(3)},
        {"probabilities": np.zeros((3, 2), complex)},
        {"part": np.array(3)},
        {"samples": np.array(["a", "b"])},
    ],
    ids=str,
)
def test_predictions_of_other_types_or_shapes_are_refused(
    tmp_path: Path, changed: dict[str, npt.NDArray[Any]]
) -> None:
    arrays: dict[str, Any] = {
        "part": np.array("val"),
        "samples": np.array("0" * 32),
        "labels": np.zeros(3, int),
        "predicted": np.zeros(3, int),
        "probabilities": np.zeros((3, 2)),
    }
    path = tmp_path / "predictions.npz"
    np.savez(path, **arrays)
    assert len(Predictions.load(path).labels) == 3
    np.savez(path, **{**arrays, **changed})
    assert "its arrays are not predictions" in fault(Predictions.load, path)


# ─── At the command line ───


def refused(invoke: Invoke, *arguments: str) -> str:
    """Return the one line with which the command refuses; it leaves nothing behind."""
    ended = invoke(*arguments)
    assert ended.code == 2, ended
    assert ended.out == ""
    assert ended.err.startswith("error ")
    assert ended.err.count("\n") == 1
    assert len(ended.err) < 700
    assert not ended.outputs.exists()
    return ended.err


@pytest.mark.parametrize("choice", ["data=csv data.path", "data=npz data.path"])
def test_the_command_refuses_a_fifo_at_once(invoke: Invoke, tmp_path: Path, choice: str) -> None:
    os.mkfifo(tmp_path / "x.npz")
    message = refused(invoke, *f"{choice}={tmp_path}/x.npz".split(" "))
    assert "is a FIFO; a regular file is needed" in message


def test_the_command_refuses_weights_from_a_fifo(invoke: Invoke, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.npz")
    message = refused(invoke, "initializer=file", f"initializer.path={tmp_path}/x.npz")
    assert "is a FIFO; a regular file is needed" in message
