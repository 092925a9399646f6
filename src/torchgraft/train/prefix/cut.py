"""Which part of a pass is still, what the rest reads of it, and the steps by which the rest is run alone.

A value is *still* if it is made of the input by operations that draw and write nothing, of parameters that are
frozen and buffers that do not move, and holds a row for each sample that no other sample has a part in. What no
input flows into is *constant*: the rest computes it anew. Everything else is *live*. The cut is every still value
that something live reads.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor, nn

from torchgraft.trace.tree import Open, mapped, tensors
from torchgraft.train.prefix.inquiry import Inquiry, asking, inquiry_of
from torchgraft.train.prefix.record import Act, Record, Steered, Unclear, Visit
from torchgraft.train.prefix.rows import Lie, close, lie_of

__all__ = ["SHAPED", "Cut", "Step", "cut_of", "seen"]


@dataclass(frozen=True, slots=True)
class Step:
    """What happens next in the part of the model that is run in any case.

    Attributes:
        name: of the operation; empty for a call.
        module: that is called.
        path: of the module, or of that which the operation is in.
        still: it need not be done.
        made: the values that its result holds, in order.
    """

    name: str
    module: nn.Module | None
    path: str
    still: bool
    made: tuple[int, ...]


@dataclass(frozen=True)
class Cut:
    """How a pass comes apart.

    Attributes:
        steps: of the pass, in order, those within calls left out.
        inputs: the values that go in.
        lies: what of each sample is kept: the still values that live ones read.
        shared: what is the same for every sample, and is made where nothing is run again.
        places: which step makes a kept value; -1 for an input, and for what the inquiry makes.
        over: kept values that are written over before the pass ends.
        inquiry: what the pass asks its input; the steps are those for the same answers.
        draws: the pass draws random numbers.
    """

    steps: tuple[Step, ...]
    inputs: tuple[int, ...]
    lies: dict[int, Lie]
    shared: tuple[int, ...]
    places: dict[int, int]
    over: frozenset[int]
    inquiry: Inquiry
    draws: bool


Kind = Literal["still", "constant", "live"]

SHAPED = frozenset(
    {"new_zeros", "new_ones", "new_full", "new_empty", "new_tensor", "zeros_like", "ones_like", "full_like"}
    | {"empty_like", "rand_like", "randn_like"}
)
"""Operations that read no more of what they take than its shape, type and place."""


def cut_of(one: Record, other: Record, rows: tuple[int, ...], count: int) -> Cut:
    """Take a pass apart.

    Args:
        one: a pass.
        other: of the same model, with other samples.
        rows: which samples of the first pass went into the second one, in order.
        count: samples of the first pass.

    Raises:
        Unclear: nothing is still, or it can't be told.
    """
    return _Cutting(one, other, rows, count).cut()


def seen(cut: Cut, record: Record) -> list[Visit]:
    """Give the calls that are left out, or run in part, those inside of what is left out included."""
    live = {id(step.module) for step in cut.steps if step.module is not None and not step.still}
    found: list[Visit] = []

    def walk(visit: Visit) -> None:
        if id(visit.module) in live:
            return
        found.append(visit)
        for item in visit.items:
            if isinstance(item, Visit):
                walk(item)

    walk(record.root)
    return found


@dataclass
class _Cutting:
    """One pass, being taken apart."""

    record: Record
    other: Record
    rows: tuple[int, ...]
    count: int
    kinds: dict[int, Kind] = field(default_factory=dict)
    lies: dict[int, Lie] = field(default_factory=dict)
    forced: set[int] = field(default_factory=set)
    opaque: set[int] = field(default_factory=set)
    asked: dict[int, Act] = field(default_factory=dict)
    known: dict[int, Lie | None] = field(default_factory=dict)
    first: tuple[Act, str] | None = None

    def cut(self) -> Cut:
        """Tell what is still, force what can't be, and cut; forcing one part may force another."""
        acts = list(self.record.root.acts())
        twins = list(self.other.root.acts())
        if [(a.name, len(a.outputs)) for a in acts] != [(a.name, len(a.outputs)) for a in twins]:
            raise Steered("what the model does depends on the samples, or on how many there are")
        self.opaque = {id(visit) for visit in self.record.strange.values()}
        for visit in self.record.strange.values():
            self._force(visit)
        while True:
            self._judge(acts, twins)
            mixed = list(self._mixed(self.record.root))
            late = [item for visit in mixed for item in visit.items if self._late(item) or self._asks(item)]
            if not late:
                return self._cut()
            for item in late:
                self._force(item)

    def _force(self, item: Act | Visit) -> None:
        """Let a part of the pass be run in any case."""
        if item is self.record.root:
            raise Unclear("the model computes with tensors that come from outside of torch's sight")
        acts = [item] if isinstance(item, Act) else list(item.acts())
        self.forced.update(act.index for act in acts)

    def _late(self, item: Act | Visit) -> bool:
        """Tell whether something still is in a checkpointed part beside what is live: it will run once more."""
        acts = [item] if isinstance(item, Act) else list(item.acts())
        return item.saved and any(self._is(act, "still") for act in acts)

    def _asks(self, item: Act | Visit) -> bool:
        """Tell whether something is asked beside what is live: it is seen there anyway."""
        return isinstance(item, Act) and item.index in self.asked and item.answer is not None

    def _is(self, act: Act, kind: Kind) -> bool:
        return self.kinds.get(-1 - act.index) == kind

    # what is still

    def _judge(self, acts: list[Act], twins: list[Act]) -> None:
        self.kinds, self.lies, self.first = {}, {}, None
        self._sources()
        for act, twin in zip(acts, twins, strict=True):
            for pair in zip(act.outputs, twin.outputs, strict=True):
                self._rowed(*pair)
        self.asked = {act.index: act for act in asking(self.record, self.other, self.forced, set(self.lies))}
        for act, twin in zip(acts, twins, strict=True):
            kind = self._kind(act, twin)
            self.kinds[-1 - act.index] = kind
            self.kinds |= dict.fromkeys(act.outputs, kind)

    def _sources(self) -> None:
        for number, name in self.record.names.items():
            moves = name.startswith("~") or self.record.values[number].requires_grad
            self.kinds[number] = "live" if moves else "constant"
        self.kinds |= dict.fromkeys(self.record.strange, "live")
        for number, twin in zip(self.record.inputs, self.other.inputs, strict=True):
            if self.kinds.get(number) in ("constant", "live"):
                continue
            if not self._rowed(number, twin):
                raise Unclear("an input has no row for each sample")
            self.kinds[number] = "still"

    def _kind(self, act: Act, twin: Act) -> Kind:
        if act.index in self.asked:
            return "still"
        met = {self.kinds[number] for number in act.inputs}
        why = self._why(act, met)
        if not why and "still" not in met:
            return "constant"
        if not why and act.name in SHAPED:
            return "constant"
        if not why and act.reads:
            why = "gives numbers that steer the pass"
        if not why and not all(map(self._rowed, act.outputs, twin.outputs)):
            why = "mixes the samples of a batch"
        if not why:
            return "still"
        if "still" in met and self.first is None:
            self.first = (act, why)
        return "live"

    def _why(self, act: Act, met: set[Kind]) -> str:
        if act.draws:
            return "draws random numbers"
        if act.writes:
            return "writes to what the model holds"
        if act.index in self.forced:
            return "can't be told from what is trained"
        if "live" in met:
            names = [self.record.names[one] for one in act.inputs if one in self.record.names]
            moving = [name for name in names if name.startswith("~")]
            return f"moves {moving[0][1:]}" if moving else "reads what is trained"
        return ""

    def _rowed(self, number: int, twin: int) -> bool:
        """Tell whether a value holds the same row for a sample in both passes."""
        if number not in self.known:
            self.known[number] = self._lie(self.record.values[number], self.other.values[twin])
        lie = self.known[number]
        if lie is not None:
            self.lies[number] = lie
        return lie is not None

    def _lie(self, one: Tensor, other: Tensor) -> Lie | None:
        lie = lie_of(one, other, (self.count, len(self.rows)))
        if lie is None:
            return None
        own = lie.rows(one, self.count)[list(self.rows)]
        return lie if close(own, lie.rows(other, len(self.rows))) else None

    # how it comes apart

    def _status(self, visit: Visit) -> str:
        if any(id(one) in self.opaque for one in visit.visits()):
            return "live" if id(visit) in self.opaque else "mixed"
        kinds = {self.kinds[-1 - act.index] for act in visit.acts()}
        if "still" not in kinds:
            return "live" if kinds else "empty"
        return "mixed" if "live" in kinds else "still"

    def _mixed(self, visit: Visit) -> Iterator[Visit]:
        """Give the calls that are run in part."""
        if self._status(visit) == "mixed":
            yield visit
            for item in visit.items:
                if isinstance(item, Visit):
                    yield from self._mixed(item)

    def _cut(self) -> Cut:
        root = self.record.root
        if self._status(root) != "mixed":
            raise Unclear(self._nothing())
        kept = self._read(root)
        inquiry = inquiry_of(self.asked.values(), set(self.lies))
        steps: list[Step] = []
        left: list[Visit] = []
        self._walk(root, kept, steps, left)
        inside = {number for visit in left for act in visit.acts() for number in act.outputs}
        skipped = {act.index for visit in left for act in visit.acts()}
        read = {number for act in root.acts() if act.index not in skipped for number in act.inputs}
        wanted = (read | set(root.gave)) & inside
        shared = tuple(sorted(number for number in wanted if self.kinds[number] == "constant"))
        places = {number: place for place, step in enumerate(steps) for number in step.made}
        places |= dict.fromkeys((*self.record.inputs, *inquiry.read), -1)
        lies = {number: self.lies[number] for number in sorted({*kept, *inquiry.read})}
        lost = [number for number in (*lies, *shared) if number not in places]
        if lost:
            raise Unclear("what the trained part reads is made where it can't be taken from")
        if not lies or not any(step.still for step in steps):
            raise Unclear(self._nothing())
        draws = any(act.draws for act in root.acts())
        return Cut(tuple(steps), self.record.inputs, lies, shared, places, self.record.over, inquiry, draws)

    def _nothing(self) -> str:
        if self.first is None:
            return "nothing that is trained comes after something frozen"
        act, why = self.first
        path = next((v.path for v in self.record.root.visits() if act in v.items), "")
        return f"nothing stands still before what is trained: {act.name} in {path or 'the model'} {why}"

    def _read(self, root: Visit) -> set[int]:
        """Give the still values that something live reads, or is given."""
        found = {one for act in root.acts() if self._is(act, "live") for one in act.inputs}
        for visit in self._mixed(root):
            for item in visit.items:
                if isinstance(item, Visit) and self._status(item) == "live":
                    found |= set(item.given)
        found |= set(root.gave)
        return {number for number in found if self.kinds[number] == "still"}

    def _walk(self, visit: Visit, kept: set[int], steps: list[Step], left: list[Visit]) -> None:
        for item in visit.items:
            if isinstance(item, Act):
                steps.append(Step(item.name, None, visit.path, self._is(item, "still"), item.made))
                continue
            status = self._status(item)
            if status == "live":
                steps.append(Step("", item.module, item.path, still=False, made=item.gave))
            elif status == "still" and self._closed(item, kept):
                steps.append(Step("", item.module, item.path, still=True, made=item.gave))
                left.append(item)
            elif status != "empty":
                self._walk(item, kept, steps, left)

    def _closed(self, visit: Visit, kept: set[int]) -> bool:
        """Tell whether all that others read of a call is in what it gives, and this can be built again."""
        try:
            mapped(_itself, visit.result, strict=True)
        except Open:
            return False
        inside = {number for act in visit.acts() for number in act.outputs}
        known = set(visit.gave)
        if len(tensors(visit.result)) != len(visit.gave) or not (kept & inside) <= known:
            return False
        if any(number not in inside and self.kinds[number] == "constant" for number in known):
            return False  # handed on from where it is made anew
        constants = {number for number in inside - known if self.kinds[number] == "constant"}
        return not any(constants & set(act.inputs) for act in self._outside(visit))

    def _outside(self, visit: Visit) -> list[Act]:
        return [act for act in self.record.root.acts() if not visit.first <= act.index < visit.last]


def _itself(one: Tensor) -> Tensor:
    return one
