"""What was seen in a pass: each call of each module asked for, with its tensors and their gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import TYPE_CHECKING, Any

from torchgraft.errors import SelectionError, nearest
from torchgraft.paths import joined

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Feature", "Record", "Seen", "Values", "places"]

_SHOWN = 60
"""So many lines are printed; the rest is counted."""


@dataclass(frozen=True)
class Feature:
    """One tensor that was seen.

    Attributes:
        path: of the module.
        kind: the class of the module.
        call: which call of the module it is of, from 1.
        place: where the tensor stands in what the module gave: `0`, `hidden_states.1`; "" if it gave that alone.
        tensor: as the layer gave it.
        gradient: what came back to it, where that was asked for and a backward pass has run.
    """

    path: str
    kind: str
    call: int
    place: str
    tensor: Tensor
    gradient: Tensor | None = None

    @property
    def name(self) -> str:
        """The path with the place: `lstm.1.0`."""
        return joined(self.path, self.place) if self.place else self.path


@dataclass(eq=False)
class Record:
    """One call of a module: its value, the tensors in it by place, and the gradients that came so far.

    `sources` are the tensors in the graph that gradients come to.
    """

    path: str
    kind: str
    call: int
    value: Any
    tensors: dict[str, Tensor]
    gradients: dict[str, Tensor] = field(default_factory=dict)
    sources: list[Tensor] = field(default_factory=list)

    def features(self) -> Iterator[Feature]:
        """Give each tensor by itself."""
        for place, tensor in self.tensors.items():
            yield Feature(self.path, self.kind, self.call, place, tensor, self.gradients.get(place))


class Values:
    """Values by the name of their layer: of the outputs or inputs, or of their gradients."""

    def __init__(self, seen: Seen, read: Callable[[Record, str], Any], noun: str) -> None:
        self._seen, self._read, self._noun = seen, read, noun

    def __getitem__(self, name: str) -> Any:
        """Give the value of the only call of a layer.

        Raises:
            SelectionError: it was not called, more than once, or there is no such layer.
        """
        found = self.calls(name)
        if len(found) > 1:
            raise SelectionError(
                f"'{name}' was called {len(found)} times", where=name, hint=f".calls({name!r}) gives every call"
            )
        return found[0]

    def calls(self, name: str) -> tuple[Any, ...]:
        """Give the values of every call of a layer, in order.

        Raises:
            SelectionError: it was not called, or there is no such layer.
        """
        records, place = self._seen.records(name)
        found = tuple(self._read(record, place) for record in records)
        if any(one is None for one in found):
            raise SelectionError(f"'{name}' has no {self._noun}", where=name, hint=self._seen.why_no_gradient)
        return found


class Seen:
    """What a capture has seen in the latest pass: `seen["layer2"]`, `seen.calls("relu")`, `for one in seen`.

    Attributes:
        title: what the model is called.
        gradients: gradients by the same names, once a backward pass has run.
        why_no_gradient: what to do where a gradient is asked for that is not there.
    """

    def __init__(self, paths: Mapping[str, str], title: str = "", run: Callable[..., Any] | None = None) -> None:
        self.title = title
        self._run = run
        self.why_no_gradient = "capture(…, gradients=True), and call backward() on what was computed from it"
        self._aliases = dict(paths)
        self._records: dict[str, list[Record]] = {}
        self._order: list[Record] = []
        self._values = Values(self, _value, "tensor there")
        self.gradients = Values(self, _gradient, "gradient")

    def __getitem__(self, name: str) -> Any:
        """Give what the only call of a layer gave: a tensor, or the structure of them; see `Values`."""
        return self._values[name]

    def calls(self, name: str) -> tuple[Any, ...]:
        """Give what every call of a layer gave, in order."""
        return self._values.calls(name)

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model in evaluation mode and leave it as it was; see `Capture.run`.

        Raises:
            TypeError: what was seen belongs to no model.
        """
        if self._run is None:
            raise TypeError("what was seen belongs to no model that could be run")
        return self._run(*args, **kwargs)

    def pull(self, score: Tensor) -> None:
        """Compute the gradients of a score to all that was seen, and leave those of the parameters alone.

        Args:
            score: one number, computed from the output of the pass.

        Raises:
            SelectionError: gradients were not asked for.
        """
        import torch

        sources = [one for record in self._order for one in record.sources]
        if not sources:
            raise SelectionError("there is nothing that a gradient could come to", hint=self.why_no_gradient)
        torch.autograd.grad(score, sources, allow_unused=True)

    def __contains__(self, name: object) -> bool:
        return self._aliases.get(str(name), name) in self._records

    def __iter__(self) -> Iterator[Feature]:
        for record in self._order:
            yield from record.features()

    def __len__(self) -> int:
        return sum(len(record.tensors) for record in self._order)

    @property
    def paths(self) -> tuple[str, ...]:
        """The layers that were called, in the order in which they gave something."""
        return tuple(self._records)

    def add(self, path: str, kind: str, value: Any, tensors: dict[str, Tensor]) -> Record:
        """Write down one call."""
        calls = self._records.setdefault(path, [])
        record = Record(path, kind, len(calls) + 1, value, tensors)
        calls.append(record)
        self._order.append(record)
        return record

    def clear(self) -> None:
        """Forget everything."""
        self._records, self._order = {}, []

    def records(self, name: str) -> tuple[list[Record], str]:
        """Give the calls that a name stands for, and the place of the tensor in them.

        Raises:
            SelectionError: there is none.
        """
        path, place = name, ""
        while self._aliases.get(path, path) not in self._records:
            if "." not in path:
                raise self._nothing(name)
            path, _, last = path.rpartition(".")
            place = joined(last, place) if place else last
        records = self._records[self._aliases.get(path, path)]
        if place and any(not _is_place(place, record) for record in records):
            raise self._nothing(name)
        return records, place

    def _nothing(self, name: str) -> SelectionError:
        if name in self._aliases:
            hint = "run the model inside of the with block" if not self._order else "another input may reach it"
            return SelectionError(f"'{name}' was not called in this pass", where=name, hint=hint)
        known = [*self._records, *(one.name for one in self)]
        some = f"seen: {', '.join(list(self._records)[:8])}" if self._records else "nothing was seen yet"
        return SelectionError(f"'{name}' was not captured", where=name, hint=nearest(name, known) or some)

    def __str__(self) -> str:
        if not self._order:
            return "nothing was seen yet: run the model inside of the with block, or seen.run(x)"
        rows = [_row(one) for one in self]
        shown = [("layer", "call", "shape", "mean", "std"), *rows[:_SHOWN]]
        wide = [max(len(row[place]) for row in shown) for place in range(5)]
        lines = [
            f"{a:<{wide[0]}}  {b:>{wide[1]}}  {c:<{wide[2]}}  {d:>{wide[3]}}  {e:>{wide[4]}}"
            for a, b, c, d, e in shown
        ]
        rest = [f"… and {len(rows) - _SHOWN} more"] if rows[_SHOWN:] else []
        return "\n".join([*lines, *rest])

    __repr__ = __str__


def _row(one: Feature) -> tuple[str, str, str, str, str]:
    shape = "×".join(map(str, one.tensor.shape)) or "a number"
    if one.tensor.is_meta or not one.tensor.numel():
        return one.name, str(one.call), shape, "", ""
    values = one.tensor.detach().float() if not one.tensor.is_complex() else one.tensor.detach().abs()
    return one.name, str(one.call), shape, f"{float(values.mean()):.3g}", f"{float(values.std(correction=0)):.3g}"


def _value(record: Record, place: str) -> Any:
    return record.tensors.get(place) if place in record.tensors else _at(record.value, place)


def _gradient(record: Record, place: str) -> Any:
    if not place and "" not in record.tensors:
        return dict(record.gradients) or None
    return record.gradients.get(place)


def _is_place(place: str, record: Record) -> bool:
    return place in record.tensors or any(one.startswith(f"{place}.") for one in record.tensors)


def _at(value: Any, place: str) -> Any:
    for step in place.split(".") if place else ():
        value = value[int(step)] if isinstance(value, (list, tuple)) else _field(value, step)
    return value


def _field(value: Any, name: str) -> Any:
    return value[name] if isinstance(value, Mapping) else getattr(value, name)


def places(tree: Any, home: str = "") -> Iterator[tuple[str, Tensor]]:
    """Name each tensor of a structure: by keys, numbers and fields, with dots between."""
    from torch import Tensor

    if isinstance(tree, Tensor):
        yield home, tree
        return
    for name, one in _parts(tree):
        yield from places(one, joined(home, name))


def _parts(tree: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(tree, Mapping):
        yield from ((str(key), one) for key, one in tree.items())
    elif isinstance(tree, (list, tuple)):
        yield from ((str(number), one) for number, one in enumerate(tree))
    elif is_dataclass(tree) and not isinstance(tree, type):
        yield from ((entry.name, getattr(tree, entry.name, None)) for entry in fields(tree))
