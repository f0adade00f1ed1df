"""Input from a stranger: files that hang, burst, lie or carry code, and odd but fair input."""

import bz2
import gzip
import io
import itertools
import lzma
import os
import re
import signal
import socket
import subprocess
import sys
import time
import tracemalloc
import types
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from mlflow import MlflowClient

from src import api
from src.config.kept_configuration import check_kept
from src.data import Splitting
from src.data.csv import Csv
from src.data.idx import Idx
from src.data.mnist import read_cache
from src.data.npz import Npz
from src.nn.layers import Sigmoid
from src.nn.network import MLP
from src.nn.weights import load_weights
from src.runs.predictions import Predictions
from src.support.archives import read_arrays
from src.support.errors import ConfigError, DataError
from src.support.input_files import MAX_BYTES
from tests.conftest import ROOT, Ended

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


@pytest.mark.parametrize("content", [b"\xdb\xb1\n\xc7", b"1,2\n1,x\n\xff", b"\xdb\xb1\n1,2\n"])
def test_a_csv_that_is_faulty_and_no_text_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    assert fault(READERS["a.csv"], tmp_path / "a.csv").startswith(f"data.path={tmp_path}/a.csv: ")


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


LONG = "x" * 10_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["epochs=99999999999999999999999999"], "must be 1,000,000,000 or less"),
        (["hydra.output_subdir=../../../x"], "must be a folder within the one of the run"),
        (["hydra.output_subdir=/tmp/x"], "must be a folder within the one of the run"),
        (["hydra.job.name=../x"], "hydra.job.name=../x: must be a file's name"),
        (["hydra.verbose=nope"], "hydra.verbose=nope: must be true, false or a list of loggers"),
        (["hydra.verbose=3"], "hydra.verbose=3: must be true, false or a list of loggers"),
        (["hydra.launcher._target_=os.nope"], "must be a plugin of Hydra: choose a launcher with"),
        (["hydra.sweeper._target_=os.nope"], "must be a plugin of Hydra: choose a sweeper with"),
        (["hydra.job_logging.root.level=nope"], "must be DEBUG, INFO, WARNING, ERROR or CRITICAL"),
        (["hydra.job_logging.root.handlers=[nope]"], "must be a list of file"),
        (["hydra.job_logging.handlers.file.formatter=nope"], "no such formatter"),
        (["hydra.job_logging.handlers.file.class=nope"], "must be logging.FileHandler, logging"),
        (["hydra.job_logging.handlers=3"], "handlers=3: must be settings by name"),
        (["hydra.job_logging.handlers.file.filename=/tmp/x"], "filename=/tmp/x: must be ${hydra"),
        (["hydra.job_logging.version=nope"], "version=nope: must be 1"),
        (["tracking.uri=sqlite:////dev/null"], "can't be opened: it is not a regular file"),
        ([f"lr={LONG}"], "xxx...: must be a number"),
        ([LONG], "xxx...: a key has at most 200 bytes"),
        ([f"{LONG}=1"], "xxx...: a key has at most 200 bytes"),
        ([f"tags.{LONG}=1"], "xxx...: a key has at most 200 bytes"),
        ([f"model={LONG}"], "xxx...: an option has at most 200 bytes"),
        ([f"model={'a/' * 150}x"], "an option has at most 200 bytes"),
        (["data=csv", f"data.path={LONG}"], "File name too long"),
        (["data=idx", f"data.path={LONG}"], "File name too long"),
        ([f"outputs={LONG}"], "File name too long"),
        ([f"hydra.run.dir={LONG}"], "File name too long"),
        (["-m", "seed=0,1", f"hydra.sweep.dir={LONG}"], "File name too long"),
        (["-m", f"{LONG}=1,2"], "xxx...: a key has at most 200 bytes"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_bad_input_is_refused_in_a_line_and_leaves_nothing(
    invoke: Invoke, tmp_path: Path, arguments: list[str], message: str
) -> None:
    assert message in refused(invoke, *arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("subdir", ["../x", "/tmp/x", "y" * 300])
def test_folders_of_jobs_lie_within_the_sweep_s(
    invoke: Invoke, tmp_path: Path, subdir: str
) -> None:
    ended = invoke("-m", "seed=0,1", f"hydra.sweep.subdir={subdir}")
    assert ended.code == 2
    assert "must be a folder within the one of the run or the sweep" in ended.err
    assert list(tmp_path.iterdir()) == []


# ─── Files of configuration that would run code ───

SLY: dict[str, tuple[str, str]] = {  # by name: the node of a recipe, and a part of the refusal
    "callback": (
        "callbacks: {sly: {_target_: tests.sly.run, marker: MARKER}}",
        "hydra.callbacks.sly._target_=tests.sly.run: a callback runs code",
    ),
    "callback's argument": (
        "callbacks: {preflight: {_target_: src.run.Preflight, x: {_target_: tests.sly.run}}}",
        "hydra.callbacks.preflight.x._target_=tests.sly.run: a callback runs code",
    ),
    "callback by interpolation": (
        'callbacks: {preflight: "${sly}"}',
        "hydra.callbacks.preflight=${sly}: must be a group of settings",
    ),
    "callbacks by interpolation": ('callbacks: "${sly}"', "hydra.callbacks=${sly}: must be"),
    "target by interpolation": (
        'callbacks: {preflight: {_target_: "${note}"}}',
        "hydra.callbacks.preflight._target_=${note}: a callback runs code",
    ),
    "log formatter": (
        "job_logging: {formatters: {plain: {(): tests.sly.run, marker: MARKER}}}",
        "hydra.job_logging.formatters.plain.marker=",
    ),
    "log factory": (
        "job_logging: {formatters: {plain: {(): tests.sly.run}}}",
        "hydra.job_logging.formatters.plain.()=tests.sly.run: must be logging.Formatter",
    ),
    "log handler": (
        "job_logging: {handlers: {sly: {class: subprocess.Popen, args: [touch, MARKER]}}}",
        "hydra.job_logging.handlers.sly.class=subprocess.Popen: must be logging.FileHandler",
    ),
    "log file": (
        "job_logging: {handlers: {file: {filename: MARKER}}}",
        "hydra.job_logging.handlers.file.filename=",
    ),
    "log file above": (
        "job_logging: {handlers: {file: {filename: '${hydra.runtime.output_dir}/../../x'}}}",
        "hydra.job_logging.handlers.file.filename=",
    ),
    "log stream": (
        "job_logging: {handlers: {o: {class: logging.StreamHandler, stream: ext://tests.sly}}}",
        "hydra.job_logging.handlers.o.stream=ext://tests.sly: must be ext://sys.stdout",
    ),
    "log filter": (
        "job_logging: {filters: {sly: {(): tests.sly.run}}}",
        "hydra.job_logging.filters=",
    ),
    "Hydra's own log": (
        "hydra_logging: {root: {}, handlers: {sly: {(): tests.sly.run}}}",
        "hydra.hydra_logging.handlers.sly.class=None: must be logging.FileHandler",
    ),
    "launcher": (
        "launcher: {_target_: tests.sly.run}",
        "hydra.launcher._target_=tests.sly.run: must be a plugin of Hydra",
    ),
    "launcher's argument": (
        "launcher: {workers: {_target_: tests.sly.run}}",
        "hydra.launcher.workers._target_=tests.sly.run: set in a file. It may run code",
    ),
    "launcher's commands": (
        "launcher: {setup: [touch MARKER]}",
        "hydra.launcher.setup.0=touch ",
    ),
    "launcher by interpolation": ('launcher: "${sly}"', "hydra.launcher=${sly}: must be"),
    "sweeper": (
        "sweeper: {_target_: tests.sly.run}",
        "hydra.sweeper._target_=tests.sly.run: must be a plugin of Hydra",
    ),
    "sweep over Hydra's settings": (
        "sweeper: {params: {hydra.callbacks.preflight._target_: tests.sly.run}}",
        "which can't sweep over settings of Hydra",
    ),
    "environment": (
        "job: {env_set: {PATH: MARKER}}",
        "but environment variables can be set only on the command line",
    ),
    "subfolder": ("output_subdir: ../../x", "hydra.output_subdir=../../x: must be a folder"),
}


def sly(tmp_path: Path, node: str) -> list[str]:
    """Write a recipe that sets Hydra's node, and return the arguments that choose it."""
    conf = tmp_path / "conf" / "experiment"
    conf.mkdir(parents=True)
    recipe = "# @package _global_\nsly: {_target_: tests.sly.run}\nnote: tests.sly.run\nhydra:\n"
    marker = tmp_path / "marker"
    (conf / "sly.yaml").write_text(f"{recipe}  {node.replace('MARKER', str(marker))}\n")
    return [f"--config-dir={tmp_path / 'conf'}", "experiment=sly", "epochs=1"]


@pytest.mark.parametrize("sweep", [False, True], ids=["run", "sweep"])
@pytest.mark.parametrize("name", SLY)
def test_a_recipe_cannot_run_code_through_hydra(
    invoke: Invoke, tmp_path: Path, name: str, sweep: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, message = SLY[name]
    ran = []
    module = types.ModuleType("tests.sly")
    module.run = lambda *_, **__: ran.append(True)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tests.sly", module)
    arguments = sly(tmp_path, node)
    ended = invoke(*(["-m", *arguments, "seed=0,1"] if sweep else arguments))
    assert ended.code == 2, ended
    assert message in ended.err
    assert ended.err.count("\n") == 1
    assert not ran
    assert [path.name for path in tmp_path.iterdir()] == ["conf"]


@pytest.mark.slow
def test_what_a_recipe_may_set_of_hydra_still_works(invoke: Invoke, tmp_path: Path) -> None:
    node = "job_logging: {root: {level: DEBUG}}\n  launcher: {workers: 1}\n  verbose: [src]"
    arguments = sly(tmp_path, node)
    path = tmp_path / "conf" / "experiment" / "sly.yaml"
    path.write_text(path.read_text().replace("sly: {_target_: tests.sly.run}\n", ""))
    ended = invoke(*arguments)
    assert ended.code == 0, ended.err


def test_python_s_callers_are_protected_too(tmp_path: Path) -> None:
    node, message = SLY["log handler"]
    folder, *_ = sly(tmp_path, node)
    path = folder.removeprefix("--config-dir=")
    with pytest.raises(ConfigError, match=re.escape(message)):
        api.train(f"hydra.searchpath=[file://{path}]", "experiment=sly", show=False)


# ─── Odd but fair ───


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["with spaces", "выходы 輸出 é", "50% #1?", "a'b\"c"])
def test_folders_of_any_name_keep_a_run(tmp_path: Path, folder: str) -> None:
    given = _csv_of(tmp_path / "a.csv", [0, 1] * 10)
    trained = api.train(f"outputs='{tmp_path}/{_quoted(folder)}'", *given, show=False)
    assert trained.folder.is_relative_to(tmp_path / folder)
    assert (tmp_path / folder / "mlflow.db").is_file()
    assert (trained.folder / "result.json").is_file()


def _quoted(text: str) -> str:
    return text.replace("'", "\\'")


NAMES = [
    "' OR 1=1; DROP TABLE runs; --",
    "../../../etc/passwd",
    "<script>alert(1)</script>",
    "[red]not red[/red] :x:",
    "%s %n %d {0}",
    "\u202eright to left",
    "e\u0301 Z\u0351\u036b\u0343",
    "👩‍👩‍👧 家族",
    "NULL",
    "-rf /",
    "a" * 5000,
]


@pytest.mark.slow
def test_a_run_may_have_any_name(tmp_path: Path) -> None:
    given = [f"outputs={tmp_path}/o", *_csv_of(tmp_path / "a.csv", [0, 1] * 10)]
    for name in NAMES:
        trained = api.train(*given, f"name='{_quoted(name)}'", show=False)
        run = MlflowClient(f"sqlite:///{tmp_path}/o/mlflow.db").get_run(str(trained.run_id))
        assert str(run.info.run_name)[:100] == name[:100]
        assert trained.folder.parent == tmp_path / "o" / "runs"


def _csv_of(path: Path, labels: list[int]) -> list[str]:
    path.write_text("".join(f"{label},{i},3,0,9\n" for i, label in enumerate(labels)))
    classes = max(labels) + 1
    return [
        "data=csv",
        f"data.path={path}",
        "model.inputs=4",
        f"model.outputs={classes}",
        "epochs=2",
        "data.split.shuffle=false",
        "data.split.stratify=false",
        "batching=full",
    ]


@pytest.mark.slow
def test_one_sample_trains(tmp_path: Path) -> None:
    given = [*_csv_of(tmp_path / "a.csv", [1]), "data.split.val=0", "data.split.test=0"]
    settings = [f"outputs={tmp_path}/o", "metric=train/accuracy"]
    trained = api.train(*given, *settings, show=False)
    assert len(trained.history) == 2


@pytest.mark.slow
def test_a_class_may_be_missing_from_the_training_part(tmp_path: Path) -> None:
    given = _csv_of(tmp_path / "a.csv", [0, 0, 1, 1, 0, 1, 2, 0, 2, 1])
    settings = [f"outputs={tmp_path}/o", "data.split.val=2", "data.split.test=2"]
    trained = api.train(*given, *settings, show=False)
    assert set(trained.predictions.labels.tolist()) == {2, 1}
    assert trained.predictions.probabilities.shape == (2, 3)


@pytest.mark.slow
def test_it_runs_without_assertions(tmp_path: Path) -> None:
    command = [sys.executable, "-O", "-m", "src.run", f"outputs={tmp_path}", "epochs=1"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    damaged = tmp_path / "a.npz"
    damaged.write_bytes(b"PK")
    ended = subprocess.run(
        [*command, "data=npz", f"data.path={damaged}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_clock_that_jumps_back_a_day_harms_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = time.time, itertools.count()
    monkeypatch.setattr(time, "time", lambda: real() - (86_400 if next(calls) % 2 else 0))
    trained = api.train(f"outputs={tmp_path}", "epochs=3", show=False)
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    points = client.get_metric_history(str(trained.run_id), "val/loss")
    assert [point.step for point in points] == [1, 2, 3]
    assert client.get_run(str(trained.run_id)).info.status == "FINISHED"


@pytest.mark.parametrize("kind", ["FIFO", "aliases", "huge"])
def test_a_stranger_s_configuration_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    path = tmp_path / ".hydra" / "config.yaml"
    path.parent.mkdir()
    if kind == "FIFO":
        os.mkfifo(path)
    elif kind == "aliases":
        lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
        lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
        path.write_text("\n".join(lines))
    else:
        monkeypatch.setattr("src.support.input_files._SMALL", 1000)
        path.write_text("a: 1\n" * 1000)
    with pytest.raises(ConfigError, match=r"FIFO|aliases|more than 1,000 bytes"):
        check_kept(tmp_path)
