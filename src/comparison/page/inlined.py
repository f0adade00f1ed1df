"""Turns pictures and scripts into text that stands inside the page."""

import base64
import gzip
import hashlib
import io

import numpy as np
import numpy.typing as npt


def picture(pixels: npt.NDArray[np.uint8] | None) -> str | None:
    """Return pixels (height, width) as the address of a PNG picture, or None if there are none."""
    if pixels is None:
        return None
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels, dtype=np.uint8)).save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def packed(content: bytes) -> str:
    """Return content compressed, as letters that are safe in HTML."""
    return base64.b64encode(gzip.compress(content, 6, mtime=0)).decode()


def digest(script: str) -> str:
    """Return the name under which a page's security policy allows a script."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
