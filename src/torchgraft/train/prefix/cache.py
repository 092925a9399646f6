"""What a training asks: run a batch whole and keep what the frozen part gives, or run the rest on what is kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from torchgraft.train.prefix.held import Held, NoRoom
from torchgraft.train.prefix.place import OFF, place_of, too_short
from torchgraft.train.prefix.prefix import NOTHING, Prefix, Refused, prefix_of, sized
from torchgraft.train.prefix.record import Drifted, called

if TYPE_CHECKING:
    from torchgraft.trainplan import TrainPlan

__all__ = ["Cache", "Set"]

VARIED = "samples are varied anew each time; views: 4 keeps to four variants"

BLENDED = "mixup and cutmix blend each sample with another one each time"

UNEVEN = (
    "each batch is filled up to its longest text; preprocess: {tokens: {padding: max_length}} gives all one length"
)


@dataclass(frozen=True)
class Set:
    """The samples that a cache is for.

    Attributes:
        count: how many there are, by places from 0.
        views: variants of each.
        sizes: of the batches of this process, in an epoch.
        copies: processes of this machine that each keep their own.
        fixed: a sample has the same inputs each time it comes in the same view.
        uneven: it has not, since batches are filled up to their longest text.
        again: reads the inputs of a batch once more, by places and view: asked where a batch that was kept has to
            be run whole after all.
    """

    count: int
    views: int = 1
    sizes: Sequence[int] = ()
    copies: int = 1
    fixed: bool = True
    uneven: bool = False
    again: Callable[[Sequence[int], int], Any] | None = None


class Cache:
    """The prefix of a model over one set of samples, in one mode.

    Nothing is looked for before the first batch. Where there is no prefix, or it went wrong on the way, every
    batch is run whole, and `why` says so.

    Attributes:
        prefix: what was found; None before the first batch, and where there is none.
        why: nothing is kept, and this is the reason.
        answered: batches that were run in part.
        whole: batches that were run whole.
        news: `words` have something new to say.
    """

    def __init__(self, plan: TrainPlan, samples: Set, *, epochs: int, folder: Path | None = None) -> None:
        self.plan, self.samples, self.folder, self.epochs = plan, samples, folder, epochs
        self.prefix: Prefix | None = None
        self.held: Held | None = None
        self.answered = self.whole = 0
        self._sought = False
        varied = BLENDED if plan.mixup or plan.cutmix else VARIED
        self.why = UNEVEN if samples.uneven else "" if samples.fixed else varied
        if plan.cache == "off":
            self.why = OFF
        self.news = bool(self.why) and plan.cache in ("memory", "disk")

    def renew(self, model: nn.Module, epochs: int) -> None:
        """Begin an epoch: what was kept goes if the model is another one by now, and a prefix is looked for again.

        Args:
            model: in the mode that it will be run in.
            epochs: that are still to come, this one included.
        """
        self.epochs = epochs
        if self.why == UNEVEN and not self._sought:
            self._sought = True
            self.news |= not all(one.requires_grad for one in model.parameters())
        if self.prefix is not None and (self.prefix.model is not model or self.prefix.stands()):
            self.prefix = self.held = None
            self._sought = False

    def holds(self, places: Sequence[int], view: int = 0) -> bool:
        """Tell whether a batch can be run without its inputs."""
        if self.prefix is None or self.held is None:
            return False
        return self.prefix.knows(len(places)) and self.held.holds(places, view)

    def output(
        self, run: Callable[..., Any], model: nn.Module, inputs: Any, places: Sequence[int], view: int = 0
    ) -> Any:
        """Run a batch.

        Args:
            run: the model, or what wraps it.
            model: the module itself.
            inputs: of the batch; None where `holds` said that they are not needed.
            places: of the samples; empty where nobody knows them.
            view: which variant.
        """
        if self.holds(places, view):
            return self._rest(run, inputs, places, view)
        inputs = self._read(inputs, places, view)
        if not self._sought and not self.why and len(places):
            self._seek(model, inputs)
        self.whole += 1
        if self.prefix is None or self.held is None or not len(places) or len(places) in self.prefix.fresh:
            return called(run, inputs)
        return self._first(run, inputs, places, view)

    def _read(self, inputs: Any, places: Sequence[int], view: int) -> Any:
        """Read inputs that the feed left out, where they are needed after all."""
        return self.samples.again(places, view) if inputs is None and self.samples.again is not None else inputs

    def _rest(self, run: Callable[..., Any], inputs: Any, places: Sequence[int], view: int) -> Any:
        assert self.prefix is not None
        assert self.held is not None
        try:
            output = self.prefix.rest(run, self.held.get(places, view, self.prefix.device))
        except Drifted:
            self.whole += 1
            return called(run, self._read(inputs, places, view))
        self.answered += 1
        return output

    def _first(self, run: Callable[..., Any], inputs: Any, places: Sequence[int], view: int) -> Any:
        assert self.prefix is not None
        assert self.held is not None
        if not self.prefix.fits(inputs):
            self._drop("samples come in several sizes")
            return called(run, inputs)
        try:
            output, rows = self.prefix.first(run, inputs)
        except Drifted:
            return called(run, inputs)
        self.held.put(places, view, rows)
        return output

    @property
    def words(self) -> str:
        """Say what is kept and where, or why nothing is."""
        if self.prefix is None or self.held is None:
            return f"nothing is kept of the frozen part: {self.why}" if self.why else ""
        where = "in memory" if self.held.folder is None else f"in {self.held.folder}"
        return f"frozen part computed once, {self.prefix.words}, {sized(self.held.bytes)} {where}"

    def told(self) -> str:
        """Give the words once."""
        self.news = False
        return self.words

    def _drop(self, why: str) -> None:
        self.why, self.prefix, self.held = why, None, None
        self.news = True

    def _seek(self, model: nn.Module, inputs: Any) -> None:
        self._sought = True
        self.why = too_short(self.plan, self.epochs, len(self.samples.sizes))
        if self.why:
            self.news = False
            return
        found = prefix_of(model, inputs, sizes=self.samples.sizes)
        held = self._place(found) if isinstance(found, Prefix) else found
        if isinstance(found, Refused) or isinstance(held, Refused):
            self.why = held.why if isinstance(held, Refused) else ""
            self.news = self.why != NOTHING or self.plan.cache != "auto"
            return
        self.prefix, self.held, self.news = found, held, True

    def _place(self, found: Prefix) -> Held | Refused:
        count, views = self.samples.count, self.samples.views
        place = place_of(self.plan, found.size * count * views * self.samples.copies, self.folder)
        if isinstance(place, Refused):
            return place
        try:
            return Held(found.kinds, count, views=views, folder=self.folder if place == "disk" else None)
        except NoRoom as error:
            return Refused(str(error))
