"""Predict with a kept version: images or texts, prepared as they were in training."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from torchgraft.edits.head import tasks
from torchgraft.errors import DataError, StoreError
from torchgraft.features.early import decoded
from torchgraft.keep import open_version
from torchgraft.schema import Schema
from torchgraft.tokens import Texts
from torchgraft.train.evaluate import given
from torchgraft.train.feed import moved
from torchgraft.train.prepare import Preparation, preparation_of
from torchgraft.train.tasks import task_of
from torchgraft.trainplan import TrainPlan

if TYPE_CHECKING:
    from torchgraft.graft import Graft
    from torchgraft.train.task import Task

__all__ = ["STDIN", "Answer", "predict"]

STDIN = Path("-")
"""Stands for texts that come in line by line."""

_CHUNK = 256
"""So many texts are read before they are sorted by their length."""

_BATCH = 32
"""So many texts of one length go through the model at once."""


class Answer(Schema):
    """What a version says of one image or text.

    Attributes:
        image: the file; None for a text.
        text: as it was given; None for an image.
        classes: of the version, in order: classes, labels, or the names of quantities.
        probabilities: of each class, which sum to 1; or of each label.
        values: of each quantity, where the version tells quantities.
        areas: the share of the pixels that each class has, where the version tells masks.
    """

    image: str | None = None
    text: str | None = None
    classes: tuple[str, ...]
    probabilities: tuple[float, ...] = ()
    values: tuple[float, ...] = ()
    areas: tuple[float, ...] = ()

    @property
    def name(self) -> str:
        """What was asked about."""
        return self.image or self.text or ""

    def ranked(self, count: int) -> list[tuple[str, float]]:
        """Give the `count` likeliest classes or labels with their probabilities."""
        pairs = zip(self.classes, self.probabilities, strict=True)
        return sorted(pairs, key=lambda pair: -pair[1])[:count]

    def json(self) -> str:  # type: ignore[override]  # pydantic's own of this name is of its first version
        """Write it as one JSON object, without what does not apply."""
        return self.model_dump_json(exclude_defaults=True)


def predict(
    reference: str, files: Sequence[Path] = (), *, texts: Sequence[str] = (), trust: bool = False
) -> Iterator[Answer]:
    """Tell what a kept version says of images, or of texts.

    Args:
        reference: the version; see `open_version`.
        files: images; for a version of texts, files with a text in each line, `-` being what comes in.
        texts: given outright.
        trust: whether code of the user's own may be run.

    Raises:
        StoreError: there is no such version, or it was not kept by training.
        DataError: a file can't be read, none was named, or the version takes something else.
    """
    if not files and not texts:
        raise DataError("no image and no text is given", where=reference, hint=_USAGE.format(reference))
    graft = open_version(reference, trust=trust)
    preprocess = graft.recipe.preprocess
    if preprocess is None or graft.version is None or not graft.version.classes:
        raise StoreError(
            "this version does not say how its input is prepared and what its classes are",
            where=reference,
            hint="keep it by torchgraft adapt or torchgraft train",
        )
    asking = _Asking(graft, preparation_of(graft, preprocess), _task(graft), graft.version.classes)
    if isinstance(preprocess, Texts):
        yield from asking.of_texts(_lines(files, texts))
        return
    if texts:
        raise DataError("this version takes images, not texts", where=reference, hint="name image files")
    yield from asking.of_images(files)


_USAGE = 'torchgraft predict {0} IMAGE.png …, or torchgraft predict {0} --text "…"'


class _Asking:
    """A version that is asked."""

    def __init__(self, graft: Graft, ready: Preparation, task: Task, classes: tuple[str, ...]) -> None:
        self.model, self.ready, self.task, self.classes = graft.module.eval(), ready, task, classes
        self.device = next((one.device for one in self.model.parameters()), torch.device("cpu"))

    def of_images(self, files: Iterable[Path]) -> Iterator[Answer]:
        for path in files:
            prepared = self.ready.prepare(decoded(path))
            yield Answer(image=str(path), classes=self.classes, **self._said([prepared])[0])

    def of_texts(self, texts: Iterator[str]) -> Iterator[Answer]:
        """Answer in order; texts of one length go together, so that none is filled up."""
        while chunk := list(islice(texts, _CHUNK)):
            prepared = [self.ready.prepare(text) for text in chunk]
            alike = defaultdict[int, list[int]](list)
            for place, one in enumerate(prepared):
                alike[len(one[0])].append(place)
            said: dict[int, dict[str, Any]] = {}
            for group in alike.values():
                for first in range(0, len(group), _BATCH):
                    places = group[first : first + _BATCH]
                    said |= dict(zip(places, self._said([prepared[one] for one in places]), strict=True))
            for place, text in enumerate(chunk):
                yield Answer(text=text, classes=self.classes, **said[place])

    @torch.no_grad()
    def _said(self, prepared: list[Any]) -> list[dict[str, Any]]:
        """Run the model once, and say for each sample what it gave."""
        found = self.task.answers(given(self.model, moved(self.ready.together(prepared), self.device)))
        told = {name: found[name] for name in ("probabilities", "values", "areas") if name in found}
        if not told:
            raise StoreError(
                f"predict tells classes, labels, quantities and masks, not {', '.join(found)}",
                where="predict",
                hint="open the version in Python: tg.open(…).module",
            )
        return [{name: tuple(rows[place]) for name, rows in told.items()} for place in range(len(prepared))]


def _task(graft: Graft) -> Task:
    """Give what the version's outputs are for; how it was trained for that no longer matters.

    A head says it. A model without a new one gives what it was trained for.
    """
    version = graft.version
    assert version is not None
    trained = version.history.task if version.history is not None else None
    return task_of(TrainPlan(data="-"), tasks(graft.recipe.edits), version.classes, kind=trained or "classes")


def _lines(files: Iterable[Path], texts: Iterable[str]) -> Iterator[str]:
    """Give the texts, and then each line of the files that is not empty.

    Raises:
        DataError: a file is not there, or is no text in UTF-8.
    """
    yield from texts
    for path in files:
        try:
            if path == STDIN:
                yield from (line.rstrip("\r\n") for line in sys.stdin if line.strip())
                continue
            with path.open(encoding="utf-8-sig") as file:
                yield from (line.rstrip("\r\n") for line in file if line.strip())
        except UnicodeDecodeError as error:
            raise DataError(
                "this is no text in UTF-8; the version reads texts", where=str(path), hint="a text in each line"
            ) from error
        except OSError as error:
            raise DataError(
                f"the texts can't be read: {error.strerror or error}",
                where=str(path),
                hint='name a file with a text in each line, or give one outright: --text "…"',
            ) from error
