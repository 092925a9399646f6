"""The frozen prefix of a network: what it gives is computed once, and the rest is trained alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from torchgraft.trace.tree import PLAIN, tensors
from torchgraft.train.prefix.cut import Cut, cut_of, seen
from torchgraft.train.prefix.fitness import hooked, misfit, unwrapped
from torchgraft.train.prefix.player import Drift, Layout, Player
from torchgraft.train.prefix.proof import count_of, picked, proven, uneven
from torchgraft.train.prefix.record import Drifted, Record, Steered, Unclear, recorded, state_kept
from torchgraft.train.prefix.rows import close, same
from torchgraft.train.prefix.stamp import Stamp, noted

__all__ = ["NOTHING", "Piece", "Prefix", "Refused", "prefix_of", "sized"]


Kinds = tuple[tuple[tuple[int, ...], torch.dtype], ...]

NOTHING = "nothing is frozen"

MANY = 4
"""Samples of the larger of the two passes that are recorded."""


@dataclass(frozen=True)
class Refused:
    """There is no prefix to keep, or it is not safe to; `why` says it in words."""

    why: str


@dataclass(frozen=True)
class Piece:
    """One tensor that the rest reads.

    Attributes:
        after: what makes it: the path of a module, or an operation.
        shape: of one sample.
        dtype: of its numbers.
        bytes: of one sample.
    """

    after: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    bytes: int

    def __str__(self) -> str:
        return f"after {self.after}: {list(self.shape)}, {sized(self.bytes)} a sample"


class Prefix:
    """The still part of one model in one mode, and how the rest runs without it.

    Attributes:
        model: the module itself, without what wraps it.
        cut: where it comes apart.
        pieces: what of each sample is kept.
        kinds: shape and type of the rows of each piece, as they are kept.
        device: where the passes are run.
        skipped: paths of the modules that are not called any more.
        fresh: numbers of samples whose batches have other last bits than the others: they are run whole.
        exact: what is kept is equal bit for bit to what a whole pass would give.
    """

    def __init__(self, model: nn.Module, cut: Cut, pieces: tuple[Piece, ...], kinds: Kinds, inputs: Any) -> None:
        self.model, self.cut, self.pieces, self.kinds = model, cut, pieces, kinds
        self.device = tensors(inputs)[0].device
        self.skipped = tuple(dict.fromkeys(step.path for step in cut.steps if step.still and not step.name))
        self.fresh: frozenset[int] = frozenset()
        self.exact = True
        self._player = Player(model, cut)
        self._layouts: dict[int, Layout] = {}
        self._shapes = _shapes(inputs)
        self.stamp: Stamp
        self._moving = [one for part in model.modules() if part.training for one in part.buffers(recurse=False)]

    @property
    def size(self) -> int:
        """Bytes that are kept of one sample."""
        return sum(piece.bytes for piece in self.pieces)

    @property
    def words(self) -> str:
        """Say where the cut is and what it costs."""
        return "; ".join(map(str, self.pieces))

    def stands(self) -> str:
        """Say why what was kept is not valid any more; nothing where it is."""
        return self.stamp.stands()

    def fits(self, inputs: Any) -> bool:
        """Tell whether a batch has samples of the size that was recorded."""
        return _shapes(inputs) == self._shapes

    def first(self, model: Callable[..., Any], inputs: Any) -> tuple[Any, list[Tensor]]:
        """Run a whole pass, with gradients as always, and take what the rest reads on the way.

        Args:
            model: what is called: the model, or what wraps it.
            inputs: a tensor, a dict by name, or a tuple by place.

        Returns:
            the output, and the rows `[N, …]` of each piece.

        Raises:
            Drifted: the pass went another way than the recorded one.
        """
        count = count_of(inputs)
        layout = self._layouts.get(count) or Layout()
        with self._guarded():
            output = self._player.whole(model, inputs, layout)
        self._layouts[count] = layout
        return output, self._taken(count)

    def rows(self, inputs: Any) -> list[Tensor]:
        """Compute what the rest reads of a batch, and no more; the model is as before."""
        try:
            with state_kept(self.model), torch.no_grad():
                self._player.whole(self.model, inputs, Layout(), stop=True)
        except Drift as drift:
            raise Drifted(str(drift)) from drift
        return self._taken(count_of(inputs))

    def rest(self, model: Callable[..., Any], rows: Sequence[Tensor]) -> Any:
        """Run the rest alone.

        Args:
            model: what is called: the model, or what wraps it.
            rows: as `first` gave them, of any samples, in memory of their own.

        Raises:
            Drifted: the pass went another way than the recorded one, or none of so many samples was seen.
        """
        count = len(rows[0])
        layout = self._layouts.get(count)
        if layout is None:
            raise Drifted(f"no pass of {count} samples was seen")
        pairs = zip(self.cut.lies.items(), rows, strict=True)
        slots = {number: lie.whole(row) for (number, lie), row in pairs}
        if not self._moving and not self.cut.draws:  # then a pass that drifts leaves nothing behind
            try:
                return self._player.rest(model, slots, layout)
            except Drift as drift:
                raise Drifted(str(drift)) from drift
        with self._guarded():
            return self._player.rest(model, slots, layout)

    def knows(self, count: int) -> bool:
        """Tell whether the rest can run on so many samples."""
        return count in self._layouts and count not in self.fresh

    def _taken(self, count: int) -> list[Tensor]:
        slots = self._player.slots
        self._player.slots = {}
        return [lie.rows(slots[number], count) for number, lie in self.cut.lies.items()]

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Leave no trace of a pass that drifts."""
        kept = [one.clone() for one in self._moving]
        generators = [torch.default_generator]
        if self.device.type == "cuda":
            generators.append(torch.cuda.default_generators[self.device.index or 0])
        states = [one.get_state() for one in generators]
        try:
            yield
        except Drift as drift:
            with torch.no_grad():
                for one, was in zip(self._moving, kept, strict=True):
                    one.copy_(was)
            for generator, state in zip(generators, states, strict=True):
                generator.set_state(state)
            raise Drifted(str(drift)) from drift


def prefix_of(
    model: nn.Module, inputs: Any, *, sizes: Collection[int] = (), exact: bool | None = None
) -> Prefix | Refused:
    """Find the frozen prefix of a model in the mode that it is in, and prove that it can be left out.

    Call it with gradients and autocast as the passes will have them; nothing of the model is changed.

    Args:
        model: in the mode of its passes; DDP around it is looked through.
        inputs: a real batch: a tensor, a dict that goes in by name, or a tuple that goes in by place.
        sizes: of the batches that will come, where they differ.
        exact: keep only what is equal bit for bit whatever the batch; where it is left out, so on the CPU, and up
            to rounding elsewhere.
    """
    inner = unwrapped(model)
    why = misfit(inner)
    if why:
        return Refused(why)
    try:
        return _found(inner, inputs, sizes, exact)
    except (Unclear, Drifted) as error:
        return Refused(error.what)


def _found(model: nn.Module, inputs: Any, sizes: Collection[int], exact: bool | None) -> Prefix | Refused:
    count = count_of(inputs)
    if all(one.requires_grad for one in model.parameters()):
        return Refused(NOTHING)
    if count < 2:
        return Refused("a batch of one sample does not tell what depends on the others")
    cut, record, many = _cut(model, inputs, count)
    visits = seen(cut, record)
    for visit in visits:
        if hook := hooked(visit.module):
            return Refused(f"a forward hook ({hook}) of {visit.path or 'the model'} would see nothing")
    parts = tuple(dict.fromkeys(visit.module for visit in visits))
    before = noted(parts)
    kinds = [
        (lie.rows(one, many)[0].shape, one.dtype)
        for one, lie in ((record.values[n], lie) for n, lie in cut.lies.items())
    ]
    prefix = Prefix(
        model, cut, _pieces(cut, record), tuple((tuple(shape), dtype) for shape, dtype in kinds), inputs
    )
    exact = all(one.device.type == "cpu" for one in tensors(inputs)) if exact is None else exact
    alike = same if exact else close
    why, fresh = uneven(prefix, inputs, sizes, alike)
    why = why or proven(prefix, inputs, alike)
    if why:
        return Refused(why)
    after = noted(parts)
    moving = [key for key in after if key not in before or after[key] != before[key]]
    out = {part for step in cut.steps if step.still and step.module is not None for part in step.module.modules()}
    for place, name in moving:
        if parts[place] in out and type(vars(parts[place])[name]) in PLAIN:
            return Refused(f"a frozen {type(parts[place]).__name__} counts its passes, in '{name}'")
    prefix.fresh, prefix.exact, prefix.stamp = fresh, exact, Stamp(model, parts, moving)
    return prefix


def _cut(model: nn.Module, inputs: Any, count: int) -> tuple[Cut, Record, int]:
    """Record two small passes and take them apart; gives the number of samples of the first one too.

    Once more, if the first one filled a cache; and with all samples, if the pass is steered by what is in a batch.
    """
    many = [count * place // MANY for place in range(MANY)]
    few = [2, 0, 3] if count >= MANY else [MANY // 2, 0, MANY // 2]
    whole = list(range(count))
    for tries, (rows, twins) in enumerate([(many, few), (many, few), (whole, [*whole[::-1], 0])]):
        one = recorded(model, picked(inputs, rows))
        other = recorded(model, picked(inputs, [rows[row] for row in twins]))
        try:
            cut = cut_of(one, other, tuple(twins), len(rows))
        except Steered:
            if tries == 2:
                raise
            continue
        if tries == 2 or cut.inquiry.first(dict(zip(cut.inputs, tensors(inputs), strict=False))) is not None:
            return cut, one, len(rows)
    raise AssertionError


def _pieces(cut: Cut, record: Record) -> tuple[Piece, ...]:
    found = []
    for number, lie in cut.lies.items():
        value = record.values[number]
        shape = [size for dim, size in enumerate(value.shape) if dim != lie.axis]
        if lie.each != 1:
            shape = [lie.each, *shape]
        found.append(
            Piece(_after(number, cut, record), tuple(shape), value.dtype, math.prod(shape) * value.element_size())
        )
    return tuple(found)


def _after(number: int, cut: Cut, record: Record) -> str:
    if cut.places[number] < 0:
        return "the input" if number in record.inputs else "what is asked of the input"
    step = cut.steps[cut.places[number]]
    return f"{step.name} in {step.path or 'the model'}".removeprefix(" in ")


def _shapes(inputs: Any) -> list[tuple[int, ...]]:
    return [tuple(one.shape[1:]) for one in tensors(inputs)]


def sized(count: int) -> str:
    """Write bytes for reading: `16.4 kB`."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{size:.3g} {unit}"
        size /= 1000
    raise AssertionError
