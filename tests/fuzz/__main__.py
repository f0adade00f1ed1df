"""Fuzz the readers with atheris: ``python -m tests.fuzz npz --runs 100000``.

Exits with 1 at the first input that ends in anything but an array or a DataError, takes more than
ten seconds or lets memory grow past 2 GB, and keeps that input in the folder of the corpus.
"""

import argparse
import io
import os
import struct
import sys
import warnings
import zipfile
import zlib
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["src", "numpy", "zipfile", "gzip"]):
    from src.support.input_files import MAX_BYTES
    from tests.fuzz.readers import LIMIT, READERS, Reader, samples


def main() -> None:
    """Fuzz one reader, or print how."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("reader", choices=READERS)
    parser.add_argument("--runs", type=int, default=100_000, help="inputs to try")
    parser.add_argument("--corpus", type=Path, default=Path(".fuzz"), help="folder for inputs")
    options = parser.parse_args()
    folder = options.corpus / options.reader
    folder.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(samples(options.reader)):
        (folder / f"sample{number}").write_bytes(content)
    os.environ[MAX_BYTES] = str(LIMIT)
    reader = Reader(options.reader)
    warnings.simplefilter("error")
    counts = [0, 0]

    def try_one(content: bytes) -> None:
        if options.reader in ("npz", "weights", "predictions") and content[:1] != b"P":
            content = _archive(content)
        counts[reader(content) is not None] += 1
        if sum(counts) == options.runs:
            print(f"{options.reader}: {counts[1]:,} read, {counts[0]:,} refused", flush=True)

    settings = [
        f"-runs={options.runs}",
        f"-max_len={4096}",
        "-timeout=10",
        "-rss_limit_mb=2048",
        f"-artifact_prefix={folder}-",
    ]
    print(f"{options.reader}: up to {options.runs:,} inputs, files of up to {LIMIT:,} bytes")
    atheris.Setup([sys.argv[0], *settings, str(folder)], try_one)
    atheris.Fuzz()


def _archive(content: bytes) -> bytes:
    """Return an archive whose members and checksums are sound, and whose arrays are ``content``.

    A fuzzer cannot guess a checksum: without this, it would never get past zipfile.
    """
    file = io.BytesIO()
    names = ("x_train", "y_train", "W1", "b1", "labels", "part")
    with zipfile.ZipFile(file, "w") as archive:
        for name, part in zip(names, content.split(b"|"), strict=False):
            archive.writestr(f"{name}.npy", _array(part))
    return file.getvalue()


def _array(content: bytes) -> bytes:
    """Return ``content`` as an .npy member: as it is, or with a sound header around its text."""
    text, _, body = content.partition(b"\0")
    if content.startswith(b"\x93NUMPY") or zlib.crc32(content) % 4 == 0:
        return content
    return b"\x93NUMPY\x01\0" + struct.pack("<H", min(len(text), 65535)) + text[:65535] + body


if __name__ == "__main__":
    main()
