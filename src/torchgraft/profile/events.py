"""What torch's profiler recorded, put down to modules.

Forward: an operation belongs to the innermost module whose span is open. Backward: a node of the autograd graph
has the sequence number of the operation that made it, so its time belongs to that operation's module; what adds up
a gradient right after a node goes with that node. A part that is recomputed in the backward pass opens its spans
there.
"""

from __future__ import annotations

import functools
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torchgraft.profile.spans import MODULE, PHASE

__all__ = ["OUTSIDE", "Allocation", "Ledger", "Sums", "is_product", "middle", "on_device", "read"]

OUTSIDE = "\0outside"
"""Stands for the path of what belongs to no module."""

TINY = 3
"""An operation that takes less than so many times what calling one costs is nothing but its call."""

_NODE = "autograd::engine::evaluate_function: "
_ACCUMULATE = "AccumulateGrad"
_PRODUCT = re.compile(
    r"(mm|mv|dot|matmul|einsum|conv\w*|attention\w*|lstm\w*|gru\w*|rnn\w*|linear\w*|inner|outer|cdist\w*"
    r"|convolution_backward\w*|linalg\w*)$|conv|_scaled_dot_product|_efficient_attention|_flash_attention|mkldnn_linear"
)


@functools.cache
def is_product(name: str) -> bool:
    """Tell whether an operation is a product: of matrices, a convolution, an attention."""
    return name.startswith(("aten::", "torchvision::")) and _PRODUCT.search(name.partition("::")[2]) is not None


@dataclass
class Sums:
    """Seconds of one module in one phase."""

    products: float = 0.0
    moving: float = 0.0
    between: float = 0.0
    calls: int = 0
    events: int = 0

    @property
    def total(self) -> float:
        """All seconds on the host."""
        return self.products + self.moving + self.between

    @property
    def useful(self) -> float:
        """The seconds within operations."""
        return self.products + self.moving


@dataclass(frozen=True)
class Allocation:
    """Bytes that were taken or, where negative, given back."""

    at: int
    address: int
    bytes: int
    phase: str
    path: str


@dataclass
class Ledger:
    """What was read: seconds by phase and module, seconds and calls by operation, allocations in order of time."""

    sums: dict[tuple[str, str], Sums] = field(default_factory=dict)
    operations: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    allocations: list[Allocation] = field(default_factory=list)
    owners: dict[int, tuple[str, str, str]] = field(default_factory=dict)

    def of(self, phase: str, path: str) -> Sums:
        """Give the sums of a module in a phase."""
        found = self.sums.get((phase, path))
        if found is None:
            found = self.sums[phase, path] = Sums()
        return found

    def phase(self, name: str) -> Sums:
        """Add up a phase over all modules."""
        found = Sums()
        for (phase, _), one in self.sums.items():
            if phase == name:
                found.products += one.products
                found.moving += one.moving
                found.between += one.between
                found.calls += one.calls
        return found


def middle(ledgers: Sequence[Ledger]) -> Ledger:
    """Give the median of several steps, by module and by operation; allocations are those of all."""
    found = Ledger()
    for key in dict.fromkeys(key for one in ledgers for key in one.sums):
        sums = [one.sums.get(key, Sums()) for one in ledgers]
        fields = ("products", "moving", "between", "calls", "events")
        found.sums[key] = Sums(*(statistics.median_high(getattr(one, name) for one in sums) for name in fields))
    for name in dict.fromkeys(name for one in ledgers for name in one.operations):
        seen = [one.operations.get(name, [0.0, 0]) for one in ledgers]
        found.operations[name] = [statistics.median_high(column) for column in zip(*seen, strict=True)]
    found.allocations = sorted((one for each in ledgers for one in each.allocations), key=lambda one: one.at)
    return found


def on_device(ledger: Ledger, did: Iterable[tuple[int, float]]) -> None:
    """Let the seconds of an accelerator stand for those within operations; see `Watched.device`.

    Args:
        ledger: what was read of the host.
        did: the number of the operation that asked, and seconds.
    """
    host = {key: one.total for key, one in ledger.sums.items()}
    for one in ledger.sums.values():
        one.products = one.moving = one.between = 0.0
    for seen in ledger.operations.values():
        seen[0] = 0.0
    for number, seconds in did:
        if number not in ledger.owners:
            continue
        phase, path, name = ledger.owners[number]
        sums = ledger.of(phase, path)
        if is_product(name):
            sums.products += seconds
        else:
            sums.moving += seconds
        ledger.operations.setdefault((phase, name), [0.0, 0])[0] += seconds
    _idle(ledger, host)


def _idle(ledger: Ledger, host: Mapping[tuple[str, str], float]) -> None:
    """Put the seconds of each phase in which an accelerator did nothing down to those who kept the host busy."""
    for phase in dict.fromkeys(phase for phase, _ in host):
        whole = sum(seconds for (its, _), seconds in host.items() if its == phase)
        idle = max(whole - ledger.phase(phase).useful, 0.0)
        for (its, path), seconds in host.items():
            if its == phase and whole:
                ledger.of(its, path).between = idle * seconds / whole


def read(
    roots: Iterable[Any],
    *,
    inside: float,
    watching: float = 0.0,
    host: int | None = None,
    paused: float = 0.0,
    device: str = "cpu",
) -> Ledger:
    """Read the tree of events of a profiler.

    Args:
        roots: `kineto_results.experimental_event_tree()`, or some of its nodes.
        inside: seconds within an operation that calling one costs in any case.
        watching: seconds that recording an event takes between operations: they are taken off.
        host: the thread whose time counts; events of others only say who works for whom.
        paused: seconds in which that thread had no processor: operations that took far longer than others of
            their kind are shortened by so much, all together.
        device: the kind of device whose allocations are listed.
    """
    reader = _Reader(inside, device)
    for root in sorted(roots, key=lambda one: one.start_time_ns):
        reader.walk(root, "other", OUTSIDE, counted=host is None or root.start_tid == host)
    reader.shorten(paused)
    for sums in reader.ledger.sums.values():
        sums.between = max(sums.between - sums.events * watching, 0.1 * sums.between)
    reader.ledger.allocations.sort(key=lambda one: one.at)
    return reader.ledger


class _Reader:
    """One walk over a tree, in the order of time."""

    def __init__(self, inside: float, device: str) -> None:
        self.ledger = Ledger()
        self._inside, self._device = inside, device
        self._took: dict[tuple[str, str, str], list[float]] = {}  # seconds of each operation
        self._made: dict[int, str] = {}  # the module whose operation had a sequence number last
        self._last = OUTSIDE

    def walk(self, event: Any, phase: str, path: str, *, counted: bool) -> None:
        fields = event.typed[1]
        if hasattr(fields, "alloc_size"):
            if fields.device.type == self._device:
                self.ledger.allocations.append(
                    Allocation(event.start_time_ns, fields.ptr, fields.alloc_size, phase, path)
                )
            return
        name = event.name
        phase, path, is_operation = self._context(name, fields, phase, path)
        self.ledger.owners[event.correlation_id] = (phase, path, name)
        below = 0
        for child in event.children:
            self.walk(child, phase, path, counted=counted)
            if not hasattr(child.typed[1], "alloc_size"):
                below += child.duration_time_ns
        if counted:
            own = max(event.duration_time_ns - below, 0) / 1e9
            self._count(name, phase, path, own, is_operation=is_operation)

    def _context(self, name: str, fields: Any, phase: str, path: str) -> tuple[str, str, bool]:
        """Give the phase and the module that an event belongs to, and whether it is an operation."""
        number = getattr(fields, "sequence_number", -1)
        if name.startswith(_NODE):
            if _ACCUMULATE not in name:
                self._last = self._made.get(number, OUTSIDE)
            return "backward", self._last, False
        if name.startswith(MODULE):
            path = name[len(MODULE) :]
            path = "" if path == "." else path
            phase = "forward" if phase == "other" else phase
            return phase, path, False
        if name.startswith(PHASE):
            return name[len(PHASE) :], OUTSIDE, False
        if name.startswith("Optimizer."):
            return "optimizer", OUTSIDE, False
        if name.startswith("enumerate(DataLoader)"):
            return "data", OUTSIDE, False
        if number >= 0 and not name.endswith(("Backward0", "Backward1", "Backward2", "Backward")):
            self._made[number] = path
        return phase, path, "::" in name and not name.startswith("autograd::")

    def _count(self, name: str, phase: str, path: str, own: float, *, is_operation: bool) -> None:
        sums = self.ledger.of(phase, path)
        sums.events += 1
        if name.startswith(MODULE) and phase != "backward":
            sums.calls += 1
        if not is_operation:
            sums.between += own
            return
        useful = own - self._inside if own > TINY * self._inside else 0.0
        sums.between += own - useful
        self._add(phase, path, name, useful)
        seen = self.ledger.operations.setdefault((phase, name), [0.0, 0])
        seen[0] += own
        seen[1] += 1
        self._took.setdefault((phase, path, name), []).append(useful)

    def _add(self, phase: str, path: str, name: str, useful: float) -> None:
        sums = self.ledger.of(phase, path)
        if is_product(name):
            sums.products += useful
        else:
            sums.moving += useful

    def shorten(self, paused: float) -> None:
        """Take pauses of the thread off the operations that they fell into, as far as these can be told."""
        over = {key: sum(_over(took)) for key, took in self._took.items()}
        whole = sum(over.values())
        share = min(1.0, paused / whole) if whole > 0 else 0.0
        for (phase, path, name), seconds in over.items():
            if seconds and share > 0:
                self._add(phase, path, name, -seconds * share)
                self.ledger.operations[phase, name][0] -= seconds * share


def _over(took: list[float]) -> Iterable[float]:
    """Give by how much some of several seconds stand out: ten times the median, and a quarter of a millisecond."""
    usual = statistics.median_low(took)
    return (one - usual for one in took if one > max(10 * usual, 2.5e-4))
