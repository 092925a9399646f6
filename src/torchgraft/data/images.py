"""Reading image files: every file decoded once, every kind of image made 8-bit grey or RGB."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

from torchgraft.data.base import Progress
from torchgraft.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["SUFFIXES", "Encoded", "Look", "decode", "plain", "read_all", "reason"]

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"})
KEPT_BYTES = 256 * 2**20
"""A set that is no larger than this when decoded stays decoded in memory."""


Encoded = Path | Callable[[], bytes | Path]
"""Where an image is: a file, or what gives the bytes of one when it is called."""


@dataclass(frozen=True)
class Look:
    """What one reading of a file found.

    `why` says what is wrong, `image` is None where it was let go, `digest` tells files of other bytes apart.
    """

    size: tuple[int, int] = (0, 0)
    grey: bool = False
    why: str = ""
    image: Image.Image | None = None
    digest: bytes = b""


def read_all(paths: Sequence[Encoded], progress: Progress | None = None) -> list[Look]:
    """Decode every image on a few threads; the images are kept where all of them are small enough together."""
    looks: list[Look] = []
    held, keep = 0, True
    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    try:
        for look in pool.map(_look, paths):
            held += look.size[0] * look.size[1] * (1 if look.grey else 3)
            if keep and held > KEPT_BYTES:
                keep, looks = False, [replace(seen, image=None) for seen in looks]
            looks.append(look if keep else replace(look, image=None))
            if progress is not None:
                progress(len(looks), len(paths))
    finally:
        pool.shutdown(cancel_futures=True)
    return looks


def _look(encoded: Encoded) -> Look:
    """Decode one image and say what it is, or why it can't be read."""
    path = encoded if isinstance(encoded, Path) else Path()
    try:
        source = encoded if isinstance(encoded, Path) else encoded()
        data = source.read_bytes() if isinstance(source, Path) else source
        if not data:
            return Look(why="the file is empty")
        image = decode(data)
    except Exception as error:  # Pillow's decoders raise nearly anything on a broken file
        return Look(why=reason(error, path))
    digest = blake2b(data, digest_size=16).digest()
    return Look(size=(image.height, image.width), grey=image.mode == "L", image=image, digest=digest)


def reason(error: Exception, path: Path = Path()) -> str:
    """Say in one line what Pillow found, without the path that it repeats."""
    from PIL import UnidentifiedImageError

    if isinstance(error, DataError):
        return error.what
    if isinstance(error, UnidentifiedImageError):
        return "no image of a kind that can be read" + (f", whatever '{path.suffix}' says" if path.suffix else "")
    text = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return " ".join(text.split()) or type(error).__name__


def decode(source: Path | bytes) -> Image.Image:
    """Read the first picture of a file or of its bytes, turned upright as its EXIF says, in mode L or RGB."""
    from PIL import Image, ImageOps

    with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
        image.load()
        return plain(ImageOps.exif_transpose(image))


def plain(image: Image.Image) -> Image.Image:
    """Make any image 8-bit grey (L) or RGB: alpha over white, 16-bit grey scaled by 1/257.

    Raises:
        ValueError: the pixels are numbers of which it is not known what white is.
    """
    if image.mode == "F" or image.mode.startswith("I"):
        return _eight_bits(image)
    if image.has_transparency_data:
        return _over_white(image)
    if image.mode in ("L", "RGB"):
        return image
    if image.mode == "1":
        return image.convert("L")
    colours = image.convert("RGB")
    return _without_colour(colours) if image.mode == "P" else colours


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scale 16-bit and floating-point grey to 8 bits."""
    import numpy as np
    from PIL import Image

    values = np.asarray(image).astype(np.float64)
    low, high = float(values.min()), float(values.max())
    limits = (1.0, 255.0) if image.mode == "F" else (65535.0,)
    white = next((limit for limit in limits if low >= 0 and high <= limit), None)
    if white is None:
        raise ValueError(f"grey values from {low:g} to {high:g} have no known white")
    return Image.fromarray((values * (255 / white)).round().astype(np.uint8))


def _over_white(image: Image.Image) -> Image.Image:
    """Lay an image with alpha, or with one transparent colour, over white."""
    from PIL import Image

    white = Image.new("RGBA", image.size, "white")
    colours = Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    if image.mode in ("1", "L", "LA"):
        return colours.convert("L")
    return _without_colour(colours) if image.mode in ("P", "PA") else colours


def _without_colour(image: Image.Image) -> Image.Image:
    """Make an RGB image of greys only a grey one: a palette does not say which it is."""
    from PIL import ImageChops

    red, green, blue = image.split()
    same = not ImageChops.difference(red, green).getbbox() and not ImageChops.difference(red, blue).getbbox()
    return red if same else image
