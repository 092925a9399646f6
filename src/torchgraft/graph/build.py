"""From a trace to nested boxes: modules, the operations that matter, and the edges between them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torchgraft.graph.detail import detail, shape_of
from torchgraft.graph.drawing import ROOT, Box, Edge, Mark
from torchgraft.graph.flow import Flow, flow
from torchgraft.graph.folding import folded
from torchgraft.graph.holdings import Holdings, state_of
from torchgraft.graph.level import Level
from torchgraft.graph.ops import is_heavy, is_weighted
from torchgraft.trace import Call, Op, Trace

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Names", "built"]

_PASSING = frozenset({"Identity", "DropPath", "StochasticDepth"})
"""Modules that hand on what they get, or at times nothing: they are not drawn."""


@dataclass(frozen=True)
class Names:
    """What inputs and outputs are called, in the order of the trace."""

    inputs: Sequence[str]
    outputs: Sequence[str]


def built(trace: Trace, holdings: Holdings, names: Names, *, fold: bool = True, words: Sequence[str] = ()) -> Box:
    """Build the box of a model.

    Args:
        trace: of the model as it stands.
        holdings: what its modules hold.
        names: of its inputs and outputs.
        fold: draw alike blocks in a row as one.
        words: what a finding says of the place where the pass broke off.
    """
    return _Builder(trace, holdings, fold=fold, words=words).root(names)


class _Builder:
    def __init__(self, trace: Trace, holdings: Holdings, *, fold: bool, words: Sequence[str]) -> None:
        self.holdings, self.fold, self.words = holdings, fold, tuple(words)
        self.flow: Flow = flow(trace, self._flows_in)
        self.trace = self.flow.trace
        self.batch = max(trace.batch, 1)
        self.calls = Counter(call.path for call in trace.calls)
        self.met: Counter[str] = Counter()
        self.strangers: dict[str, dict[str, tuple[int, int]]] = {}
        self.passed: dict[int, Counter[str]] = defaultdict(Counter)
        self.counted: set[str] = set()

    def _flows_in(self, name: str) -> bool:
        tensor = self.holdings.tensors.get(name)
        return tensor is not None and tensor.is_floating_point()

    # boxes

    def root(self, names: Names) -> Box:
        """Give the box of the model: inputs, what is in it, outputs."""
        call = self.trace.calls[0]
        level = Level(self.flow, call)
        for number, name in zip(self.trace.inputs, names.inputs, strict=True):
            unread = number not in self.flow.taken[call.index] and number not in self.trace.outputs
            shape = self.trace.show(number)
            notes = ("the pass does not read it",) if unread else ()
            box = Box(f"in:{name}", "", name, role="input", gave=(shape,), notes=notes)
            level.add(box, (), (number,))
        self._fill(level, call)
        for number, name in zip(self.trace.outputs, names.outputs, strict=True):
            box = Box(f"out:{name}", "", name, role="output", given=(self.trace.show(number),))
            level.add(box, (number,), ())
        return self._module(call, ROOT, "", level)

    def _call(self, call: Call, home: Call) -> Box:
        self.met[call.path] += 1
        number = self.met[call.path]
        id = call.path if number == 1 else f"{call.path}#{number}"
        prefix = f"{home.path}." if home.path else ""
        level = None
        if not self._is_leaf(call):
            level = Level(self.flow, call)
            self._fill(level, call)
        return self._module(call, id, call.path.removeprefix(prefix), level)

    def _module(self, call: Call, id: str, label: str, level: Level | None) -> Box:
        """Give the box of a module call."""
        module = self.holdings.modules.get(call.path)
        number = self.met[call.path] or 1
        mark, edit = self.holdings.mark(call.path)
        boxes, edges = level.finished(self._folded) if level is not None else ((), ())
        total, trainable = self._sizes(call, id, number, boxes)
        broken = self.flow.broken == call.index and not boxes
        return Box(
            id=id,
            path=call.path,
            label=label,
            kind=call.kind,
            detail=detail(module) if not boxes or not label else "",
            given=self._shapes(call.given),
            gave=self._shapes(call.gave),
            parameters=total,
            trainable=trainable,
            macs=self.flow.macs[call.last_op] - self.flow.macs[call.first_op],
            bytes=(self.flow.bytes[call.last_op] - self.flow.bytes[call.first_op]) // self.batch,
            state=self.holdings.state(call.path),
            mark="broken" if broken else mark,
            edit=edit,
            call=number,
            calls=self.calls[call.path],
            boxes=boxes,
            edges=edges,
            notes=(*(self.words if broken else ()), *self._notes(call, number)),
        )

    def _sizes(self, call: Call, id: str, number: int, boxes: Sequence[Box]) -> tuple[int, int]:
        """Count what a module holds, and what modules hold that live elsewhere but are first called in it."""
        strangers: dict[str, tuple[int, int]] = {}
        for box in boxes:
            strangers |= self.strangers.get(box.id, {})
            if box.role == "module" and box.call == 1:
                strangers[box.path] = self.holdings.size(box.path)
        prefix = f"{call.path}." if call.path else ""
        held = {path: one for path, one in strangers.items() if not path.startswith(prefix)}
        if held:
            self.strangers[id] = held
        sizes = [self.holdings.size(call.path) if number == 1 else (0, 0), *held.values()]
        return sum(one[0] for one in sizes), sum(one[1] for one in sizes)

    def _folded(self, boxes: Sequence[Box], edges: Sequence[Edge]) -> tuple[Sequence[Box], Sequence[Edge]]:
        return folded(boxes, edges, self.holdings, self.names_of) if self.fold else (boxes, edges)

    def names_of(self, box: Box) -> tuple[str, ...]:
        """Give the names of the operations in a call, drawn or not."""
        call = self.trace.calls_of(box.path)[box.call - 1]
        return tuple([op.name for op in self.trace.ops[call.first_op : call.last_op]])

    def _shapes(self, numbers: Iterable[int]) -> tuple[str, ...]:
        return tuple([self.trace.show(number) for number in numbers])

    # what is inside

    def _is_leaf(self, call: Call) -> bool:
        """Tell whether a call is drawn as one closed box: a layer of torch, or arithmetic around at most one."""
        items = self.flow.items[call.index]
        if any(isinstance(item, Call) for item in items):
            return False
        module = self.holdings.modules.get(call.path)
        if type(module).__module__.startswith("torch.nn.modules"):
            return True
        return sum(is_heavy(item) for item in items if isinstance(item, Op)) < 2

    def _is_passing(self, call: Call) -> bool:
        """Tell whether a module is left out, since it does nothing to see: unless an edit put it in."""
        if self.flow.items[call.index] and isinstance(self.flow.items[call.index][0], Call):
            return False
        if self.holdings.mark(call.path)[0] or self.flow.broken == call.index:
            return False
        off = getattr(self.holdings.modules.get(call.path), "p", None) == 0
        return call.kind in _PASSING or (call.kind.startswith("Dropout") and off)

    def _fill(self, level: Level, call: Call) -> None:
        """Put everything into a level that happens in a call."""
        for item in self.flow.items[call.index]:
            if isinstance(item, Op):
                self._operation(level, item, call)
            elif self._is_passing(item):
                self.passed[call.index][item.kind] += 1
                level.pass_on(self.flow.reads(item), self._makes(item))
            else:
                level.add(self._call(item, call), self.flow.reads(item), self._makes(item))
        if self.flow.broken == call.index:
            self._break(level, call)

    def _makes(self, call: Call) -> list[int]:
        return list(dict.fromkeys([*call.gave, *self.flow.given[call.index]]))

    def _operation(self, level: Level, op: Op, call: Call) -> None:
        weights = op.params if is_weighted(op) else ()
        constants = [
            self._constant(name, call) for name in op.params if name not in weights and self._flows_in(name)
        ]
        shown = level.sign(op, constants)
        if not shown:
            level.pass_on(level.joined(op), op.outputs, constants)
            return
        total, trainable = self._count(weights)
        box = Box(
            id=f"{level.id}/{op.name}:{op.index - call.first_op}",
            path=call.path,
            label=shown,
            kind=self._home(weights, call),
            role="operation",
            given=self._shapes(op.inputs),
            gave=self._shapes(op.outputs),
            parameters=total,
            trainable=trainable,
            macs=self.flow.macs[op.index + 1] - self.flow.macs[op.index],
            bytes=op.bytes // self.batch,
            state=state_of(
                {self.holdings.parameters[one].requires_grad for one in weights if one in self.holdings.parameters}
            ),
            mark=self._mark_of(weights)[0],
            edit=self._mark_of(weights)[1],
        )
        level.add(box, level.joined(op), op.outputs, constants)

    def _home(self, weights: Sequence[str], call: Call) -> str:
        """Name the child whose weights an operation reads by itself."""
        prefix = f"{call.path}." if call.path else ""
        homes = {name.rpartition(".")[0] for name in weights}
        home = next(iter(homes)) if len(homes) == 1 else ""
        return home.removeprefix(prefix) if home != call.path else ""

    def _mark_of(self, names: Sequence[str]) -> tuple[Mark, int | None]:
        marks = [self.holdings.mark(name) for name in names]
        return next((one for one in marks if one[0]), ("", None))

    def _constant(self, name: str, call: Call) -> Box:
        """Give the box of a parameter or buffer that flows in by itself."""
        prefix = f"{call.path}." if call.path else ""
        tensor, parameter = self.holdings.tensors[name], self.holdings.parameters.get(name)
        mark, edit = self.holdings.mark(name)
        total, trainable = self._count([name])
        return Box(
            id=f"{call.path or ROOT}/{name}",
            path=name.rpartition(".")[0],
            label=name.removeprefix(prefix),
            kind=shape_of(tensor.shape),
            role="constant",
            gave=(f"[{', '.join(map(str, tensor.shape))}]",),
            parameters=total,
            trainable=trainable,
            state=state_of({parameter.requires_grad} if parameter is not None else set()),
            mark=mark,
            edit=edit,
        )

    def _count(self, names: Sequence[str]) -> tuple[int, int]:
        """Count parameters that an operation reads, each once in the whole drawing."""
        new = [self.holdings.parameters[one] for one in dict.fromkeys(names)
               if one in self.holdings.parameters and one not in self.counted]  # fmt: skip
        self.counted.update(names)
        return sum(one.numel() for one in new), sum(one.numel() for one in new if one.requires_grad)

    # notes

    def _break(self, level: Level, call: Call) -> None:
        """Draw the operation that the pass broke off at."""
        at = self.trace.mismatch
        assert at is not None
        label = at.op if at.op != "forward" else at.error
        box = Box(
            f"{level.id}/broken", call.path, label, role="operation", given=self._shapes(at.inputs), mark="broken",
            notes=self.words or (at.message,),
        )  # fmt: skip
        level.add(box, [one for one in at.inputs if one not in self.flow.void], ())

    def _notes(self, call: Call, number: int) -> tuple[str, ...]:
        notes = []
        if number > 1 and self.holdings.size(call.path)[0]:
            notes.append("its parameters are counted at its first call")
        tied = {home for name, home in self.holdings.tied.items() if name.rpartition(".")[0] == call.path}
        notes += [f"shares its weight with {home.rpartition('.')[0] or home}" for home in sorted(tied)]
        notes += self._left_out(call)
        return tuple(notes)

    def _left_out(self, call: Call) -> list[str]:
        """Say which children are not drawn, and why."""
        module = self.holdings.modules.get(call.path)
        if module is None:
            return []
        if type(module).__module__ == "torch.jit._script":
            return []  # its parts are called in TorchScript, where nobody sees it
        never = [path for path in _children(call.path, module) if not self._is_used(path)]
        passing = self.passed[call.index]
        why = "the pass broke off before" if self.trace.mismatch is not None else "never called"
        notes = [f"{why}: {_listed(never)}"] if never and not _is_builtin(module) else []
        return notes + (
            [f"not drawn: {', '.join(f'{n} {kind}' for kind, n in passing.items())}"] if passing else []
        )

    def _is_used(self, path: str) -> bool:
        """Tell whether a module, or something in it, was called or read; what holds nothing needs no word."""
        return path in self._used or path not in self.holdings.modules

    @property
    def _used(self) -> set[str]:
        if not hasattr(self, "_seen"):
            names = [*self.trace.called, *self.trace.used]
            self._seen = {above for name in names for above in _prefixes(name)}
        return self._seen


def _children(path: str, module: nn.Module) -> list[str]:
    prefix = f"{path}." if path else ""
    return [f"{prefix}{name}" for name, _ in module.named_children()]


def _is_builtin(module: nn.Module) -> bool:
    return type(module).__module__.startswith("torch.nn.modules") and type(module).__name__ != "Sequential"


def _prefixes(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts) + 1)]


def _listed(paths: Sequence[str]) -> str:
    names = [path.rpartition(".")[2] for path in paths]
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if names[6:] else "")
