"""Writes the lock files: all dependencies with hashes, for every Python and platform."""

import subprocess
import sys
from pathlib import Path

LOCKS = Path(__file__).parent
PROJECT = LOCKS.parent / "pyproject.toml"


def resolve(name: str, *sources: str) -> None:
    """Write ``locks/<name>.txt`` without an index address: pip finds packages by name and hash."""
    options = ["--universal", "--python-version=3.11", "--generate-hashes", "--no-emit-index-url"]
    quiet = ["--quiet", "--no-annotate", "--no-header"]
    target = f"--output-file={LOCKS / name}.txt"
    subprocess.run(
        [sys.executable, "-m", "uv", "pip", "compile", *options, *quiet, target, *sources],
        check=True,
    )


if __name__ == "__main__":
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "uv"], check=True)
    resolve("build", str(LOCKS / "build.in"))
    resolve("run", str(PROJECT))
    resolve("dev", str(PROJECT), "--extra=dev", f"--constraint={LOCKS / 'run.txt'}")
