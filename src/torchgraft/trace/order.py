"""The order of a model's layers in the pass: what reads the input, each block, what makes the output; and stages.

A block is found by its structure, not by its name: a module with two weight matrices or more, of a class of which
two stand in a row in a list (`Sequential`, `ModuleList`), the second fed by the first. What holds such a row is
opened. What runs before the first block is the stem, what runs after the last one the tail; a single matrix
between blocks (a downsampling, a transition) goes with the block that follows. A model without blocks (VGG, a
plain stack) has one layer for each matrix of weights.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from torch import nn

from torchgraft.paths import joined

if TYPE_CHECKING:
    from torchgraft.trace.record import Call, Trace

__all__ = ["Layer", "Order", "order"]


@dataclass(frozen=True)
class Layer:
    """One step of the pass: a block with what belongs to it.

    Attributes:
        paths: the modules and single parameters that it consists of, in the order of the pass.
        names: all their parameters.
        stage: the number of its stage, counted from 1; 0 for the stem and for the tail of a model with blocks.
    """

    paths: tuple[str, ...]
    names: tuple[str, ...]
    stage: int = 0

    def __str__(self) -> str:
        return ", ".join(self.paths[:3]) + (", …" if self.paths[3:] else "")


@dataclass(frozen=True)
class Order:
    """The layers of a model in the order of the pass, the stem first.

    Attributes:
        layers: the stem, each block, the tail.
    """

    layers: tuple[Layer, ...]

    @property
    def stem(self) -> Layer:
        """What reads the input, up to the first block."""
        return self.layers[0]

    @cached_property
    def depths(self) -> dict[str, int]:
        """The number of the layer that each parameter belongs to, from 0."""
        return {name: number for number, layer in enumerate(self.layers) for name in layer.names}

    @property
    def stages(self) -> int:
        """How many stages there are between stem and tail."""
        return max((layer.stage for layer in self.layers), default=0)


@dataclass(frozen=True)
class _Unit:
    """A module that is not opened, or one parameter of a module that is: where its weights are first used."""

    path: str
    module: nn.Module | None
    names: tuple[str, ...]
    first: float
    in_list: str | None = None

    @property
    def matrices(self) -> int:
        return _matrices(self.module) if self.module is not None else 0


def order(trace: Trace, model: nn.Module) -> Order:
    """Put a model's layers in the order of the pass.

    Args:
        trace: of the model as it stands; parameters that it did not use (auxiliary heads) go with the tail.
        model: what was traced.
    """
    units = sorted(_Tree(trace, model).units(), key=lambda unit: unit.first)
    used = [unit for unit in units if unit.first < _NEVER]
    unused = [unit for unit in units if unit.first == _NEVER]
    parts = _parts(used)
    if unused:
        parts = [*parts[:-1], [*parts[-1], *unused]] if parts else [unused]
    stages = _stages(parts, trace)
    return Order(
        tuple(
            Layer(tuple(unit.path for unit in part), tuple(name for unit in part for name in unit.names), stage)
            for part, stage in zip(parts, stages, strict=True)
        )
    )


_NEVER = float("inf")
_ADDS = ("add", "add_", "iadd", "__iadd__")


# units


class _Tree:
    """Finds what to open: what holds a list of blocks, at any depth."""

    def __init__(self, trace: Trace, model: nn.Module) -> None:
        self.trace, self.model = trace, model
        self.first: dict[str, int] = {}
        for op in trace.ops:
            for name in op.params:
                self.first.setdefault(name, op.index)
        self.calls: dict[str, Call] = {}
        for call in trace.calls:
            self.calls.setdefault(call.path, call)
        self.names = [name for name, _ in model.named_parameters()]
        self.opened: set[type[nn.Module]] = set()
        self._holds_blocks("", model)

    def units(self) -> list[_Unit]:
        """Give what the layers are made of."""
        found = list(self._within("", self.model))
        while (whole := self._opaque(found)) is not None:
            inside = list(self._within(whole.path, whole.module or self.model))
            found = [one for unit in found for one in (inside if unit is whole else [unit])]
        return found

    def _opaque(self, units: Sequence[_Unit]) -> _Unit | None:
        """Give a module of its own kind that holds more than half of the layers: a wrapped model."""
        total = sum(unit.matrices for unit in units)
        kinds = [type(unit.module) for unit in units]
        for unit in units:
            alone = kinds.count(type(unit.module)) == 1 and any(True for _ in _children(unit.module))
            if alone and unit.matrices > max(total / 2, 2):
                return unit
        return None

    def _within(self, path: str, module: nn.Module) -> Iterator[_Unit]:
        """Open a module: its own parameters, and its children."""
        for name in module._parameters:
            own = joined(path, name)
            if own in self.names:
                yield _Unit(own, None, (own,), self.first.get(own, _NEVER))
        for name, child in _children(module):
            place = joined(path, name)
            if self._opens(child):
                yield from self._within(place, child)
                continue
            names = tuple(one for one in self.names if one.startswith(f"{place}."))
            if names:
                first = min(self.first.get(one, _NEVER) for one in names)
                yield _Unit(place, child, names, first, self._list_of(place))

    def _list_of(self, path: str) -> str | None:
        """Give the outermost list that holds a module."""
        parts = path.split(".")
        homes = (".".join(parts[:length]) for length in range(len(parts)))
        return next((home for home in homes if _is_list(self.model.get_submodule(home))), None)

    def _opens(self, module: nn.Module) -> bool:
        if _is_list(module):
            return _matrices(module) > 1
        return type(module) in self.opened

    def _holds_blocks(self, path: str, module: nn.Module) -> bool:
        """Tell whether blocks stand in a row anywhere in a module, and note the classes that hold such rows."""
        inside = [self._holds_blocks(joined(path, name), child) for name, child in _children(module)]
        row = self._is_row(path, module) or any(inside)
        if row and not _is_list(module) and path:
            if self._adds_past(path, module):
                return False
            self.opened.add(type(module))
        return row

    def _adds_past(self, path: str, module: nn.Module) -> bool:
        """Tell whether a module adds what went past its children to what went through them: a residual block."""
        call = self.calls.get(path)
        if call is None:
            return False
        past, through = set(call.given), set[int]()
        direct = {joined(path, name) for name, child in _children(module) if _matrices(child) > 1}
        for op in self.trace.ops[call.first_op : call.last_op]:
            inside = any(op.path == one or op.path.startswith(f"{one}.") for one in direct)
            if (
                op.name in _ADDS
                and past.intersection(op.inputs)
                and through.intersection(op.inputs)
                and not inside
            ):
                return True
            (through if inside or through.intersection(op.inputs) else past).update(op.outputs)
        return False

    def _is_row(self, path: str, module: nn.Module) -> bool:
        """Tell whether blocks of one class follow each other: two in a list, or three in numbered attributes."""
        thick = [(name, one) for name, one in _children(module) if not _is_list(one) and _matrices(one) > 1]
        if not _is_list(module):
            thick = [(name, one) for name, one in thick if name[-1].isdigit()]
        fed = [
            type(one) is type(next_) and self._feeds(joined(path, name), joined(path, after))
            for (name, one), (after, next_) in itertools.pairwise(thick)
        ]
        return sum(fed) >= (1 if _is_list(module) else 2)

    def _feeds(self, before: str, after: str) -> bool:
        """Tell whether what one call gave reaches what another was given."""
        one, other = self.calls.get(before), self.calls.get(after)
        if one is None or other is None or one.last_op > other.first_op:
            return False
        wanted = set(other.given)
        reached = set(one.gave)
        for op in self.trace.ops[one.last_op : other.first_op]:
            if reached.intersection(op.inputs):
                reached.update(op.outputs)
        return bool(reached & wanted)


def _is_list(module: nn.Module) -> bool:
    return isinstance(module, (nn.Sequential, nn.ModuleList, nn.ModuleDict))


def _children(module: nn.Module | None) -> Iterator[tuple[str, nn.Module]]:
    if module is not None:
        yield from ((name, one) for name, one in module._modules.items() if one is not None)


def _matrices(module: nn.Module) -> int:
    """Count the layers of a module that multiply by weights."""
    return sum(
        any(one is not None and one.dim() > 1 for one in part._parameters.values()) for part in module.modules()
    )


# layers


def _parts(units: Sequence[_Unit]) -> list[list[_Unit]]:
    """Put units together into layers."""
    blocks = _blocks(units)
    if not blocks:
        return _plain(units)
    before, between, after = units[: blocks[0]], units[blocks[0] : blocks[-1] + 1], units[blocks[-1] + 1 :]
    parts = [list(before)] if before else []
    waiting: list[_Unit] = []
    for unit in between:
        if unit.module is not None and not unit.matrices and len(parts) > bool(before):
            parts[-1].append(unit)  # a norm goes with what it follows
            continue
        waiting.append(unit)
        if unit.matrices > 1:  # a single matrix, such as a downsampling, goes with the block that follows
            parts.append(waiting)
            waiting = []
    return [*parts, list(after)] if after else parts


def _blocks(units: Sequence[_Unit]) -> list[int]:
    """Give the numbers of the units that are blocks: of a class that repeats, or in a list with such."""
    thick = [number for number, unit in enumerate(units) if unit.matrices > 1]
    kinds = [type(units[number].module) for number in thick]
    repeated = {number for number, kind in zip(thick, kinds, strict=True) if kinds.count(kind) > 1}
    homes = {units[number].in_list for number in repeated} - {None}
    return [number for number in thick if number in repeated or units[number].in_list in homes]


def _plain(units: Sequence[_Unit]) -> list[list[_Unit]]:
    """Make a layer of each matrix of weights; norms and single parameters go with what stands before them."""
    parts: list[list[_Unit]] = []
    full = False
    for unit in units:
        if parts and (not unit.matrices or not full):
            parts[-1].append(unit)
        else:
            parts.append([unit])
            full = False
        full = full or bool(unit.matrices)
    return parts


# stages


def _stages(parts: Sequence[Sequence[_Unit]], trace: Trace) -> list[int]:
    """Number the stages: lists of blocks, or runs of one size where all blocks stand in one list."""
    blocks = _blocks([unit for part in parts for unit in part])
    if not blocks:
        return _by_size(parts, trace)
    units = [unit for part in parts for unit in part]
    thick = {units[number].path for number in blocks}
    homes: list[object] = [
        next((unit.path.rpartition(".")[0] for unit in part if unit.path in thick), None) for part in parts
    ]
    if len(set(homes) - {None}) == 1:
        sizes = [_size(next((u.path for u in part if u.path in thick), ""), trace) for part in parts]
        homes = [size if home is not None else None for home, size in zip(homes, sizes, strict=True)]
    inside = [number for number, home in enumerate(homes) if home is not None]
    return _numbered(homes, inside[0], inside[-1])


def _by_size(parts: Sequence[Sequence[_Unit]], trace: Trace) -> list[int]:
    """Number the stages of a plain stack, whose first layer is the stem and whose last is the tail."""
    maps = [_size(part[0].path, trace) for part in parts]
    inside = [n for n, size in enumerate(maps) if len(size) > 1 and 0 < n < len(parts) - 1]
    homes: list[object] = [size[1:] if number in inside else None for number, size in enumerate(maps)]
    return _numbered(homes, inside[0], inside[-1]) if inside else [0] * len(parts)


def _numbered(homes: Sequence[object], first: int, last: int) -> list[int]:
    """Number runs of one home; what stands between two runs belongs to the later one."""
    numbers, stage, current = [0] * len(homes), 0, None
    for number in range(first, last + 1):
        if homes[number] is not None and homes[number] != current:
            stage, current = stage + 1, homes[number]
        numbers[number] = stage
    for number in range(last, first, -1):
        if homes[number] is None and number < last:
            numbers[number] = numbers[number + 1]
    return numbers


def _size(path: str, trace: Trace) -> tuple[int, ...]:
    """Give the sizes of what a module gave, without the batch: of the first tensor."""
    gave = trace.gave(path)
    return tuple(gave[0].shape[1:]) if gave else ()
