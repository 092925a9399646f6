"""Predict with a kept version: the same preprocessing that training used."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from torchgraft.data.images import decode
from torchgraft.errors import DataError, StoreError
from torchgraft.graft import Graft
from torchgraft.keep import open_version
from torchgraft.schema import Schema
from torchgraft.train.evaluate import probabilities

__all__ = ["Answer", "predict"]


class Answer(Schema):
    """The probabilities of every class for one image, in the order of the classes."""

    image: str
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]

    def ranked(self, count: int) -> list[tuple[str, float]]:
        """Give the `count` likeliest classes with their probabilities."""
        pairs = zip(self.classes, self.probabilities, strict=True)
        return sorted(pairs, key=lambda pair: -pair[1])[:count]


def predict(reference: str, images: Sequence[Path], *, trust: bool = False) -> Iterator[Answer]:
    """Tell the classes of image files by a kept version.

    Raises:
        StoreError: there is no such version, or it was not kept by training.
        DataError: an image can't be read, or none was named.
    """
    if not images:
        raise DataError("no image is named", where=reference, hint=f"torchgraft predict {reference} IMAGE.png …")
    graft = open_version(reference, trust=trust)
    for path in images:
        yield _answer(graft, path, reference)


def _answer(graft: Graft, path: Path, reference: str) -> Answer:
    preprocess = graft.recipe.preprocess
    if preprocess is None or graft.version is None or not graft.version.classes:
        raise StoreError(
            "this version does not say how images are prepared and what its classes are",
            where=reference,
            hint="keep it by torchgraft adapt or torchgraft train",
        )
    try:
        image = decode(path)
    except (OSError, ValueError) as error:
        raise DataError(f"the image can't be read: {error}", where=str(path), hint="give an image file") from error
    chances = probabilities(graft.module, preprocess.transform()(image).unsqueeze(0))[0]
    return Answer(image=str(path), classes=graft.version.classes, probabilities=tuple(chances.tolist()))
