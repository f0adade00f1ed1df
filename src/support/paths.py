"""The folders of the project's own files."""

from pathlib import Path

SOURCE = Path(__file__).parents[1]
CONF = SOURCE.parent / "conf"
