"""Branches: two tensors meet in an addition, a product or a concatenation, and their sizes do not agree."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from torchgraft.blocks.projection import Projection
from torchgraft.edits.resize import Resize
from torchgraft.fixes.cause import Cause, Fault, Proposal
from torchgraft.fixes.channels import maker_layer
from torchgraft.fixes.places import before_break
from torchgraft.fixes.shape import crop, flat, grow, pool, pool_flat, replicate, times
from torchgraft.rules.breaks import joins_samples
from torchgraft.surgery.forward import plain

if TYPE_CHECKING:
    from torchgraft.trace import Mismatch

__all__ = ["Branches"]

_SUMS = frozenset({"add", "sub", "mul", "div"})
_JOINS = frozenset({"cat"})
_FEW = 3
"""Padding repeats so many rows or columns at most; beyond, a map is interpolated."""


class Branches(Cause):
    """Branches of other sizes are padded, interpolated, pooled or projected to each other's."""

    def proposals(self, fault: Fault) -> Iterator[Proposal]:
        """Fit one operand after the other to the rest."""
        at = fault.at
        if at is None or plain(at.op) not in _SUMS | _JOINS or len(at.inputs) < 2:
            return
        if joins_samples(fault.run, at):
            return  # the concatenation is at fault, not the branches
        shapes = [fault.shape(number) for number in at.inputs]
        if len({len(shape) for shape in shapes}) > 1:
            yield from _ranks(fault, at, shapes)
        elif _are_tokens(fault, at, shapes):
            yield from _tokens(fault, at, shapes)
        elif len(shapes[0]) > 2:
            yield from _maps(fault, at, shapes)
        elif len(shapes[0]) == 2 and plain(at.op) in _SUMS:
            yield from _projected(fault, at, shapes)


def _ranks(fault: Fault, at: Mismatch, shapes: list[tuple[int, ...]]) -> Iterator[Proposal]:
    """A map meets a vector: average the map, or give the vector the map's dimensions."""
    low = min(shapes, key=len)
    if len(low) != 2:
        return
    for number, shape in enumerate(shapes):
        if plain(at.op) in _JOINS and len(shape) > 2:
            says = f"averages each channel of the {times(shape[2:])} map"
            ones = (1,) * (len(shape) - 2)
            spec: Any = flat() if shape[2:] == ones else pool_flat(ones)
            yield Proposal("pool", before_break(fault, number, spec), says, harm=1)
        elif plain(at.op) in _SUMS and len(shape) == 2:
            other = max(shapes, key=len)
            if other[1] == shape[1]:
                size = [shape[1], *([1] * (len(other) - 2))]
                spec = {"nn.Unflatten": {"dim": 1, "unflattened_size": size}}
                yield Proposal("unflatten", before_break(fault, number, spec))


def _are_tokens(fault: Fault, at: Mismatch, shapes: list[tuple[int, ...]]) -> bool:
    """Tell whether two tensors in a sum are sequences or maps that hold their channels last."""
    alike = len(shapes) == 2 and len(shapes[0]) > 2
    return alike and plain(at.op) in _SUMS and any(fault.channels_last(number) for number in at.inputs)


def _tokens(fault: Fault, at: Mismatch, shapes: list[tuple[int, ...]]) -> Iterator[Proposal]:
    """Bring the channels, which come last, to agree; sequences of other lengths are stretched or averaged."""
    if shapes[0][-1] == shapes[1][-1]:
        for number in (0, 1):
            given, out = shapes[number][1:], shapes[1 - number][1:]
            word = "stretches" if given < out else "averages"
            says = f"{word} a sequence of {times(given[:-1])} places to {times(out[:-1])}"
            projection = Projection(out=out, given=given, channels="last")
            yield Proposal("interpolate", before_break(fault, number, projection), says, harm=2)
        return
    for number in (1, 0):
        maker = maker_layer(fault, at.inputs[number])
        if maker is not None:
            yield Proposal("resize-maker", ((Resize(at=maker, outputs=shapes[1 - number][-1]),),))
    for number in (1, 0):
        projection = Projection(out=shapes[1 - number][1:], given=shapes[number][1:], channels="last")
        yield Proposal("project", before_break(fault, number, projection))


def _maps(fault: Fault, at: Mismatch, shapes: list[tuple[int, ...]]) -> Iterator[Proposal]:
    shortcut = _shortcut(fault, at)
    if plain(at.op) in _SUMS and len(shapes) == 2:
        order = (shortcut, 1 - shortcut) if shortcut is not None else (0, 1)
        if shapes[0][1] != shapes[1][1]:
            yield from _resized(fault, at, shapes)
            for number in order:
                yield from _strided(fault, number, shapes[number], shapes[1 - number], number == shortcut)
            return
        if shortcut is not None and _stride(shapes[shortcut], shapes[1 - shortcut]):
            yield from _strided(fault, shortcut, shapes[shortcut], shapes[1 - shortcut], True)
    yield from _cropped(fault, at, shapes)
    yield from _sized(fault, shapes)


def _cropped(fault: Fault, at: Mismatch, shapes: list[tuple[int, ...]]) -> Iterator[Proposal]:
    """Cut what overhangs: a branch that was brought up again ends a little larger than the map it returns to."""
    depths = [sum(1 for _ in fault.run.upstream(number)) for number in at.inputs]
    first = shapes[depths.index(min(depths))][2:]
    for number, shape in enumerate(shapes):
        over = [a - b for a, b in zip(shape[2:], first, strict=True)]
        if depths[number] > min(depths) and any(over) and min(over) >= 0 and max(over) <= _FEW:
            says = f"cuts the border of the {times(shape[2:])} map down to {times(first)}"
            yield Proposal("crop", before_break(fault, number, crop(over)), says, harm=1)


def _resized(fault: Fault, at: Mismatch, shapes: list[tuple[int, ...]]) -> Iterator[Proposal]:
    """Let the layer that made one operand give as many channels as the other has."""
    for number in (1, 0):
        maker = maker_layer(fault, at.inputs[number])
        if maker is not None:
            yield Proposal("resize-maker", ((Resize(at=maker, outputs=shapes[1 - number][1]),),))


def _sized(fault: Fault, shapes: list[tuple[int, ...]]) -> Iterator[Proposal]:
    """Bring every map to the size of the largest, or of the smallest."""
    sizes = [shape[2:] for shape in shapes]
    largest = tuple(max(column) for column in zip(*sizes, strict=True))
    smallest = tuple(min(column) for column in zip(*sizes, strict=True))
    for number, size in enumerate(sizes):
        gaps = [a - b for a, b in zip(largest, size, strict=True)]
        if any(gaps) and max(gaps) <= _FEW and max(gaps) < min(size):
            says = f"repeats the border of the {times(size)} map up to {times(largest)}"
            yield Proposal("pad", before_break(fault, number, replicate(gaps)), says, harm=1)
        if any(gaps):
            says = f"stretches the {times(size)} map to {times(largest)}"
            yield Proposal("interpolate", before_break(fault, number, grow(largest)), says, harm=1)
    for number, size in enumerate(sizes):
        if size != smallest:
            says = f"averages the {times(size)} map to {times(smallest)}"
            yield Proposal("pool", before_break(fault, number, pool(smallest)), says, harm=1)


def _shortcut(fault: Fault, at: Mismatch) -> int | None:
    """Give the operand that the other one was made from."""
    for mine, other in ((0, 1), (1, 0)):
        if any(at.inputs[mine] in op.inputs for op in fault.run.upstream(at.inputs[other])):
            return mine
    return None


def _stride(given: tuple[int, ...], wanted: tuple[int, ...]) -> list[int] | None:
    """Give the strides of a 1×1 convolution that make a map of the wanted size; None where there are none."""
    strides = []
    for size, out in zip(given[2:], wanted[2:], strict=True):
        step = -(-size // out)
        if (size - 1) // step + 1 != out:
            return None
        strides.append(step)
    return strides


def _strided(
    fault: Fault, number: int, given: tuple[int, ...], wanted: tuple[int, ...], shortcut: bool
) -> Iterator[Proposal]:
    """A shortcut as residual networks have it: a strided 1×1 convolution and a norm (He et al., 2016)."""
    rank, stride = len(given) - 2, _stride(given, wanted)
    name = "shortcut" if shortcut else "project"
    if shortcut and stride is not None:
        conv = {"in_channels": given[1], "out_channels": wanted[1], "kernel_size": 1, "bias": False}
        step = {} if set(stride) == {1} else {"stride": stride[0] if len(set(stride)) == 1 else stride}
        norm = {f"nn.BatchNorm{rank}d": {"num_features": wanted[1]}}
        yield Proposal(name, before_break(fault, number, [{f"nn.Conv{rank}d": {**conv, **step}}, norm]))
    else:
        yield Proposal(name, before_break(fault, number, Projection(out=wanted[1:], given=given[1:])), harm=1)


def _projected(fault: Fault, at: Mismatch, shapes: list[tuple[int, ...]]) -> Iterator[Proposal]:
    yield from _resized(fault, at, shapes)
    shortcut = _shortcut(fault, at) or 0
    for number in (shortcut, 1 - shortcut):
        projection = Projection(out=shapes[1 - number][1:], given=shapes[number][1:])
        yield Proposal("project", before_break(fault, number, projection))
