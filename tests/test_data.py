"""Reading data: each format, each way in which a file can be wrong, and the division into sets."""

import contextlib
import gzip
import itertools
import json
import math
import os
import pickle
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from src.data import Dataset, Source, Splitting
from src.data.csv import Csv
from src.data.digits import Digits
from src.data.idx import Idx
from src.data.npz import Npz
from src.support.errors import DataError, InvalidValue
from tests.conftest import ROOT

Bytes = npt.NDArray[np.uint8]

EVERYTHING = Splitting(train=None, val=0, test=0)
OWN = Splitting(train=None, val=0, test="own")

# Twelve images, higher than wide so that height and width differ. No two pixels of one are equal.
IMAGES: Bytes = np.arange(12 * 3 * 2, dtype=np.uint8).reshape(12, 3, 2) * 3
LABELS: Bytes = np.arange(12, dtype=np.uint8) % 4
ROWS = IMAGES.reshape(12, 6)


def complaint(source: Source) -> str:
    """Return the one line with which the source refuses to be read."""
    with pytest.raises(DataError) as caught:
        source.load()
    message = str(caught.value)
    assert message
    assert "\n" not in message
    return message


def same(
    dataset: Dataset, images: npt.NDArray[Any] = ROWS, labels: npt.NDArray[Any] = LABELS
) -> bool:
    """Tell whether the training set is these samples in this order."""
    return np.array_equal(dataset.train.images, images) and np.array_equal(
        dataset.train.labels, labels
    )


# ─── scikit-learn's digits ───


def test_digits_are_the_bundled_ones_framed_to_28_by_28() -> None:
    from sklearn.datasets import load_digits

    bundled = load_digits()
    dataset = Digits(split=EVERYTHING).load()
    images = dataset.train.images.reshape(-1, 28, 28)
    assert images.dtype == np.uint8
    assert np.array_equal(dataset.train.labels, bundled.target)
    inner = images[:, 2:26, 2:26]
    assert images.sum(dtype=int) == inner.sum(dtype=int), "the frame of two pixels is black"
    for down, right in itertools.product(range(3), repeat=2):  # each of the 3×3 copies of a pixel
        assert (
            np.abs(inner[:, down::3, right::3] / 255 - bundled.images / 16).max()
            < 0.5 / 255 + 1e-12
        )


def test_digits_are_read_as_scikit_learn_reads_them() -> None:
    from sklearn.datasets import load_digits

    bundled = load_digits()
    samples = Digits(split=EVERYTHING).samples()
    pixels = np.rint(bundled.images * (255 / 16)).astype(np.uint8)
    images = np.pad(np.kron(pixels, np.ones((3, 3), np.uint8)), ((0, 0), (2, 2), (2, 2)))
    for ours, theirs in (
        (samples.images, images.reshape(-1, 784)),
        (samples.labels, bundled.target.astype(np.int64)),
    ):
        assert ours.dtype == theirs.dtype
        assert ours.tobytes() == theirs.tobytes()


@pytest.mark.parametrize("folders", [None, []])
def test_digits_without_scikit_learn(
    monkeypatch: pytest.MonkeyPatch, folders: list[str] | None
) -> None:
    spec = None
    if folders is not None:  # something else of its name
        spec = ModuleSpec("sklearn", None)
        spec.submodule_search_locations = folders
    monkeypatch.setattr("src.data.digits.find_spec", lambda _: spec)
    assert (
        complaint(Digits(split=EVERYTHING))
        == "data=digits: scikit-learn, which holds them, is not installed"
    )


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (None, "is missing"),
        (b"0,1,2\n", "Not a gzipped file .*"),
        (gzip.compress(b"0,1,2\n"), "is damaged: .*"),
        (gzip.compress(b"?" + b",0" * 64), "is damaged: .*"),
        (gzip.compress(b"300" + b",0" * 64), "is damaged: .*"),
        (gzip.compress(b"0" + b",0" * 64)[:-9], "is damaged: .*"),
        (gzip.compress(b"0" + b",0" * 64)[:10] + b"\xff" * 20, "is damaged: .*"),
    ],
    ids=["missing", "not gzip", "too short", "not a number", "no byte", "cut off", "no deflate"],
)
def test_digits_whose_file_is_missing_or_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None, what: str
) -> None:
    file = tmp_path / "datasets" / "data" / "digits.csv.gz"
    if content is not None:
        file.parent.mkdir(parents=True)
        file.write_bytes(content)
    spec = ModuleSpec("sklearn", None)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr("src.data.digits.find_spec", lambda _: spec)
    assert re.fullmatch(
        rf"data=digits: {re.escape(str(file))}: {what}; install scikit-learn again",
        complaint(Digits(split=EVERYTHING)),
    )


def test_digits_say_what_they_are() -> None:
    dataset = Digits(split=Splitting(train=None, val=180, test=360)).load()
    assert (dataset.name, dataset.features, dataset.classes, dataset.shape) == (
        "digits",
        784,
        10,
        (28, 28),
    )
    assert str(dataset) == "digits: 1,257 train, 180 val, 360 test, 28×28 pixels, 10 classes"


# ─── IDX ───


def idx(array: npt.NDArray[Any]) -> bytes:
    """Return the array in the form of an IDX file."""
    return (
        bytes([0, 0, 8, array.ndim])
        + np.array(array.shape, ">u4").tobytes()
        + array.astype(np.uint8).tobytes()
    )


def put_idx(folder: Path, names: str, images: Bytes = IMAGES, labels: Bytes = LABELS) -> Path:
    """Write a pair of files under names such as ``train-{}.gz``, and return their folder."""
    folder.mkdir(exist_ok=True)
    for kind, array in (("images-idx3-ubyte", images), ("labels-idx1-ubyte", labels)):
        content = idx(array)
        (folder / names.format(kind)).write_bytes(
            gzip.compress(content) if names.endswith(".gz") else content
        )
    return folder


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    """A folder with a plain training pair."""
    return put_idx(tmp_path / "shapes", "train-{}")


@pytest.mark.parametrize(
    "names",
    ["train-{}", "train-{}.gz", "emnist-letters-train-{}.gz", "my_train-{}", "kmnist.train-{}"],
)
@pytest.mark.parametrize("joint", ["-", "."])
def test_idx_files_are_found_under_each_of_their_names(
    tmp_path: Path, names: str, joint: str
) -> None:
    folder = put_idx(tmp_path / "shapes", names)
    for file in folder.iterdir():
        file.rename(folder / file.name.replace("-idx", f"{joint}idx"))
    dataset = Idx(path=folder, split=EVERYTHING).load()
    assert same(dataset)
    assert dataset.train.images.dtype == np.uint8
    assert (dataset.name, dataset.shape, dataset.classes) == ("shapes", (3, 2), 4)


@pytest.mark.parametrize("part", ["t10k", "test", "emnist-letters-test"])
def test_idx_test_pair_becomes_the_own_test_set(pair: Path, part: str) -> None:
    put_idx(pair, part + "-{}", 255 - IMAGES[:5], LABELS[:5])
    dataset = Idx(path=pair, split=OWN).load()
    assert same(dataset)
    assert np.array_equal(dataset.test.images, 255 - ROWS[:5])
    assert np.array_equal(dataset.test.labels, LABELS[:5])


def test_idx_files_that_lie_there_both_gzipped_and_plain_are_read_once(pair: Path) -> None:
    put_idx(pair, "train-{}.gz")
    assert same(Idx(path=pair, split=EVERYTHING).load())


def test_idx_files_of_several_data_sets_in_one_folder_are_not_chosen_from(pair: Path) -> None:
    for name in ("emnist-balanced", "emnist-digits"):  # EMNIST is published as one folder of six
        put_idx(pair.parent / "emnist", name + "-train-{}.gz")
    message = complaint(Idx(path=pair.parent / "emnist", split=EVERYTHING))
    assert message.startswith(f"data.path={pair.parent / 'emnist'}: ")
    assert "emnist-balanced-train-images-idx3-ubyte.gz" in message
    assert "emnist-digits-train-images-idx3-ubyte.gz" in message


def test_idx_source_in_the_working_directory_has_a_name(
    pair: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(pair)
    assert Idx(path=Path(), split=EVERYTHING).load().name == "shapes"


# A file of the training pair, what to make of its bytes, and what must be said of it.
DAMAGE: dict[str, tuple[str, Callable[[bytes], bytes], str]] = {
    "magic of another kind": (
        "images",
        lambda content: b"\0\0\x09" + content[3:],
        "starts with 00000903",
    ),
    "labels for images": ("images", lambda content: idx(LABELS), "starts with 00000801"),
    "too short": (
        "images",
        lambda content: content[:-1],
        "has 71 bytes of data; its header announces 12×3×2 = 72",
    ),
    "too long": (
        "labels",
        lambda content: content + b"\0",
        "has 13 bytes of data; its header announces 12 = 12",
    ),
    "wrong length in the header": (
        "images",
        lambda content: content[:7] + b"\x0d" + content[8:],
        "13×3×2 = 78",
    ),
    "huge length in the header": (
        "images",
        lambda content: content[:4] + b"\xff" * 12 + content[16:],
        "has 72 bytes of data",
    ),
    "header cut": (
        "images",
        lambda content: content[:10],
        "has 10 bytes; the IDX header alone has 16",
    ),
    "empty": ("labels", lambda content: b"", "has 0 bytes; the IDX header alone has"),
    "gzip cut": ("images", lambda content: gzip.compress(content)[:-20], "truncated gzip"),
    "gzip cut in its trailer": (
        "labels",
        lambda content: gzip.compress(content)[:-3],
        "truncated gzip",
    ),
    "gzip checksum": ("images", lambda content: gzip.compress(content)[:-8] + b"\0" * 8, "CRC"),
    "gzip stream": (
        "images",
        lambda content: b"\x1f\x8b\x08" + b"\0" * 7 + b"\xff" * 20,
        "damaged",
    ),
    "page of a server": (
        "labels",
        lambda content: b"<html>404 Not Found</html>",
        "starts with 3c68746d",
    ),
}


@pytest.mark.parametrize(("kind", "harm", "fault"), DAMAGE.values(), ids=DAMAGE)
def test_damaged_idx_file_is_named_with_its_fault(
    pair: Path, kind: str, harm: Callable[[bytes], bytes], fault: str
) -> None:
    (file,) = pair.glob(f"train-{kind}-*")
    file.write_bytes(harm(file.read_bytes()))
    message = complaint(Idx(path=pair, split=EVERYTHING))
    assert message.startswith(f"data.path={pair}: {file.name}")
    assert fault in message


@given(at=st.integers(0, 71 + 16), value=st.integers(0, 255), cut=st.booleans(), gz=st.booleans())
def test_no_damage_to_an_idx_file_ends_in_anything_but_a_data_error(
    tmp_path_factory: pytest.TempPathFactory, at: int, value: int, cut: bool, gz: bool
) -> None:
    folder = put_idx(tmp_path_factory.getbasetemp() / "any-damage", "train-{}")
    file = folder / "train-images-idx3-ubyte"
    content = bytearray(gzip.compress(idx(IMAGES), mtime=0) if gz else idx(IMAGES))
    content[at % len(content)] = value
    file.write_bytes(content[:at] if cut else content)
    with contextlib.suppress(DataError):
        Idx(path=folder, split=EVERYTHING).load()


@pytest.mark.parametrize("kind", ["images", "labels"])
@pytest.mark.parametrize("part", ["train", "t10k"])
def test_missing_idx_file_is_named(pair: Path, part: str, kind: str) -> None:
    put_idx(pair, "t10k-{}")
    (file,) = pair.glob(f"{part}-{kind}-*")
    file.unlink()
    if (part, kind) == ("t10k", "images"):  # no test images: no test set
        assert same(Idx(path=pair, split=EVERYTHING).load())
    else:
        assert complaint(Idx(path=pair, split=EVERYTHING)).startswith(
            f"data.path={pair}: {file.name} is missing"
        )


def test_idx_labels_must_be_as_many_as_the_images(pair: Path) -> None:
    put_idx(pair, "train-{}", labels=LABELS[:-1])
    assert (
        complaint(Idx(path=pair, split=EVERYTHING))
        == f"data.path={pair}: 11 train labels for 12 train images; each image needs one label"
    )
    put_idx(pair, "train-{}")
    put_idx(pair, "t10k-{}", images=IMAGES[:2])
    assert (
        complaint(Idx(path=pair, split=EVERYTHING))
        == f"data.path={pair}: 12 t10k labels for 2 t10k images; each image needs one label"
    )


def test_idx_test_images_must_be_of_the_size_of_the_training_images(pair: Path) -> None:
    put_idx(pair, "t10k-{}", IMAGES.reshape(12, 2, 3))
    message = complaint(Idx(path=pair, split=EVERYTHING))
    assert message == (
        f"data.path={pair}: the t10k images have 2×3 pixels, the train images 3×2; "
        "both need the same size"
    )


@pytest.mark.parametrize(("images", "labels"), [(IMAGES[:0], LABELS[:0]), (IMAGES[:, :0], LABELS)])
def test_idx_files_of_nothing_are_refused(pair: Path, images: Bytes, labels: Bytes) -> None:
    put_idx(pair, "train-{}", images, labels)
    message = complaint(Idx(path=pair, split=EVERYTHING))
    assert message.startswith(f"data.path={pair}: ")
    assert "×".join(map(str, images.shape)) in message


def test_idx_path_must_be_a_folder(pair: Path, tmp_path: Path) -> None:
    file = pair / "train-images-idx3-ubyte"
    assert (
        complaint(Idx(path=file, split=EVERYTHING))
        == f"data.path={file}: Not a directory; a folder of IDX files is needed"
    )
    assert (
        complaint(Idx(path=tmp_path / "none", split=EVERYTHING))
        == f"data.path={tmp_path / 'none'}: no such folder"
    )
    (tmp_path / "empty").mkdir()
    message = complaint(Idx(path=tmp_path / "empty", split=EVERYTHING))
    assert message == (
        f"data.path={tmp_path / 'empty'}: train-images-idx3-ubyte is missing; "
        "it may be gzipped (.gz)"
    )


def test_idx_file_that_is_a_folder_is_named(pair: Path) -> None:
    (pair / "train-images-idx3-ubyte").unlink()
    (pair / "train-images-idx3-ubyte").mkdir()
    assert (
        complaint(Idx(path=pair, split=EVERYTHING))
        == f"data.path={pair}: train-images-idx3-ubyte: Is a directory"
    )


# ─── CSV ───

HEADER = "label,pixel0,pixel1,pixel2,pixel3,pixel4,pixel5\n"
LINES = "".join(
    ",".join(map(str, [label, *row])) + "\n" for label, row in zip(LABELS, ROWS, strict=True)
)


def csv(tmp_path: Path, content: str | bytes, name: str = "shapes.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


CSV_FORMS: dict[str, str] = {
    "Kaggle's form": HEADER + LINES,
    "without a header": LINES,
    "Windows line endings": (HEADER + LINES).replace("\n", "\r\n"),
    "byte order mark": "\ufeff" + HEADER + LINES,
    "byte order mark, without a header": "\ufeff" + LINES,
    "no newline at the end": (HEADER + LINES).rstrip("\n"),
    "one line more, empty": HEADER + LINES + "\n",
    "quoted header": HEADER.replace("label", '"label"') + LINES,
    "spaces": (HEADER + LINES).replace(",", ", "),
}


@pytest.mark.parametrize("content", CSV_FORMS.values(), ids=CSV_FORMS)
@pytest.mark.parametrize("gz", [False, True], ids=["plain", "gzipped"])
def test_csv_is_read_in_each_form(tmp_path: Path, content: str, gz: bool) -> None:
    path = (
        csv(tmp_path, gzip.compress(content.encode()), "shapes.csv.gz")
        if gz
        else csv(tmp_path, content)
    )
    dataset = Csv(path=path, split=EVERYTHING).load()
    assert same(dataset)
    assert dataset.train.images.dtype == np.uint8


@pytest.mark.parametrize(
    ("line", "pixels", "dtype"),
    [
        ("3,0.5,0.25,1.0", [0.5, 0.25, 1], np.float32),
        ("3,256,0,70000", [256, 0, 70000], np.float32),
        ("3,-1,0,1", [-1, 0, 1], np.float32),
        ("3,1e2,1e-2,0", [100, 0.01, 0], np.float64),
        ("3,16777216,0,0", [2**24, 0, 0], np.float32),
        ("3,16777217,0,0", [2**24 + 1, 0, 0], np.float64),
        ("3,1e300,0,0", [1e300, 0, 0], np.float64),
    ],
)
def test_csv_pixels_keep_their_values_in_the_smallest_type_that_loses_nothing(
    tmp_path: Path, line: str, pixels: list[float], dtype: type[np.floating[Any]]
) -> None:
    dataset = Csv(path=csv(tmp_path, f"1,2,3,4\n{line}\n"), split=EVERYTHING).load()
    assert dataset.train.images.dtype == dtype
    assert dataset.train.images.tolist() == [[2, 3, 4], pixels]
    assert dataset.train.labels.tolist() == [1, 3]


def test_csv_and_npz_of_the_same_numbers_are_the_same_data(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).random((12, 6))
    lines = [
        ",".join(map(repr, [int(label), *row]))
        for label, row in zip(LABELS, pixels.tolist(), strict=True)
    ]
    from_csv = Csv(path=csv(tmp_path, "\n".join(lines)), split=EVERYTHING)
    from_npz = Npz(path=npz(tmp_path, x_train=pixels, y_train=LABELS), split=EVERYTHING)
    assert from_csv.load().digest == from_npz.load().digest


@pytest.mark.parametrize(
    ("pixels", "shape"), [(1, (1, 1)), (9, (3, 3)), (784, (28, 28)), (10, (1, 10)), (783, (1, 783))]
)
def test_csv_images_are_square_where_they_can_be(
    tmp_path: Path, pixels: int, shape: tuple[int, int]
) -> None:
    dataset = Csv(path=csv(tmp_path, "5" + ",1" * pixels), split=EVERYTHING).load()
    assert dataset.shape == shape
    assert dataset.features == pixels


def test_csv_has_the_name_of_its_file(tmp_path: Path) -> None:
    assert Csv(path=csv(tmp_path, LINES), split=EVERYTHING).load().name == "shapes"


def test_csv_test_file_becomes_the_own_test_set(tmp_path: Path) -> None:
    path = csv(tmp_path, HEADER + LINES)
    test = csv(tmp_path, "1,0.5,6,7,8,9,10\n", "test.csv")
    dataset = Csv(path=path, test_path=test, split=OWN).load()
    assert same(dataset)
    assert dataset.test.images.tolist() == [[0.5, 6, 7, 8, 9, 10]]
    assert dataset.test.labels.tolist() == [1]


def test_csv_without_a_test_file_has_no_own_test_set(tmp_path: Path) -> None:
    with pytest.raises(
        InvalidValue, match=r"^split\.test=own: this data has no test set of its own"
    ):
        Csv(path=csv(tmp_path, LINES), split=OWN).load()


LABEL_RULE = "labels must be whole numbers from 0 to 65535"

WRONG_CSV: dict[str, tuple[str, str]] = {
    "empty": ("", "has no rows of numbers; each line needs a label and its pixels"),
    "header only": (HEADER, "has no rows of numbers; each line needs a label and its pixels"),
    "short line": (
        "label,a,b\n1,2,3\n4,5\n",
        "line 3 has width 2; the lines before it have width 3",
    ),
    "long line": ("1,2,3\n4,5,6,7\n", "line 2 has width 4; the lines before it have width 3"),
    "text in a cell": ("label,a,b\n1,2,3\n4,x,6\n", "line 3, column 2 is 'x'; a number is needed"),
    "text for a label": ("1,2,3\ncat,5,6\n", "line 2, column 1 is 'cat'; a number is needed"),
    "empty cell": ("1,2,3\n4,,6\n", "line 2, column 2 is an empty cell; a number is needed"),
    "comma at the end": ("1,2,3,\n", "line 1, column 4 is an empty cell; a number is needed"),
    "comment": ("1,2,3\n# more\n4,5,6\n", "line 2 has width 1; the lines before it have width 3"),
    "semicolons": ("label;a;b\n1;2;3\n", "line 2, column 1 is '1;2;3'; a number is needed"),
    "single column": (
        "label\n1\n2\n",
        "has one column; separate the label and its pixels by commas",
    ),
    "label not whole": ("1,2\n1.5,2\n", f"one label is 1.5; {LABEL_RULE}"),
    "label not a number": ("1,2\nnan,2\n", f"one label is nan; {LABEL_RULE}"),
    "negative label": ("1,2\n-1,2\n", f"one label is -1; {LABEL_RULE}"),
    "huge label": ("1,2\n70000,2\n", f"one label is 70000; {LABEL_RULE}"),
    "infinite pixel": ("1,inf\n", "has pixels that are NaN or infinite; pixels must be finite"),
    "missing pixel": ("1,nan\n", "has pixels that are NaN or infinite; pixels must be finite"),
}


@pytest.mark.parametrize(("content", "fault"), WRONG_CSV.values(), ids=WRONG_CSV)
def test_wrong_csv_is_named_with_its_fault(tmp_path: Path, content: str, fault: str) -> None:
    path = csv(tmp_path, content)
    assert complaint(Csv(path=path, split=EVERYTHING)) == f"data.path={path}: {fault}"
    # The same fault in the test file is not laid on the training file.
    good = csv(tmp_path, "1,2,3\n", "good.csv")
    message = complaint(Csv(path=good, test_path=path, split=OWN))
    assert message == f"data.test_path={path}: {fault}"


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("a.csv", b"\xff\xfe1\x00,\x002\x00", "not a text file"),
        ("a.csv", gzip.compress(LINES.encode()), "not a text file"),
        ("a.csv.gz", LINES.encode(), "Not a gzipped file"),
        ("a.csv.gz", gzip.compress(LINES.encode())[:-12], "truncated gzip"),
        ("a.csv.gz", b"\x1f\x8b\x08" + b"\0" * 7 + b"\xff" * 20, "damaged"),
    ],
)
def test_csv_that_is_no_text_is_named_with_its_fault(
    tmp_path: Path, name: str, content: bytes, fault: str
) -> None:
    path = csv(tmp_path, content, name)
    message = complaint(Csv(path=path, split=EVERYTHING))
    assert message.startswith(f"data.path={path}: ")
    assert fault in message


def test_missing_csv_is_named(tmp_path: Path) -> None:
    path, missing = csv(tmp_path, LINES), tmp_path / "none.csv"
    message = complaint(Csv(path=missing, split=EVERYTHING))
    assert message == f"data.path={missing}: no such file"
    message = complaint(Csv(path=path, test_path=missing, split=OWN))
    assert message == f"data.test_path={missing}: no such file"
    message = complaint(Csv(path=tmp_path, split=EVERYTHING))
    assert message == f"data.path={tmp_path}: Is a directory; a CSV file is needed"


def test_csv_test_file_must_be_as_wide_as_the_training_file(tmp_path: Path) -> None:
    path, test = csv(tmp_path, LINES), csv(tmp_path, "1,2,3\n", "test.csv")
    assert complaint(Csv(path=path, test_path=test, split=OWN)) == (
        f"data.test_path={test}: has 3 columns, but data.path={path} has 7; "
        "both files need the same columns"
    )


# ─── NPZ ───


def npz(tmp_path: Path, **arrays: npt.NDArray[Any]) -> Path:
    path = tmp_path / "shapes.npz"
    np.savez(path, **arrays)  # type: ignore[arg-type]  # mypy takes the last for allow_pickle
    return path


@pytest.mark.parametrize(
    ("form", "shape"),
    [
        ((12, 3, 2), (3, 2)),
        ((12, 3, 2, 1), (3, 2)),
        ((12, 1, 2, 3), (1, 2, 3)),
        ((12, 6), (1, 6)),
        ((8, 3, 3), (3, 3)),
    ],
)
def test_npz_is_read_in_each_form(
    tmp_path: Path, form: tuple[int, ...], shape: tuple[int, ...]
) -> None:
    images = IMAGES.reshape(form)
    labels = LABELS[: len(images)]
    path = npz(tmp_path, x_train=images, y_train=labels, x_test=images[:2], y_test=labels[:2])
    dataset = Npz(path=path, split=OWN).load()
    assert same(dataset, images.reshape(len(images), -1), labels)
    assert np.array_equal(dataset.test.images, images[:2].reshape(2, -1))
    assert dataset.train.images.dtype == np.uint8
    assert (dataset.name, dataset.shape) == ("shapes", shape)


def test_npz_rows_of_a_square_number_of_features_are_square(tmp_path: Path) -> None:
    path = npz(tmp_path, x_train=IMAGES.reshape(8, 9), y_train=LABELS[:8])
    assert Npz(path=path, split=EVERYTHING).load().shape == (3, 3)


def test_npz_labels_may_stand_in_a_column(tmp_path: Path) -> None:  # as in Keras's CIFAR
    path = npz(tmp_path, x_train=IMAGES, y_train=LABELS[:, None])
    assert same(Npz(path=path, split=EVERYTHING).load())


@pytest.mark.parametrize(
    "dtype", [np.float16, np.float32, np.float64, np.int16, np.uint16, np.int64]
)
def test_npz_pixels_of_other_types_keep_their_values(
    tmp_path: Path, dtype: type[np.number[Any]]
) -> None:
    pixels = ROWS.astype(dtype) * 4  # past a byte
    dataset = Npz(
        path=npz(tmp_path, x_train=pixels, y_train=LABELS.astype(float)), split=EVERYTHING
    ).load()
    assert same(dataset, pixels)
    assert dataset.train.images.dtype.kind == "f"
    assert dataset.train.labels.dtype == np.int64


NO_PIXELS = "images must be numbers of shape (n, height, width)"


WRONG_NPZ: dict[str, tuple[dict[str, npt.NDArray[Any]], str]] = {
    "no labels": ({"x_train": IMAGES}, "y_train is missing; the file has x_train"),
    "other names": (
        {"images": IMAGES, "labels": LABELS},
        "x_train is missing; the file has images, labels",
    ),
    "nothing": ({}, "x_train is missing; the file has no arrays"),
    "no test labels": (
        {"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES},
        "y_test is missing; the file has x_test, x_train, y_train",
    ),
    "fewer labels": (
        {"x_train": IMAGES, "y_train": LABELS[1:]},
        "y_train has the shape (11,), but x_train has 12 images; the labels need the shape (12,)",
    ),
    "one-hot labels": (
        {"x_train": IMAGES, "y_train": np.eye(12)},
        (
            "y_train has the shape (12, 12), but x_train has 12 images; "
            "the labels need the shape (12,)"
        ),
    ),
    "other test size": (
        {
            "x_train": IMAGES,
            "y_train": LABELS,
            "x_test": IMAGES.reshape(12, 2, 3),
            "y_test": LABELS,
        },
        "x_test has images of shape (2, 3), x_train of (3, 2); both need the same shape",
    ),
    "no rows": (
        {"x_train": IMAGES.ravel(), "y_train": LABELS},
        f"x_train is uint8 of shape (72,); {NO_PIXELS}",
    ),
    "no images": (
        {"x_train": IMAGES[:0], "y_train": LABELS[:0]},
        f"x_train is uint8 of shape (0, 3, 2); {NO_PIXELS}",
    ),
    "text": (
        {"x_train": IMAGES.astype("U3"), "y_train": LABELS},
        f"x_train is <U3 of shape (12, 3, 2); {NO_PIXELS}",
    ),
    "missing pixels": (
        {"x_train": np.full((12, 4), np.nan), "y_train": LABELS},
        "x_train has pixels that are NaN or infinite; pixels must be finite",
    ),
    "label not whole": (
        {"x_train": IMAGES, "y_train": LABELS + 0.5},
        f"y_train: one label is 0.5; {LABEL_RULE}",
    ),
    "label text": (
        {"x_train": IMAGES, "y_train": LABELS.astype("U1")},
        f"y_train: labels are of type <U1; {LABEL_RULE}",
    ),
    "negative label": (
        {"x_train": IMAGES, "y_train": LABELS.astype(int) - 1},
        f"y_train: one label is -1; {LABEL_RULE}",
    ),
    "huge label": (
        {"x_train": IMAGES, "y_train": LABELS.astype(int) + 70_000},
        f"y_train: one label is 70000; {LABEL_RULE}",
    ),
}


@pytest.mark.parametrize(("arrays", "fault"), WRONG_NPZ.values(), ids=WRONG_NPZ)
def test_wrong_npz_is_named_with_its_fault(
    tmp_path: Path, arrays: dict[str, npt.NDArray[Any]], fault: str
) -> None:
    path = npz(tmp_path, **arrays)
    assert complaint(Npz(path=path, split=EVERYTHING)) == f"data.path={path}: {fault}"


class Trap:
    """Unpickled, it makes a file."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.marker,)


def test_npz_of_pickled_objects_is_refused_without_unpickling(tmp_path: Path) -> None:
    marker = tmp_path / "sprung"
    path = npz(tmp_path, x_train=np.array([Trap(marker)], object), y_train=LABELS[:1])
    assert complaint(Npz(path=path, split=EVERYTHING)).startswith(
        f"data.path={path}: not a readable .npz of plain arrays"
    )
    assert not marker.exists()
    with np.load(path, allow_pickle=True) as archive:  # the trap does work
        _ = archive["x_train"]
    assert marker.exists()


def test_bare_pickle_called_npz_is_refused_without_unpickling(tmp_path: Path) -> None:
    path, marker = tmp_path / "shapes.npz", tmp_path / "sprung"
    path.write_bytes(pickle.dumps(Trap(marker)))
    assert complaint(Npz(path=path, split=EVERYTHING)).startswith(
        f"data.path={path}: not a readable .npz of plain arrays"
    )
    assert not marker.exists()


@pytest.mark.parametrize("keep", [0, 1, 3, 40, 200, -1])
def test_truncated_npz_is_named(tmp_path: Path, keep: int) -> None:
    path = npz(tmp_path, x_train=IMAGES, y_train=LABELS)
    path.write_bytes(path.read_bytes()[:keep])
    assert complaint(Npz(path=path, split=EVERYTHING)).startswith(
        f"data.path={path}: not a readable .npz of plain arrays"
    )


def test_npz_with_a_flipped_bit_is_named(tmp_path: Path) -> None:
    path = npz(tmp_path, x_train=IMAGES, y_train=LABELS)
    content = path.read_bytes()
    at = content.index(ROWS[5].tobytes())
    path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    message = complaint(Npz(path=path, split=EVERYTHING))
    assert message.startswith(f"data.path={path}: not a readable .npz of plain arrays")
    assert "CRC" in message


def test_compressed_npz_with_damaged_data_is_named(tmp_path: Path) -> None:
    path = tmp_path / "shapes.npz"
    np.savez_compressed(path, x_train=IMAGES, y_train=LABELS)
    content = bytearray(path.read_bytes())
    at = (
        content.index(b"x_train.npy") + len(b"x_train.npy") + 20
    )  # past the extra field: the deflated stream
    content[at : at + 40] = b"\xff" * 40
    path.write_bytes(content)
    assert complaint(Npz(path=path, split=EVERYTHING)).startswith(
        f"data.path={path}: not a readable .npz of plain arrays"
    )


def test_file_that_is_no_npz_is_named(tmp_path: Path) -> None:
    path = tmp_path / "shapes.npz"
    assert complaint(Npz(path=path, split=EVERYTHING)) == f"data.path={path}: no such file"
    path.write_text("label,pixel0\n")
    assert complaint(Npz(path=path, split=EVERYTHING)).startswith(
        f"data.path={path}: not a readable .npz of plain arrays"
    )
    with path.open("wb") as file:
        np.save(file, IMAGES)
    assert complaint(Npz(path=path, split=EVERYTHING)).startswith(
        f"data.path={path}: not a readable .npz of plain arrays"
    )


# ─── Every source ───


def source(tmp_path: Path, split: Splitting = EVERYTHING, **fields: Any) -> Npz:
    return Npz(path=npz(tmp_path, x_train=IMAGES, y_train=LABELS), split=split, **fields)


def test_a_tilde_stands_for_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    put_idx(tmp_path / "shapes", "train-{}")
    csv(tmp_path, LINES)
    npz(tmp_path, x_train=IMAGES, y_train=LABELS)
    assert same(Idx(path=Path("~/shapes"), split=EVERYTHING).load())
    assert same(Csv(path=Path("~/shapes.csv"), test_path=Path("~/shapes.csv"), split=OWN).load())
    assert same(Npz(path=Path("~/shapes.npz"), split=EVERYTHING).load())


@pytest.mark.parametrize(
    ("scale", "factor"),
    [
        ("1/255", 1 / 255),
        (0.5, 0.5),
        (1, 1.0),
        ("0.5", 0.5),
        ("2/3", 2 / 3),
        ("1e-3", 0.001),
        (1e-300, 1e-300),
    ],
)
def test_scale_is_a_number_or_a_fraction(tmp_path: Path, scale: str | float, factor: float) -> None:
    assert source(tmp_path, scale=scale).load().scale == factor


@pytest.mark.parametrize(
    "scale",
    [
        0,
        "0",
        -1,
        "-1/255",
        "abc",
        "",
        "1/0",
        "1/2/3",
        math.nan,
        "nan",
        math.inf,
        "inf",
        "1e400",
        "1e-400",
    ],
)
def test_scale_that_is_no_positive_number_is_refused_at_once(
    tmp_path: Path, scale: str | float
) -> None:
    with pytest.raises(InvalidValue) as caught:
        Npz(path=tmp_path / "never read", split=EVERYTHING, scale=scale)
    assert caught.value.field == "scale"
    assert (
        str(caught.value) == f"scale={scale}: must be a positive number or a fraction such as 1/255"
    )


def test_scale_leaves_the_pixels_as_they_are(tmp_path: Path) -> None:
    assert same(source(tmp_path, scale="1/255").load())


def test_digest_depends_on_the_samples_not_on_where_they_lie(tmp_path: Path) -> None:
    folder = put_idx(tmp_path / "elsewhere", "train-{}.gz")
    first, second = (
        source(tmp_path).load(),
        Idx(path=folder, split=EVERYTHING, scale=1 / 255).load(),
    )
    assert first.digest == second.digest
    assert len(first.digest) == 32
    assert int(first.digest, 16)


def test_digest_differs_wherever_the_data_does(tmp_path: Path) -> None:
    split = Splitting(train=6, val=4, test=2, shuffle=True)
    pixel, label = IMAGES.copy(), LABELS.copy()
    pixel[11, 2, 1] += 1
    label[0] += 1
    digests = [
        source(tmp_path, split).load().digest,
        source(tmp_path, split, scale="1/256").load().digest,
        source(tmp_path, replace(split, seed=1)).load().digest,
        source(tmp_path, replace(split, shuffle=False)).load().digest,
        source(tmp_path, replace(split, train=5, val=5)).load().digest,
        source(tmp_path, replace(split, val=2, test=4)).load().digest,
        source(tmp_path, replace(split, val=6, test=0)).load().digest,
        source(tmp_path, replace(split, val=0, test=6)).load().digest,
    ]
    for images, labels in (
        (pixel, LABELS),
        (IMAGES, label),
        (IMAGES.reshape(12, 2, 3), LABELS),
        (IMAGES.astype(np.float32), LABELS),
    ):
        digests.append(
            Npz(path=npz(tmp_path, x_train=images, y_train=labels), split=split).load().digest
        )
    assert len(set(digests)) == len(digests)


def test_samples_keep_their_labels_through_shuffling(tmp_path: Path) -> None:
    dataset = source(tmp_path, Splitting(train=5, val=4, test=None, shuffle=True)).load()
    label_of = {row.tobytes(): label for row, label in zip(ROWS, LABELS, strict=True)}
    seen = [
        (row.tobytes(), label)
        for _, part in dataset.splits()
        for row, label in zip(part.images, part.labels, strict=True)
    ]
    assert len({row for row, _ in seen}) == 12
    assert all(label_of[row] == label for row, label in seen)
    assert [row for row, _ in seen] != list(label_of)


def test_sets_hold_the_rows_that_the_splitting_names_in_its_order(tmp_path: Path) -> None:
    for seed in range(50):  # among so many, there are sets that begin and end as a slice would
        split = Splitting(train=4, val=4, test=4, shuffle=True, seed=seed)
        dataset = source(tmp_path, split).load()
        for (_, part), rows in zip(dataset.splits(), split.divide(LABELS, 0), strict=True):
            assert np.array_equal(part.images, ROWS[rows])
            assert np.array_equal(part.labels, LABELS[rows])


def test_sets_in_file_order_take_no_memory_of_their_own(tmp_path: Path) -> None:
    dataset = source(tmp_path, Splitting(train=5, val=4, test=3)).load()
    assert (
        dataset.train.images.base is dataset.val.images.base is dataset.test.images.base is not None
    )
    assert np.array_equal(dataset.val.images, ROWS[5:9])


def test_dataset_counts_the_classes_of_all_three_sets(tmp_path: Path) -> None:
    path = csv(tmp_path, "1,0\n4,0\n7,0\n")
    assert Csv(path=path, split=Splitting(train=1, val=1, test=1)).load().classes == 8
    assert Csv(path=path, split=Splitting(train=1, val=1, test=0)).load().classes == 5


def test_dataset_leaves_out_the_sets_that_are_empty(tmp_path: Path) -> None:
    dataset = source(tmp_path, Splitting(train=8, val=0, test=4)).load()
    assert [(name, len(part)) for name, part in dataset.splits()] == [("train", 8), ("test", 4)]
    assert str(dataset) == "shapes: 8 train, 4 test, 3×2 pixels, 4 classes"
    assert dataset.val.images.shape == (0, 6)


def test_shares_that_do_not_fit_are_told_with_their_place(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue) as caught:
        source(tmp_path, Splitting(train=10, val=20, test=0)).load()
    assert (
        str(caught.value)
        == "split.val=20: train, val and test ask for 30 samples in total, there are 12"
    )


# ─── Splitting ───

shares = st.none() | st.integers(0, 40) | st.floats(0, 1)


def sizes(split: Splitting, total: int, own_test: int = 0) -> list[int]:
    return [len(rows) for rows in split.divide(np.zeros(total, np.int64), own_test)]


@given(
    train=shares,
    val=shares,
    test=shares,
    total=st.integers(1, 100),
    shuffle=st.booleans(),
    seed=st.integers(0, 9),
)
def test_sets_are_disjoint_and_of_the_sizes_asked_for(
    train: float | None, val: float | None, test: float | None, total: int, shuffle: bool, seed: int
) -> None:
    asked = [train, val, test]
    assume(train != 0 and asked.count(None) <= 1)
    try:
        sets = Splitting(train, val, test, shuffle, seed=seed).divide(np.zeros(total, np.int64), 0)
    except InvalidValue:
        # Refused only for asking too much, or for nothing to train on.
        needed = [share * total if isinstance(share, float) else share or 0 for share in asked]
        assert sum(needed) > total - 1.5 or (isinstance(train, float) and train * total <= 1)
        return
    rows = [int(row) for part in sets for row in part]
    assert len(rows) == len(set(rows)) <= total
    assert set(rows) <= set(range(total))
    assert len(sets[0]) > 0
    for share, part in zip(asked, sets, strict=True):
        if isinstance(share, int):
            assert len(part) == share
        elif isinstance(share, float):
            assert abs(len(part) - share * total) <= 1
    if None in asked:
        assert len(rows) == total
    if not shuffle:
        assert rows == list(range(len(rows)))


@given(
    cuts=st.tuples(st.integers(1, 100), st.integers(0, 100), st.integers(0, 100)),
    total=st.integers(1, 500),
)
def test_fractions_that_add_up_to_one_take_every_sample(
    cuts: tuple[int, int, int], total: int
) -> None:
    train, val, test = fractions = [cut / sum(cuts) for cut in cuts]
    assume(train * total > 0.5)
    counts = sizes(Splitting(train, val, test), total)
    assert sum(counts) == total
    assert all(
        abs(count - fraction * total) <= 1
        for count, fraction in zip(counts, fractions, strict=True)
    )


@pytest.mark.parametrize(
    ("split", "counts"),
    [
        (Splitting(train=50, val=30, test=20), [50, 30, 20]),
        (Splitting(train=5, val=3, test=2), [5, 3, 2]),
        (Splitting(train=None, val=30, test=20), [50, 30, 20]),
        (Splitting(train=50, val=None, test=20), [50, 30, 20]),
        (Splitting(train=50, val=30, test=None), [50, 30, 20]),
        (Splitting(train=0.5, val=0.25, test=None), [50, 25, 25]),
        (Splitting(train=0.7, val=0.2, test=0.1), [70, 20, 10]),
        (Splitting(train=None, val=0.155, test=20), [64, 16, 20]),
        (Splitting(train=1.0, val=0, test=0.0), [100, 0, 0]),
        (Splitting(train=1, val=1, test=1), [1, 1, 1]),
        (Splitting(train=None, val=0.15, test="own"), [76, 14, 10]),
        (Splitting(train=80, val=None, test="own"), [80, 10, 10]),
        (Splitting(train=30, val=5, test="own"), [30, 5, 10]),
    ],
)
def test_shares_are_counts_fractions_or_the_rest(split: Splitting, counts: list[int]) -> None:
    assert sizes(split, 100, own_test=10) == counts


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("stratify", [False, True])
def test_own_test_set_is_the_sources_untouched_and_whole(shuffle: bool, stratify: bool) -> None:
    split = Splitting(None, 20, "own", shuffle, stratify and shuffle)
    train, val, test = split.divide(np.arange(100) % 4, 30)
    assert test.tolist() == list(range(70, 100))
    assert sorted([*train, *val]) == list(range(70))


def test_without_own_the_sources_test_set_is_divided_like_all_else() -> None:
    train, val, test = Splitting(None, 0, 0).divide(np.zeros(100, np.int64), 30)
    assert (len(train), len(val), len(test)) == (100, 0, 0)


@pytest.mark.parametrize("stratify", [False, True])
def test_same_seed_same_sets_other_seed_other_sets(stratify: bool) -> None:
    def divided(seed: int) -> list[list[int]]:
        split = Splitting(None, 20, 20, shuffle=True, stratify=stratify, seed=seed)
        return [part.tolist() for part in split.divide(np.arange(200) % 10, 0)]

    first, again, other = divided(3), divided(3), divided(4)
    assert first == again
    assert all(set(a) != set(b) for a, b in zip(first, other, strict=True))


def test_shuffling_mixes_the_whole_before_it_is_cut() -> None:
    train, val, _ = Splitting(None, 50, 0, shuffle=True).divide(np.zeros(200, np.int64), 0)
    assert train.tolist() != sorted(train.tolist())
    # Of 50 rows out of 200, about 12 come from each quarter.
    assert all(4 <= ((val >= low) & (val < low + 50)).sum() <= 24 for low in (0, 50, 100, 150))


@given(
    members=st.lists(st.integers(8, 40), min_size=2, max_size=6),
    val=st.floats(0.2, 0.35),
    test=st.floats(0.2, 0.35),
    seed=st.integers(0, 99),
)
def test_stratified_sets_hold_the_classes_in_proportion(
    members: list[int], val: float, test: float, seed: int
) -> None:
    labels = np.repeat(np.arange(len(members)), members)
    sets = Splitting(None, val, test, shuffle=True, stratify=True, seed=seed).divide(labels, 0)
    assert sorted(row for part in sets for row in part) == list(range(len(labels)))
    # The first cut rounds each class to a neighbouring count, the second rounds once more.
    for part, tolerance in zip(sets, (1, 2, 2), strict=True):
        expected = np.array(members) * len(part) / len(labels)
        assert (
            np.abs(np.bincount(labels[part], minlength=len(members)) - expected).max() < tolerance
        )


def test_stratified_and_plain_sets_are_of_the_same_sizes() -> None:
    labels = np.arange(100) % 3
    for val, test in ((0, 0), (0, 40), (40, 0), (30, 70 - 3)):
        stratified = Splitting(None, val, test, shuffle=True, stratify=True).divide(labels, 0)
        assert [len(part) for part in stratified] == [100 - val - test, val, test]


TOO_SMALL: dict[str, tuple[list[int], int, int]] = {
    "a class of one": ([0] * 30 + [1], 10, 10),
    "too few for the classes to train on": (list(range(10)) * 4, 20, 18),
    "too few for the classes to be chosen by": (list(range(10)) * 4, 3, 10),
    "a class of two for three sets": ([0] * 30 + [1] * 2, 10, 10),
}


@pytest.mark.parametrize(("labels", "val", "test"), TOO_SMALL.values(), ids=TOO_SMALL)
def test_classes_too_small_to_stratify_are_refused(labels: list[int], val: int, test: int) -> None:
    with pytest.raises(
        InvalidValue,
        match=r"^stratify=True: \d+ samples cannot be divided into \d+ and \d+ with every",
    ):
        Splitting(None, val, test, shuffle=True, stratify=True).divide(np.array(labels), 0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"train": 0}, "train=0: must not be 0: training needs samples"),
        ({"train": 0.0}, "train=0.0: must not be 0: training needs samples"),
        (
            {"train": "own"},
            "train=own: must be a count, a fraction, null for the rest, or own (test only)",
        ),
        (
            {"test": "all"},
            "test=all: must be a count, a fraction, null for the rest, or own (test only)",
        ),
        ({"train": -1}, "train=-1: must be a count, a fraction from 0 to 1, or null for the rest"),
        ({"val": 1.5}, "val=1.5: must be a count, a fraction from 0 to 1, or null for the rest"),
        (
            {"val": math.nan},
            "val=nan: must be a count, a fraction from 0 to 1, or null for the rest",
        ),
        (
            {"test": -0.1},
            "test=-0.1: must be a count, a fraction from 0 to 1, or null for the rest",
        ),
        ({"val": None}, "val=None: only one of train, val and test can be null"),
        ({"test": None}, "test=None: only one of train, val and test can be null"),
        (
            {"stratify": True},
            "stratify=True: needs shuffle=true, because file order cannot be stratified",
        ),
        ({"seed": -1}, "seed=-1: must be from 0 to 4294967295"),
        ({"seed": 2**32}, "seed=4294967296: must be from 0 to 4294967295"),
    ],
)
def test_impossible_splittings_are_refused_at_once(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        Splitting(**{"train": None, "val": 0, "test": 0, **fields})
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("split", "message"),
    [
        (
            Splitting(train=101, val=0, test=0),
            "train=101: train, val and test ask for 101 samples in total, there are 100",
        ),
        (
            Splitting(train=1, val=0, test=100),
            "test=100: train, val and test ask for 101 samples in total, there are 100",
        ),
        (
            Splitting(train=0.9, val=0.2, test=None),
            "train=0.9: train, val and test ask for 110 samples in total, there are 100",
        ),
        (
            Splitting(train=None, val=50, test=50),
            "train=None: leaves no training samples of 100: make val or test smaller",
        ),
        (
            Splitting(train=0.001, val=0, test=0),
            "train=0.001: leaves no training samples of 100: make val or test smaller",
        ),
        (
            Splitting(train=None, val=0, test="own"),
            "test=own: this data has no test set of its own: give a count or a fraction",
        ),
    ],
)
def test_shares_that_the_data_can_not_fill_are_refused(split: Splitting, message: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        sizes(split, 100)
    assert str(caught.value) == message


def test_largest_seed_stratifies_too() -> None:
    split = Splitting(None, 10, 10, shuffle=True, stratify=True, seed=2**32 - 1)
    assert [len(part) for part in split.divide(np.arange(40) % 2, 0)] == [20, 10, 10]


# ─── The page that tells how to add a dataset ───


@pytest.mark.slow
def test_following_the_page_adds_a_dataset_with_one_class_and_one_yaml_file(tmp_path: Path) -> None:
    for name in ("src", "conf", "hydra_plugins"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignore)
    page = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    section = page.partition("## Add a dataset\n")[2].partition("\n## ")[0]
    files = re.findall(r"^Create `([^`]+)`[^\n]*\n\n```\w+\n(.*?)^```", section, re.M | re.S)
    assert [Path(name).suffix for name, _ in files] == [".py", ".yaml", ".txt"]
    for name, content in files:
        assert not (tmp_path / name).exists()
        (tmp_path / name).write_text(content, encoding="utf-8")
    (line,) = re.findall(r"^```sh\npython (.*?)\n```", section, re.M | re.S)

    def run(*extra: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *shlex.split(line), *extra],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )

    ended = run()
    assert ended.returncode == 0, ended.stderr
    assert "stripes: 12 train, 6 val, 6 test, 3×3 pixels, 3 classes" in ended.stdout
    (result,) = (tmp_path / "outputs" / "runs").glob("*/result.json")
    assert json.loads(result.read_text())["metrics"]["val/accuracy"] > 0.85
    refused = run("data.path=none.txt")
    assert refused.returncode == 2
    assert "data.path=none.txt: " in refused.stderr
    assert "label_last" in run("--help").stdout
