"""Choose the classes of `letters:COUNT`; they were chosen once and are frozen in data/lettering/classes.py.

A class is an undecorated letter that several of matplotlib's fonts hold and that looks like no digit, so that no
digit is ever learnt from it, and like no letter chosen before it. Run by hand, this prints the literal.
"""

from __future__ import annotations

import unicodedata

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from torchgraft.data.lettering.fonts import FONTS, FULL_FONTS, coverage, draw

SCRIPTS = ("LATIN", "GREEK", "CYRILLIC", "ARMENIAN", "GEORGIAN", "HEBREW", "ARABIC", "CANADIAN", "COPTIC")
MIN_FONTS = 4
DIGIT_LIMIT = 0.72
"""A letter this similar to a digit is no class."""
TWIN_LIMIT = 0.65
"""A letter this similar to an earlier letter is no class."""
PLAIN_FONTS = ("DejaVuSans", "DejaVuSerif", "STIXGeneral")
"""Twins are looked for in the first of these that holds the letter."""
SIDE = 24


def chosen() -> tuple[str, ...]:
    """Choose the letters that resemble neither a digit nor an earlier letter."""
    letters = _candidates()
    near = _digit_likeness(letters)
    return _without_twins([letter for letter, alike in zip(letters, near, strict=True) if alike < DIGIT_LIMIT])


def _candidates() -> list[str]:
    """List every undecorated letter of SCRIPTS that at least MIN_FONTS fonts hold, in the order of Unicode."""
    held = [coverage(font) for font in FULL_FONTS]
    letters = []
    for character in sorted(frozenset[str]().union(*held)):
        plain = unicodedata.category(character) in ("Lu", "Ll", "Lo") and not unicodedata.decomposition(character)
        script = unicodedata.name(character, "?").split()[0]
        if plain and script in SCRIPTS and sum(character in one for one in held) >= MIN_FONTS:
            letters.append(character)
    return letters


def _digit_likeness(letters: list[str]) -> NDArray[np.float64]:
    """Give each letter's highest correlation with a digit of the same font, over all fonts."""
    best = np.full(len(letters), -1.0)
    for font in FONTS:
        digits = np.stack([_fingerprint(digit, font) for digit in "0123456789"])
        for number, letter in enumerate(letters):
            if letter in coverage(font):
                best[number] = max(best[number], _likeness(_fingerprint(letter, font), digits))
    return best


def _without_twins(letters: list[str]) -> tuple[str, ...]:
    """Keep a letter when no letter kept before it looks like it."""
    fonts = [next(font for font in PLAIN_FONTS if letter in coverage(font)) for letter in letters]
    prints = np.stack([_fingerprint(letter, font) for letter, font in zip(letters, fonts, strict=True)])
    kept: list[int] = []
    for number, print_ in enumerate(prints):
        if not kept or _likeness(print_, prints[kept]) < TWIN_LIMIT:
            kept.append(number)
    return tuple(letters[number] for number in kept)


def _fingerprint(character: str, font: str) -> NDArray[np.float32]:
    """Give unit vectors `[2, SIDE * SIDE]` of the drawing, stretched and not, blurred to forgive small shifts."""
    drawn = [draw(character, font, SIDE, stretch=stretch) for stretch in (True, False)]
    rows = [ndimage.gaussian_filter(one, 1.0).ravel() for one in drawn]
    rows = [row - row.mean() for row in rows]
    return np.stack([row / (np.linalg.norm(row) + 1e-6) for row in rows])


def _likeness(one: NDArray[np.float32], others: NDArray[np.float32]) -> float:
    return float(np.einsum("kp,nkp->nk", one, others).max())


def main() -> None:
    """Print the list as it stands in the frozen file, 16 letters a line."""
    escapes = [f"\\u{ord(letter):04x}" for letter in chosen()]
    for start in range(0, len(escapes), 16):
        print(f'    "{"".join(escapes[start : start + 16])}"')


if __name__ == "__main__":
    main()
