"""The fonts that matplotlib ships: which letters they hold, and how one is drawn."""

from __future__ import annotations

import functools
from pathlib import Path

import matplotlib
import numpy as np
from fontTools.ttLib import TTFont
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

__all__ = ["ASCII_FONTS", "FONTS", "FULL_FONTS", "coverage", "draw"]

_DEJAVU = ("Sans", "SansMono"), ("", "-Bold", "-Oblique", "-BoldOblique")
FULL_FONTS = (
    *(f"DejaVu{family}{style}" for family in _DEJAVU[0] for style in _DEJAVU[1]),
    *(f"DejaVuSerif{style}" for style in ("", "-Bold", "-Italic", "-BoldItalic")),
    *(f"STIXGeneral{style}" for style in ("", "Bol", "Italic", "BolIta")),
)
# The Computer Modern files keep other signs at many code points, so only A-Z and a-z are read.
ASCII_FONTS = ("cmr10", "cmb10", "cmss10", "cmti10", "cmtt10")
FONTS = FULL_FONTS + ASCII_FONTS
_POINTS = 120
"""The size at which letters are drawn, well above the one they are stored at."""


def _path(font: str) -> str:
    return str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{font}.ttf")


@functools.cache
def coverage(font: str) -> frozenset[str]:
    """Give the characters that a font really holds."""
    held = {chr(code) for code in TTFont(_path(font)).getBestCmap()}
    return frozenset(one for one in held if font in FULL_FONTS or (one.isascii() and one.isalpha()))


@functools.cache
def _face(font: str) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(_path(font), _POINTS, layout_engine=ImageFont.Layout.BASIC)


def draw(character: str, font: str, side: int, *, stretch: bool) -> NDArray[np.float32]:
    """Draw a character into a square box `[side, side]`, ink 1, stretched or with its proportions kept."""
    face = _face(font)
    left, top, right, bottom = (round(edge) for edge in face.getbbox(character))
    page = Image.new("L", (right - left + 4, bottom - top + 4))
    ImageDraw.Draw(page).text((2 - left, 2 - top), character, fill=255, font=face)
    page = page.crop(page.getbbox())
    factor = side / max(page.size)
    width, height = (side if stretch else max(1, round(factor * edge)) for edge in page.size)
    box = Image.new("L", (side, side))
    box.paste(page.resize((width, height), Image.Resampling.BILINEAR), ((side - width) // 2, (side - height) // 2))
    ink: NDArray[np.float32] = np.asarray(box, dtype=np.float32) / np.float32(255)
    return ink
