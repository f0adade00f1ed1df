"""Find MNIST in a local folder, in the cache of an earlier run, or at OpenML."""

import contextlib
import hashlib
import http.client
import logging
import os
import socket
import tempfile
import threading
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from src.data.dataset import Samples, Source, fault
from src.data.idx import read_pair
from src.support.archives import read_array
from src.support.errors import DataError
from src.support.input_files import open_regular

log = logging.getLogger(__name__)

Bytes = npt.NDArray[np.uint8]

_TRAIN, _TEST = 60_000, 10_000

# SHA-256 of the pixels and labels of the published files, without the IDX headers.
_DIGESTS = {
    "train images": "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757",
    "train labels": "1feba77c54802fa5339a11837ea4b2866434b83314ec45192930f1df69120c13",
    "test images": "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161",
    "test labels": "ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5",
}

_OPENML = "https://www.openml.org/"
_PROBE_SECONDS = 8.0


@dataclass(frozen=True, kw_only=True)
class Mnist(Source):
    """The 70,000 digits of LeCun, Cortes and Burges: 60,000 to train, then 10,000 to test.

    They are read from the first of these that exists:

    1. the folder ``path`` of IDX files, if it is set
    2. our cache in scikit-learn's data home (``SCIKIT_LEARN_DATA``, or ``~/scikit_learn_data``)
    3. what an earlier ``fetch_openml`` of scikit-learn left in that data home
    4. OpenML, once

    In each case the digests of the published files must match.
    """

    path: Path | None = None

    @property
    def name(self) -> str:
        return "mnist"

    def samples(self) -> Samples:
        if self.path is not None:
            images, labels = _from_folder(self.path)
        else:
            images, labels = _from_cache_or_openml(cache_file())
        return Samples(images, labels.astype(np.int64), (28, 28), own_test=_TEST)


def cache_file() -> Path:
    """Return the path of our cache, in scikit-learn's data home."""
    return _data_home() / "scratchgrid" / "mnist.npy"


def _data_home() -> Path:
    """Return scikit-learn's data home, without importing scikit-learn."""
    return Path(os.environ.get("SCIKIT_LEARN_DATA") or "~/scikit_learn_data").expanduser()


def check_digests(images: Bytes, labels: Bytes, where: str) -> None:
    """Raise DataError, which starts with ``where``, unless these are the published 70,000."""
    total = _TRAIN + _TEST
    for kind, array, shape in (("images", images, (total, 784)), ("labels", labels, (total,))):
        if array.shape != shape or array.dtype != np.uint8:
            raise DataError(
                f"{where}: the {kind} are {array.dtype} of shape {array.shape}; "
                f"MNIST's are uint8 of shape {shape}"
            )
    parts = {
        "train images": images[:_TRAIN],
        "train labels": labels[:_TRAIN],
        "test images": images[_TRAIN:],
        "test labels": labels[_TRAIN:],
    }
    for part, array in parts.items():
        if hashlib.sha256(np.ascontiguousarray(array).data).hexdigest() != _DIGESTS[part]:
            raise DataError(
                f"{where}: the {part} are not MNIST's, their digest differs from the published "
                "files'; use those files, or data=idx for other images"
            )


def _from_folder(folder: Path) -> tuple[Bytes, Bytes]:
    """Return images and labels from the four IDX files of a folder. Raises DataError."""
    train_images, train_labels = read_pair(folder, "train")
    test_images, test_labels = read_pair(folder, "t10k")
    for images in (train_images, test_images):
        if images.shape[1:] != (28, 28):
            height, width = images.shape[1:]
            raise fault("path", folder, f"images have {height}×{width} pixels; MNIST's have 28×28")
    images = np.concatenate([train_images, test_images]).reshape(-1, 784)
    labels = np.concatenate([train_labels, test_labels])
    check_digests(images, labels, f"data.path={folder}")
    return images, labels


def _from_cache_or_openml(cache: Path) -> tuple[Bytes, Bytes]:
    """Return images and labels from the cache, or fetch and cache them. Raises DataError."""
    if cache.exists():
        try:
            return read_cache(cache)
        except DataError as error:
            log.warning("%s; fetching MNIST again", error)
    images, labels = fetch()
    check_digests(images, labels, "OpenML's mnist_784")
    write_cache(cache, images, labels)
    return images, labels


def read_cache(cache: Path) -> tuple[Bytes, Bytes]:
    """Return what ``write_cache`` wrote. Raises DataError if the file is damaged."""
    try:
        with open_regular(cache) as file:
            size = os.fstat(file.fileno()).st_size
            images: npt.NDArray[Any] = read_array(file, size)
            labels: npt.NDArray[Any] = read_array(file, size - file.tell())
    except Exception as error:  # NumPy's header reader raises many kinds, even TokenError
        reason = " ".join(str(error).split())
        raise DataError(f"{cache}: the cached MNIST is damaged ({reason})") from None
    check_digests(images, labels, str(cache))
    return images, labels


def write_cache(cache: Path, images: Bytes, labels: Bytes) -> None:
    """Write the cache; if that fails, log a warning.

    The file is uncompressed, because it then opens five times faster. It is written elsewhere and
    then renamed, so that no run ever reads half a file.
    """
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache.parent) as folder:
            part = Path(folder) / cache.name
            with part.open("wb") as file:
                np.save(file, images)
                np.save(file, labels)
            part.replace(cache)
    except OSError as error:
        log.warning(
            "%s: cannot cache MNIST here (%s); the next run will fetch it again",
            cache,
            error.strerror,
        )


def fetch() -> tuple[Bytes, Bytes]:
    """Return ``images (70000, 784)`` and ``labels (70000,)`` from OpenML.

    Raises DataError, within seconds if OpenML does not answer.
    """
    from sklearn.datasets import fetch_openml  # slow to import: half a second

    log.info("fetching MNIST from OpenML, once; this may take a minute")
    try:
        with _socket_timeout(_PROBE_SECONDS), warnings.catch_warnings():
            # fetch_openml warns before each retry. If all fail, the error below says why.
            warnings.simplefilter("ignore")
            kept_by_sklearn = any(_data_home().glob("openml/**/*mnist_784*"))
            if not kept_by_sklearn:
                _probe()
            bunch = fetch_openml(
                "mnist_784",
                version=1,
                as_frame=False,
                parser="pandas",
                # Labels too are read as bytes: scikit-learn up to 1.9.1 cannot read them as
                # categories with pandas 3.1 (scikit-learn issue 34892).
                read_csv_kwargs={"dtype": "uint8"},
                n_retries=1,
                delay=0.5,
            )
    except Exception as error:  # of the network, gzip, JSON or ARFF: any kind
        raise _unreachable(error) from None
    return np.ascontiguousarray(bunch.data), np.ascontiguousarray(bunch.target)


def _unreachable(error: Exception) -> DataError:
    """Return the error that says why OpenML did not serve MNIST, and what to do instead."""
    if isinstance(error, urllib.error.HTTPError):
        error.close()
    text = str(getattr(error, "reason", None) or error)
    reason = " ".join(text.split()) or type(error).__name__
    return DataError(
        f"data=mnist: cannot fetch MNIST from OpenML ({reason}). Set data.path=FOLDER to a folder "
        "with MNIST's four IDX files, or use data=digits, which needs no download"
    )


def _probe() -> None:
    """Raise OSError unless OpenML answers within seconds.

    The request runs in a thread, because a name lookup has no timeout and can hang for a minute.
    """
    outcome: list[OSError | http.client.HTTPException] = [
        TimeoutError(f"no answer in {_PROBE_SECONDS:g} s")
    ]

    def ask() -> None:
        try:
            urllib.request.urlopen(_OPENML, timeout=_PROBE_SECONDS).close()
            outcome.clear()
        except urllib.error.HTTPError as error:
            error.close()
            outcome.clear()  # an error page is an answer, too
        except (OSError, http.client.HTTPException) as error:
            outcome[0] = error

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_PROBE_SECONDS)
    if outcome:
        raise outcome[0]


@contextlib.contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """Limit every wait on a socket, because fetch_openml sets no timeout."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
