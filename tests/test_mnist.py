"""MNIST from a folder, from the cache, and from a local server in OpenML's place."""

import contextlib
import gzip
import hashlib
import json
import logging
import os
import pickle
import re
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hydra import compose, initialize_config_dir

import src.run  # noqa: F401 (registers the resolver that folder names use)
from src.config.reader import read
from src.data import Dataset, Splitting, mnist
from src.data.mnist import Mnist
from src.support.errors import DataError
from src.support.paths import CONF
from tests.test_data import Trap, put_idx

Bytes = npt.NDArray[np.uint8]

SPLIT = Splitting(train=None, val=0, test="own")
EVERY = Splitting(train=None, val=0, test=0)

REAL = os.environ.get("SCRATCHGRID_MNIST", "")
needs_mnist = pytest.mark.skipif(
    not REAL, reason="SCRATCHGRID_MNIST names no folder of MNIST's four IDX files"
)

# Five rows in MNIST's form: every value that a pixel can have, and labels not in order.
IMAGES: Bytes = np.arange(5 * 784, dtype=np.uint16).reshape(5, 784).astype(np.uint8)
LABELS: Bytes = np.array([5, 0, 4, 1, 9], np.uint8)

LIST = "/api/v1/json/data/list/data_name/mnist_784/limit/2/data_version/1"
DESCRIPTION = "/api/v1/json/data/554"
FEATURES = "/api/v1/json/data/features/554"
QUALITIES = "/api/v1/json/data/qualities/554"
ARFF = "/data/v1/download/52667/mnist_784.arff"

PATIENCE = 8.0  # how long a server hangs: one that hung for good would hang a test that should fail


def arff(images: npt.NDArray[np.integer[Any]], labels: Bytes) -> bytes:
    """Return the rows as OpenML's mnist_784: its attribute names and types, the label last."""
    header = [
        "% The MNIST database of handwritten digits, a row an image",
        "@RELATION mnist_784",
        "",
        *(f"@ATTRIBUTE pixel{number} real" for number in range(1, images.shape[1] + 1)),
        "@ATTRIBUTE class {0,1,2,3,4,5,6,7,8,9}",
        "",
        "@DATA",
        "",
    ]
    # Four bytes per number and separator; unused ones are dropped. 70,000 rows take seconds.
    cells = (
        np.array([f"{number},".encode() for number in range(1000)], "S4")
        .view(np.uint8)
        .reshape(1000, 4)
    )
    ends = (
        np.array([f"{number}\n".encode() for number in range(10)], "S4")
        .view(np.uint8)
        .reshape(10, 4)
    )
    content = ["\n".join(header).encode()]
    for start in range(0, len(images), 10_000):
        rows = slice(start, start + 10_000)
        table = np.concatenate([cells[images[rows]], ends[labels[rows], None]], axis=1)
        content.append(table[table != 0].tobytes())
    return b"".join(content)


def features(number: int) -> dict[str, Any]:
    common = {"is_ignore": "false", "is_row_identifier": "false", "number_of_missing_values": "0"}
    names = [f"pixel{i}" for i in range(1, number + 1)]
    pixels = [
        {"index": str(i), "name": name, "data_type": "numeric", "is_target": "false", **common}
        for i, name in enumerate(names)
    ]
    nominal = {
        "data_type": "nominal",
        "nominal_values": [str(i) for i in range(10)],
        "is_target": "true",
    }
    return {
        "data_features": {
            "feature": [*pixels, {"index": str(number), "name": "class", **nominal, **common}]
        }
    }


class Answer(BaseHTTPRequestHandler):
    """Gives the page of the path; what OpenML doesn't have it answers with its 412."""

    server: "OpenML"

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.server.pages.get(self.path, self.server.otherwise)(self)

    def log_message(self, format: str, *args: Any) -> None:
        """Keep still."""


Page = Callable[[Answer], None]


def page(content: bytes, status: int = 200, gz: bool = False) -> Page:
    def answer(request: Answer) -> None:
        accepted = gz and "gzip" in request.headers.get("Accept-Encoding", "")
        body = gzip.compress(content, 1) if accepted else content
        request.send_response(status)
        if accepted:
            request.send_header("Content-Encoding", "gzip")
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    return answer


def hang(request: Answer) -> None:
    """Take the request and never reply."""
    request.server.ended.wait(PATIENCE)


def stall(request: Answer) -> None:
    """Reply, and stop in the middle."""
    request.send_response(200)
    request.send_header("Content-Length", "1000")
    request.end_headers()
    request.wfile.write(b"@RELATION")
    request.wfile.flush()
    request.server.ended.wait(PATIENCE)


def hang_up(request: Answer) -> None:
    """Reply, and close the connection in the middle."""
    request.send_response(200)
    request.send_header("Content-Length", "1000")
    request.end_headers()
    request.wfile.write(b"@RELATION")


def gibberish(request: Answer) -> None:
    """Answer in no protocol that a browser knows."""
    request.wfile.write(b"220 mail ready\r\n\r\n")


class OpenML(ThreadingHTTPServer):
    """A server on loopback in OpenML's place."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.pages: dict[str, Page] = {"/": page(b"<!doctype html><title>OpenML</title>")}
        self.otherwise = page(b'{"error":{"code":"111","message":"Unknown dataset"}}', 412)
        self.asked: list[str] = []
        self.ended = threading.Event()
        self.offer(IMAGES, LABELS)
        threading.Thread(
            target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()

    def offer(
        self,
        images: npt.NDArray[np.integer[Any]],
        labels: Bytes,
        *,
        content: bytes = b"",
        md5: str = "",
        gz: bool = True,
    ) -> None:
        """Put up the pages of a mnist_784 of these rows."""
        content = content or arff(images, labels)
        about = {"name": "mnist_784", "status": "active", "format": "ARFF"}
        instances = {"name": "NumberOfInstances", "value": f"{len(images)}.0"}
        listed = {"did": 554, **about, "version": 1, "file_id": 52667, "quality": [instances]}
        description = {
            "id": "554",
            **about,
            "version": "1",
            "description": "Five rows, or all",
            "upload_date": "2014-09-29T03:28:38",
            "licence": "Public",
            "url": self.url + ARFF,
            "file_id": "52667",
            "default_target_attribute": "class",
            "tag": ["vision"],
            "visibility": "public",
            "md5_checksum": md5 or hashlib.md5(content).hexdigest(),
        }
        answers: dict[str, dict[str, Any]] = {
            LIST: {"data": {"dataset": [listed]}},
            DESCRIPTION: {"data_set_description": description},
            FEATURES: features(images.shape[1]),
            QUALITIES: {
                "data_qualities": {"quality": [{"name": "AutoCorrelation", "value": []}, instances]}
            },
        }
        self.pages |= {
            path: page(json.dumps(answer).encode(), gz=gz) for path, answer in answers.items()
        }
        self.pages[ARFF] = page(content, gz=gz)

    def close(self) -> None:
        self.ended.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep still about a client that has left."""


@pytest.fixture(autouse=True)
def on_this_machine_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Keep the data in a folder of the test's own, and let no test reach anything but loopback."""
    monkeypatch.setenv("SCIKIT_LEARN_DATA", str(tmp_path / "home"))
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    look_up, strangers = socket.getaddrinfo, []

    def guard(host: str, *args: Any, **kwargs: Any) -> Any:
        if host != "127.0.0.1":
            strangers.append(host)
            raise OSError(f"a test looks for {host}")
        return look_up(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", guard)
    yield
    assert not strangers


def point_at(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every address of OpenML's, ours and scikit-learn's, be the server's."""
    from sklearn.datasets import _openml

    monkeypatch.setattr(mnist, "_OPENML", f"{url}/")
    for name, value in list(
        vars(_openml).items()
    ):  # whatever their names, which differ between its versions
        if isinstance(value, str) and name.isupper():
            monkeypatch.setattr(_openml, name, re.sub("^https?://[^/]+", url, value))


@pytest.fixture
def openml(monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenML]:
    with contextlib.closing(OpenML()) as server:
        point_at(server.url, monkeypatch)
        yield server


def complaint(action: Callable[[], object]) -> str:
    """Return the one line with which MNIST is refused."""
    with pytest.raises(DataError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message
    return message


# ─── What OpenML answers ───


@pytest.mark.parametrize("gz", [True, False], ids=["gzipped", "plain"])
def test_openml_is_asked_for_version_1_and_its_rows_become_bytes(openml: OpenML, gz: bool) -> None:
    openml.offer(IMAGES, LABELS, gz=gz)
    images, labels = mnist.fetch()
    assert images.dtype == labels.dtype == np.uint8
    assert np.array_equal(images, IMAGES)
    assert np.array_equal(labels, LABELS)
    assert openml.asked == ["/", LIST, DESCRIPTION, FEATURES, QUALITIES, ARFF]


def refused(message: str) -> bool:
    """Tell whether the message says what a person can do without OpenML."""
    return (
        message.startswith("data=mnist: cannot fetch MNIST from OpenML (")
        and "data.path=FOLDER" in message
        and "data=digits" in message
    )


def test_openml_that_refuses_connections_is_told_at_once(openml: OpenML) -> None:
    openml.close()
    start = time.monotonic()
    message = complaint(Mnist(split=SPLIT).load)
    assert time.monotonic() - start < 5
    assert refused(message)
    assert "Connection refused" in message


@pytest.mark.parametrize("first", [True, False], ids=["front page", "rows"])
def test_openml_that_never_replies_is_given_up_within_seconds(
    openml: OpenML, monkeypatch: pytest.MonkeyPatch, first: bool
) -> None:
    monkeypatch.setattr(mnist, "_PROBE_SECONDS", 0.5)
    openml.pages["/" if first else ARFF] = hang
    start = time.monotonic()
    message = complaint(Mnist(split=SPLIT).load)
    assert time.monotonic() - start < (
        2 if first else 6
    )  # in the middle, scikit-learn tries three times more
    assert refused(message)
    assert "no answer in 0.5 s" in message or "timed out" in message


def test_openml_that_stops_in_the_middle_is_given_up_within_seconds(
    openml: OpenML, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mnist, "_PROBE_SECONDS", 0.5)
    openml.pages[ARFF] = stall
    start = time.monotonic()
    message = complaint(mnist.fetch)
    assert time.monotonic() - start < 5
    assert refused(message)
    assert "timed out" in message


def test_waiting_is_ten_seconds_at_most() -> None:
    assert mnist._PROBE_SECONDS <= 10


def test_look_up_of_a_name_that_hangs_is_given_up(
    openml: OpenML, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mnist, "_PROBE_SECONDS", 1.0)

    def look_up(*args: Any, **kwargs: Any) -> Any:  # in C, without a time-out
        openml.ended.wait(PATIENCE)
        raise socket.gaierror("no such name")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    start = time.monotonic()
    message = complaint(mnist.fetch)
    assert time.monotonic() - start < 3
    assert refused(message)
    assert "no answer in 1 s" in message


BROKEN: dict[str, tuple[list[str], Page, str]] = {
    "500 for everything": (
        ["/", LIST],
        page(b"<h1>Internal Server Error</h1>", 500),
        "Internal Server Error",
    ),
    "500 for the rows": ([ARFF], page(b"", 500), "Internal Server Error"),
    "404 for the rows": ([ARFF], page(b"", 404), "Not Found"),
    "unknown data set": ([LIST], page(b"{}", 412), "mnist_784 with version 1 not found"),
    "page of a hotel's network": (
        ["/", LIST],
        page(b"<html>Please log in</html>"),
        "Expecting value",
    ),
    "JSON of another form": ([LIST], page(b'{"data": []}'), ""),
    "features of another form": ([FEATURES], page(b'{"data_features": "none"}'), ""),
    "not HTTP": (["/"], gibberish, "220 mail ready"),
    "not HTTP for the rows": ([ARFF], gibberish, "220 mail ready"),
    "rows cut short": ([ARFF], hang_up, ""),
}


@pytest.mark.parametrize(("paths", "answer", "fault"), BROKEN.values(), ids=BROKEN)
def test_openml_that_answers_wrongly_is_told_with_the_fault(
    openml: OpenML, paths: list[str], answer: Page, fault: str
) -> None:
    openml.pages |= dict.fromkeys(paths, answer)
    message = complaint(Mnist(split=SPLIT).load)
    assert refused(message)
    assert fault in message
    assert "()" not in message
    assert not mnist.cache_file().exists()


@pytest.mark.parametrize("gz", [True, False], ids=["gzipped", "plain"])
def test_rows_cut_short_in_transfer_are_refused_and_not_kept(openml: OpenML, gz: bool) -> None:
    whole = arff(IMAGES, LABELS)

    def cut(request: Answer) -> None:
        body = gzip.compress(whole) if gz else whole
        request.send_response(200)
        if gz:
            request.send_header("Content-Encoding", "gzip")
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body[:-50])

    openml.pages[ARFF] = cut
    assert refused(complaint(mnist.fetch))
    openml.offer(IMAGES, LABELS)  # the next run does better
    assert np.array_equal(mnist.fetch()[0], IMAGES)


def test_rows_of_another_checksum_are_refused(openml: OpenML) -> None:
    openml.offer(IMAGES, LABELS, md5="0" * 32)
    message = complaint(Mnist(split=SPLIT).load)
    assert refused(message)
    assert "md5 checksum" in message


def test_fewer_rows_or_columns_are_refused_and_not_kept(openml: OpenML) -> None:
    wanted = "MNIST's are uint8 of shape (70000, 784)"
    assert (
        complaint(Mnist(split=SPLIT).load)
        == f"OpenML's mnist_784: the images are uint8 of shape (5, 784); {wanted}"
    )
    openml.offer(IMAGES[:, 1:], LABELS)
    shutil.rmtree(os.environ["SCIKIT_LEARN_DATA"])
    assert (
        complaint(Mnist(split=SPLIT).load)
        == f"OpenML's mnist_784: the images are uint8 of shape (5, 783); {wanted}"
    )
    assert not mnist.cache_file().exists()


@pytest.mark.parametrize("number", [b"?", b"256", b"-1", b"0.5", b"black", b""])
def test_rows_of_anything_but_bytes_are_refused(openml: OpenML, number: bytes) -> None:
    start, rows = arff(IMAGES, LABELS).split(b"@DATA\n")
    openml.offer(IMAGES, LABELS, content=start + b"@DATA\n" + number + rows[1:])
    assert refused(complaint(mnist.fetch))
    openml.offer(IMAGES, LABELS, content=start + b"@DATA\n" + rows[:-2] + number + b"\n")
    assert refused(complaint(mnist.fetch))


def test_time_out_of_other_sockets_is_as_before(openml: OpenML) -> None:
    socket.setdefaulttimeout(77.0)
    try:
        front = openml.pages["/"]
        openml.pages["/"] = gibberish
        complaint(mnist.fetch)
        assert socket.getdefaulttimeout() == 77.0
        openml.pages["/"] = front
        mnist.fetch()
        assert socket.getdefaulttimeout() == 77.0
    finally:
        socket.setdefaulttimeout(None)


# ─── The cache and the folder, with five rows for the 70,000 ───


@pytest.fixture
def five(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let MNIST be three rows for training and two for testing: everything else stays as it is."""
    parts = {
        "train images": IMAGES[:3],
        "train labels": LABELS[:3],
        "test images": IMAGES[3:],
        "test labels": LABELS[3:],
    }
    monkeypatch.setattr(mnist, "_TRAIN", 3)
    monkeypatch.setattr(mnist, "_TEST", 2)
    digests = {part: hashlib.sha256(array.tobytes()).hexdigest() for part, array in parts.items()}
    monkeypatch.setattr(mnist, "_DIGESTS", digests)


def put_folder(folder: Path, images: Bytes = IMAGES, labels: Bytes = LABELS) -> Path:
    """Write the rows as MNIST's four files."""
    images = images.reshape(-1, 28, 28)
    put_idx(folder, "train-{}.gz", images[:3], labels[:3])
    return put_idx(folder, "t10k-{}", images[3:], labels[3:])


@pytest.mark.usefixtures("five")
def test_mnist_is_fetched_once_and_then_read_from_the_cache(openml: OpenML, tmp_path: Path) -> None:
    fetched = Mnist(split=SPLIT).load()
    assert (fetched.name, fetched.shape, fetched.classes) == ("mnist", (28, 28), 10)
    assert np.array_equal(fetched.train.images, IMAGES[:3])
    assert np.array_equal(fetched.test.images, IMAGES[3:])
    assert fetched.train.labels.tolist() == [5, 0, 4]
    assert fetched.test.labels.tolist() == [1, 9]
    assert mnist.cache_file().is_relative_to(tmp_path / "home")
    assert list(mnist.cache_file().parent.iterdir()) == [mnist.cache_file()], (
        "nothing half written stays"
    )
    openml.close()
    assert Mnist(split=SPLIT).load().digest == fetched.digest


@pytest.mark.usefixtures("five")
def test_mnist_that_scikit_learn_fetched_before_is_read_offline(openml: OpenML) -> None:
    digest = Mnist(split=EVERY).load().digest
    mnist.cache_file().unlink()
    openml.close()
    assert Mnist(split=EVERY).load().digest == digest
    assert mnist.cache_file().exists()


@pytest.mark.usefixtures("five")
def test_data_mnist_asks_openml_unless_a_folder_is_given(
    openml: OpenML, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def load() -> Dataset:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = compose("config", ["data=mnist", "data.split.val=1"])
        return read(config).experiment.data.load()

    monkeypatch.delenv("SCRATCHGRID_MNIST", raising=False)
    fetched = load()
    assert str(fetched) == "mnist: 2 train, 1 val, 2 test, 28×28 pixels, 10 classes"
    assert fetched.scale == 1 / 255
    assert openml.asked.count(ARFF) == 1
    openml.close()
    mnist.cache_file().unlink()
    monkeypatch.setenv("SCRATCHGRID_MNIST", str(put_folder(tmp_path / "folder")))
    assert load().digest == fetched.digest


@pytest.mark.usefixtures("five")
def test_mnist_in_a_folder_is_the_same_and_asks_nobody(openml: OpenML, tmp_path: Path) -> None:
    dataset = Mnist(path=put_folder(tmp_path / "folder"), split=SPLIT).load()
    assert openml.asked == []
    assert not mnist.cache_file().exists()
    assert dataset.digest == Mnist(split=SPLIT).load().digest


def flip(content: bytes, at: int) -> bytes:
    at %= len(content)
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "pixel": lambda content: flip(content, 128 + 784),
    "label": lambda content: flip(content, -1),
    "magic": lambda content: flip(content, 0),
    "version": lambda content: flip(content, 6),
    "type of signed bytes": lambda content: content.replace(b"|u1", b"|i1", 1),
    "order of columns": lambda content: content.replace(b"False", b"True ", 1),
    "shape": lambda content: content.replace(b"(5, 784)", b"(784, 5)", 1),
    "unclosed shape": lambda content: content.replace(b"(5, 784)", b"(5, 784(", 1),
    "cut": lambda content: content[:-2],
    "images alone": lambda content: content[: 128 + 5 * 784],
    "empty": lambda content: b"",
    "zip": lambda content: b"PK\x05\x06" + bytes(18),
    "text": lambda content: b"<html>\n",
}


@pytest.mark.usefixtures("five")
@pytest.mark.parametrize("harm", DAMAGE.values(), ids=DAMAGE)
def test_damaged_cache_is_found_out_and_fetched_anew(
    openml: OpenML, caplog: pytest.LogCaptureFixture, harm: Callable[[bytes], bytes]
) -> None:
    mnist.write_cache(mnist.cache_file(), IMAGES, LABELS)
    sound = mnist.cache_file().read_bytes()
    mnist.cache_file().write_bytes(harm(sound))
    assert mnist.cache_file().read_bytes() != sound
    dataset = Mnist(split=SPLIT).load()
    assert np.array_equal(dataset.train.images, IMAGES[:3])
    assert ARFF in openml.asked
    assert mnist.cache_file().read_bytes() == sound
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert record.getMessage().startswith(f"{mnist.cache_file()}: ")
    assert record.getMessage().endswith("; fetching MNIST again")


@pytest.mark.usefixtures("five")
def test_cache_is_not_unpickled(openml: OpenML, tmp_path: Path) -> None:
    mnist.write_cache(mnist.cache_file(), IMAGES, LABELS)
    trap = Trap(tmp_path / "sprung")
    mnist.cache_file().write_bytes(pickle.dumps(trap))
    Mnist(split=SPLIT).load()
    with mnist.cache_file().open("wb") as file:
        np.save(file, np.array([trap], object))
    Mnist(split=SPLIT).load()
    assert not trap.marker.exists()


@pytest.mark.usefixtures("five")
@pytest.mark.parametrize("obstacle", ["a file for the folder", "a folder for the file"])
def test_cache_that_can_not_be_written_costs_no_more_than_the_fetching(
    openml: OpenML, caplog: pytest.LogCaptureFixture, obstacle: str
) -> None:
    cache = mnist.cache_file()
    if obstacle == "a file for the folder":
        cache.parent.parent.mkdir()
        cache.parent.touch()
    else:
        (cache / "full").mkdir(parents=True)
    assert np.array_equal(Mnist(split=SPLIT).load().train.images, IMAGES[:3])
    assert "cannot cache MNIST here" in caplog.text
    if cache.parent.is_dir():
        assert list(cache.parent.iterdir()) == [cache], "nothing half written stays"


@pytest.mark.usefixtures("five")
def test_openml_with_one_pixel_changed_is_refused(openml: OpenML) -> None:
    images = IMAGES.copy()
    images[4, 783] ^= 1
    openml.offer(images, LABELS)
    assert complaint(Mnist(split=SPLIT).load) == (
        "OpenML's mnist_784: the test images are not MNIST's, their digest differs from the "
        "published files'; use those files, or data=idx for other images"
    )
    assert not mnist.cache_file().exists()


@pytest.mark.usefixtures("five")
@pytest.mark.parametrize("part", ["train images", "train labels", "test images", "test labels"])
def test_folder_with_one_byte_changed_is_refused_and_not_replaced(
    openml: OpenML, tmp_path: Path, part: str
) -> None:
    images, labels = IMAGES.copy(), LABELS.copy()
    array = images if part.endswith("images") else labels
    array[0 if part.startswith("train") else 4] ^= 1
    folder = put_folder(tmp_path / "folder", images, labels)
    assert complaint(Mnist(path=folder, split=SPLIT).load).startswith(
        f"data.path={folder}: the {part} are not MNIST's"
    )
    assert openml.asked == []


def test_folder_without_mnist_is_refused_with_the_fault(tmp_path: Path) -> None:
    def refusal(folder: Path) -> str:
        return complaint(Mnist(path=folder, split=SPLIT).load)

    assert refusal(tmp_path / "none") == f"data.path={tmp_path / 'none'}: no such folder"
    folder = put_idx(tmp_path / "folder", "train-{}", IMAGES[:3].reshape(-1, 28, 28), LABELS[:3])
    assert refusal(folder) == (
        f"data.path={folder}: t10k-images-idx3-ubyte is missing; it may be gzipped (.gz)"
    )
    put_idx(folder, "t10k-{}", IMAGES[3:].reshape(-1, 28, 28), LABELS[3:])
    assert refusal(folder) == (
        f"data.path={folder}: the images are uint8 of shape (5, 784); "
        "MNIST's are uint8 of shape (70000, 784)"
    )
    put_idx(folder, "t10k-{}", IMAGES[3:].reshape(-1, 14, 56), LABELS[3:])
    assert refusal(folder) == (f"data.path={folder}: images have 14×56 pixels; MNIST's have 28×28")


def test_data_home_is_scikit_learns(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from sklearn.datasets import get_data_home

    monkeypatch.setenv("HOME", str(tmp_path))
    for home in ("~/mine", str(tmp_path / "other")):
        monkeypatch.setenv("SCIKIT_LEARN_DATA", home)
        assert mnist.cache_file() == Path(get_data_home()) / "scratchgrid" / "mnist.npy"
    monkeypatch.delenv("SCIKIT_LEARN_DATA")
    assert mnist.cache_file() == Path(get_data_home()) / "scratchgrid" / "mnist.npy"


# ─── The real 70,000 ───


@needs_mnist
def test_real_mnist_is_read_from_its_folder() -> None:
    dataset = Mnist(path=Path(REAL), split=Splitting(train=None, val=10_000, test="own")).load()
    assert str(dataset) == "mnist: 50,000 train, 10,000 val, 10,000 test, 28×28 pixels, 10 classes"
    assert dataset.train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert dataset.test.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert dataset.train.images[0, 5 * 28 + 12 : 5 * 28 + 16].tolist() == [3, 18, 18, 18]


@needs_mnist
@pytest.mark.parametrize("name", ["train-images", "train-labels", "t10k-images", "t10k-labels"])
def test_real_mnist_with_one_byte_changed_is_refused(tmp_path: Path, name: str) -> None:
    for file in Path(REAL).glob("*-ubyte*"):
        if file.name.startswith(name):
            content = file.read_bytes()
            content = gzip.decompress(content) if file.suffix == ".gz" else content
            (tmp_path / file.stem).write_bytes(flip(content, -1))
        else:
            (tmp_path / file.name).symlink_to(file.absolute())
    part = name.replace("t10k", "test").replace("-", " ")
    assert complaint(Mnist(path=tmp_path, split=SPLIT).load).startswith(
        f"data.path={tmp_path}: the {part} are not MNIST's"
    )


@pytest.mark.slow
@needs_mnist
def test_real_mnist_comes_from_openml_once_and_is_checked(
    openml: OpenML,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    published = Mnist(path=Path(REAL), split=EVERY).load()
    images, labels = (
        published.train.images.astype(np.uint8),
        published.train.labels.astype(np.uint8),
    )
    openml.offer(images, labels)
    fetched = Mnist(split=EVERY).load()
    assert fetched.digest == published.digest

    openml.close()
    assert Mnist(split=EVERY).load().digest == published.digest

    with mnist.cache_file().open("r+b") as file:
        file.seek(30_000_000)
        file.write(b"damage")
    with contextlib.closing(OpenML()) as again:
        point_at(again.url, monkeypatch)
        assert Mnist(split=EVERY).load().digest == published.digest
        assert "fetching MNIST again" in caplog.text

    images[69_999, 400] ^= 1
    monkeypatch.setenv("SCIKIT_LEARN_DATA", str(tmp_path / "other home"))
    with contextlib.closing(OpenML()) as wrong:
        point_at(wrong.url, monkeypatch)
        wrong.offer(images, labels)
        assert complaint(Mnist(split=EVERY).load).startswith(
            "OpenML's mnist_784: the test images are not MNIST's"
        )
