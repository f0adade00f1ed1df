"""Finds MNIST: in a local folder, in the cache of an earlier run, or at OpenML, once."""

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

import numpy as np
import numpy.typing as npt

from src.data.dataset import Samples, Source
from src.data.idx import read_pair
from src.support.errors import DataError

log = logging.getLogger(__name__)

Bytes = npt.NDArray[np.uint8]

_TRAIN, _TEST = 60_000, 10_000

# SHA-256 of the bare pixels and labels, the IDX headers left out.
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
    """The 70,000 digits of LeCun, Cortes and Burges: the 60,000 for training first, then the 10,000 for testing.

    They are read from the folder ``path`` of IDX files where it is given, else from our cache in scikit-learn's
    data home (``SCIKIT_LEARN_DATA``, by default ``~/scikit_learn_data``), else from what scikit-learn itself keeps there
    of an earlier ``fetch_openml``, else fetched from OpenML, once.
    Whatever the way, the digests of the canonical files must match.
    """

    path: Path | None = None

    @property
    def name(self) -> str:
        return "mnist"

    def samples(self) -> Samples:
        if self.path is not None:
            images, labels = _from_folder(self.path.expanduser())
        else:
            images, labels = _from_cache_or_openml(cache_file())
        return Samples(images, labels.astype(np.int64), (28, 28), _TEST)


def cache_file() -> Path:
    """Return where the cache lies: scikit-learn's data home is where its users keep their data already."""
    return _data_home() / "scratchgrid" / "mnist.npy"


def _data_home() -> Path:
    return Path(os.environ.get("SCIKIT_LEARN_DATA") or "~/scikit_learn_data").expanduser()


def check_digests(images: Bytes, labels: Bytes, where: str) -> None:
    """Raise DataError, which names ``where`` and the part, unless these are the canonical 70,000."""
    for array, kind, shape in (
        (images, "images", (_TRAIN + _TEST, 784)),
        (labels, "labels", (_TRAIN + _TEST,)),
    ):
        if array.shape != shape or array.dtype != np.uint8:
            raise DataError(
                f"{where}: the {kind} are {array.dtype} of shape {array.shape}, MNIST's are uint8 of {shape}"
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
                f"{where}: the {part} are not MNIST's: their digest differs from that of the published files"
            )


def _from_folder(folder: Path) -> tuple[Bytes, Bytes]:
    train_images, train_labels = read_pair(folder, "train")
    test_images, test_labels = read_pair(folder, "t10k")
    for images in (train_images, test_images):
        if images.shape[1:] != (28, 28):
            raise DataError(
                f"{folder}: holds images of {images.shape[1]}×{images.shape[2]} pixels, MNIST's are 28×28"
            )
    images = np.concatenate([train_images, test_images]).reshape(-1, 784)
    labels = np.concatenate([train_labels, test_labels])
    check_digests(images, labels, str(folder))
    return images, labels


def _from_cache_or_openml(cache: Path) -> tuple[Bytes, Bytes]:
    if cache.exists():
        try:
            return read_cache(cache)
        except DataError as error:
            log.warning("%s; fetching it anew", error)
    images, labels = fetch()
    check_digests(images, labels, "OpenML's mnist_784")
    write_cache(cache, images, labels)
    return images, labels


def read_cache(cache: Path) -> tuple[Bytes, Bytes]:
    """Return what ``write_cache`` wrote. Raises DataError where the file is damaged."""
    try:
        with cache.open("rb") as file:
            images, labels = (np.lib.format.read_array(file, allow_pickle=False) for _ in range(2))
    except (
        Exception
    ) as error:  # NumPy's reader of headers raises a dozen kinds, TokenError among them
        raise DataError(
            f"{cache}: the cached MNIST is damaged ({' '.join(str(error).split())})"
        ) from None
    check_digests(images, labels, str(cache))
    return images, labels


def write_cache(cache: Path, images: Bytes, labels: Bytes) -> None:
    """Keep the arrays, uncompressed since that opens five times faster; a file half written is never seen."""
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            dir=cache.parent
        ) as folder:  # which takes with it what can't be finished
            part = Path(folder) / cache.name
            with part.open("wb") as file:
                np.save(file, images)
                np.save(file, labels)
            part.replace(cache)
    except OSError as error:
        log.warning(
            "%s: can't keep MNIST there (%s); the next run will fetch it again",
            cache,
            error.strerror,
        )


def fetch() -> tuple[Bytes, Bytes]:
    """Return ``images (70000, 784)`` and ``labels (70000,)`` from OpenML.

    Raises DataError, within seconds, where OpenML does not answer.
    """
    from sklearn.datasets import fetch_openml  # half a second to import: only where it is used

    log.info("fetching MNIST from OpenML, once; this may take a minute")
    try:
        with _socket_timeout(_PROBE_SECONDS), warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # fetch_openml's, as it tries again; how that ends is told below
            if not any(
                _data_home().glob("openml/**/*mnist_784*")
            ):  # scikit-learn keeps what it once fetched
                _probe()
            bunch = fetch_openml(
                "mnist_784",
                version=1,
                as_frame=False,
                parser="pandas",
                # The labels too: as categories, scikit-learn up to 1.9.1 can't read them with pandas 3.1 (its #34892).
                read_csv_kwargs={"dtype": "uint8"},
                n_retries=1,
                delay=0.5,
            )
    except Exception as error:  # of a network, of gzip, of JSON, of ARFF: of every kind
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        reason = (
            " ".join(str(getattr(error, "reason", None) or error).split()) or type(error).__name__
        )
        raise DataError(
            f"OpenML can't be had ({reason}). Give a folder that holds MNIST's four IDX files with data.path=FOLDER, "
            "or train on the bundled digits with data=digits, which needs no download"
        ) from None
    return np.ascontiguousarray(bunch.data), np.ascontiguousarray(bunch.target)


def _probe() -> None:
    """Raise OSError unless OpenML answers at all within seconds.

    A thread, because looking up a name has no time-out of its own and can hang for a minute.
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
            outcome.clear()  # an error page is an answer
        except (OSError, http.client.HTTPException) as error:
            outcome[0] = error

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_PROBE_SECONDS)
    if outcome:
        raise outcome[0]


@contextlib.contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """Bound every wait on a socket: fetch_openml sets no time-out."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
