"""The plan: which given tensor goes where in a model, although its name or size may be another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["WRAPPERS", "Misfit", "Plan", "Renaming", "Shape", "plan", "plan_of", "shapes", "tensors_of"]

Shape = tuple[int, ...] | None
"""The sizes of a tensor; None for one whose sizes are open."""

WRAPPERS = frozenset(
    {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"}
)
"""Parts of names that come from DataParallel, DDP, torch.compile, FSDP, activation checkpoints and DeepSpeed."""

_COUNTERS = ("num_batches_tracked", "n_averaged", "total_ops", "total_params", "_extra_state")
"""Last parts of names that no output depends on: counters of BatchNorm (unless momentum is None), SWA, thop."""


@dataclass(frozen=True)
class Renaming:
    """One prefix that given names carry where the model's carry another (or none), and how many do."""

    given: str
    own: str
    count: int

    def __str__(self) -> str:
        names = f"{self.count} name{'s'[: self.count != 1]}"
        if self.given and self.own:
            return f"{names} with '{self.given}' where the model says '{self.own}'"
        return f"{names} with '{self.given}' too much" if self.given else f"{names} without '{self.own}'"


@dataclass(frozen=True)
class Misfit:
    """A tensor that has its place but another size there.

    `kind` is what the sizes alone tell: `rows` (another number of outputs), `channels` (the first convolution
    takes others), `positions` (an embedding of places), `transposed` (rows and columns exchanged), or `other`.
    """

    own: str
    given: str
    wants: tuple[int, ...]
    has: tuple[int, ...]
    kind: Literal["rows", "channels", "positions", "transposed", "other"]


@dataclass(frozen=True)
class Plan:
    """Where each given tensor goes.

    Attributes:
        taken: the model's name -> the given name, where sizes agree.
        misfits: tensors that have their place but another size.
        missing: names of the model that nothing is given for, ties counted as given.
        unexpected: given names that have no place.
        renamings: prefixes that had to be changed.
        renamed: the model's name -> the given name where the whole name differs and order and sizes decided.
        direct: how many of the given names are the model's own, at their size: what `load_state_dict` would load.
        size: how many tensors the model has.
        rivals: prefixes of further names that would fit every tensor of the model as well.
    """

    taken: Mapping[str, str] = field(default_factory=dict)
    misfits: tuple[Misfit, ...] = ()
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    renamings: tuple[Renaming, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)
    direct: int = 0
    size: int = 0
    rivals: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Tell whether every tensor of the model is given at its size, and nothing is left over that counts."""
        return not (self.misfits or self.needed or self.surplus)

    @property
    def needed(self) -> tuple[str, ...]:
        """Names that are missing and whose values an output depends on."""
        return tuple(name for name in self.missing if not _is_counter(name))

    @property
    def surplus(self) -> tuple[str, ...]:
        """Given names that have no place and would be values of a model."""
        return tuple(name for name in self.unexpected if not _is_counter(name))

    @property
    def is_other(self) -> bool:
        """Tell whether the weights are plainly those of another model: not a third finds its place and size."""
        given = len(self.taken) + len(self.misfits) + len(self.surplus)
        return len(self.taken) * 3 < min(self.size, given)

    def sentences(self) -> list[str]:
        """Say what does not fit, with counts and an example each."""
        parts = (
            (self.needed, "missing"),
            (self.surplus, "unexpected"),
            (tuple(one.own for one in self.misfits), "of another shape"),
        )
        return [f"{len(names)} {what} (such as {names[0]})" for names, what in parts if names]

    def changes(self) -> list[str]:
        """Say how names had to be changed."""
        said = [str(one) for one in self.renamings]
        if self.renamed:
            own, given = next(iter(self.renamed.items()))
            said.append(f"{len(self.renamed)} names by order and size (such as {given} -> {own})")
        said += [f"those with '{one}' fit as well, and were not taken" for one in self.rivals]
        return said


def shapes(state: Mapping[str, Tensor]) -> dict[str, Shape]:
    """Give the sizes of tensors; parameters that are not initialised yet have none."""
    from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

    open_ = (UninitializedParameter, UninitializedBuffer)
    return {name: None if isinstance(one, open_) else tuple(one.shape) for name, one in state.items()}


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """Give the tensors of a model's state dict, the very ones it holds; extra states are left out."""
    import torch

    state = model.state_dict(keep_vars=True)
    return {name: one for name, one in state.items() if isinstance(one, torch.Tensor)}


def plan(model: nn.Module, state: Mapping[str, Tensor]) -> Plan:
    """Find the place of every given tensor in a model: by name, without wrappers, by prefix, by order and size.

    No value is read. A renaming counts only where it fits at least half of the names that it speaks of.
    """
    return plan_of(tensors_of(model), state)


def plan_of(kept: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> Plan:
    """Find the place of every given tensor among others that have names; see `plan`."""
    own, given = shapes(kept), shapes(state)
    search = _Search(own, given)
    search.by_name()
    search.by_prefix()
    search.by_order()
    missing = _not_tied(kept, search.places)
    placed = [name for name in own if name in search.places]
    unfit = [name for name in placed if search.is_misfit(name)]
    return Plan(
        taken={name: search.places[name] for name in placed if not search.is_misfit(name)},
        misfits=tuple(_misfit(name, search.places[name], own, given) for name in unfit),
        missing=tuple(missing),
        unexpected=tuple(name for name in given if name in search.given_left),
        renamings=tuple(search.renamings),
        renamed=search.renamed,
        direct=sum(_agree(own[name], given[name]) for name in own if name in given),
        size=len(own),
        rivals=tuple(_rivals(own, {name: given[name] for name in search.given_left})),
    )


class _Search:
    """The state of one search: what has its place, and what is left on both sides."""

    def __init__(self, own: Mapping[str, Shape], given: Mapping[str, Shape]) -> None:
        self.own, self.given = own, given
        self.places: dict[str, str] = {}
        self.own_left = dict.fromkeys(own)
        self.given_left = dict.fromkeys(given)
        self.renamings: list[Renaming] = []
        self.renamed: dict[str, str] = {}

    def is_misfit(self, name: str) -> bool:
        return not _agree(self.own[name], self.given[self.places[name]])

    def _take(self, own: str, given: str) -> None:
        self.places[own] = given
        del self.own_left[own], self.given_left[given]

    def by_name(self) -> None:
        """Take what has the same name, then what has it but for parts that wrappers put in."""
        for name in [name for name in self.given if name in self.own]:
            self._take(name, name)
        bare: dict[str, list[str]] = {}
        for name in self.own_left:
            bare.setdefault(_bare(name), []).append(name)
        met: Counter[tuple[str, str]] = Counter()
        for name in list(self.given_left):
            owners = bare.get(_bare(name), [])
            if len(owners) == 1 and owners[0] in self.own_left:
                met[_wrapping(name), _wrapping(owners[0])] += 1
                self._take(owners[0], name)
        self.renamings += [Renaming(theirs, ours, count) for (theirs, ours), count in met.items()]

    def by_prefix(self) -> None:
        """Take the renaming of a prefix that gives most tensors their place, as long as one is sure enough."""
        refused: set[tuple[str, str]] = set()
        while self.own_left and self.given_left:
            votes = self._votes()
            for pair in refused:
                votes.pop(pair, None)
            if not votes:
                return
            best = max(votes, key=lambda pair: (votes[pair], -len(pair[0]) - len(pair[1])))
            if not self._rename(*best, votes[best]):
                refused.add(best)

    def _votes(self) -> Counter[tuple[str, str]]:
        """Count for each pair of prefixes how many given tensors it leads to a place of their size."""
        ends: dict[str, list[str]] = {}
        for name in self.own_left:
            for end in _ends(name):
                ends.setdefault(end, []).append(name)
        votes: Counter[tuple[str, str]] = Counter()
        for name in self.given_left:
            longest = next((end for end in _ends(name) if end in ends), "")
            for owner in ends.get(longest, [])[:4]:
                if "." in longest and _agree(self.own[owner], self.given[name]):
                    votes[name.removesuffix(longest), owner.removesuffix(longest)] += 1
            for end in _ends(name):  # a prefix that is merely taken off may leave a shorter end
                whole = end in self.own_left and ("." not in end or end != longest)
                if whole and _agree(self.own[end], self.given[name]):
                    votes[name.removesuffix(end), ""] += 1
        return votes

    def _rename(self, given: str, own: str, sure: int) -> bool:
        carriers = [name for name in self.given_left if name.startswith(given)]
        homes = [name for name in self.own_left if name.startswith(own)]
        if sure * 2 < min(len(carriers), len(homes)):
            return False
        pairs = [(own + name.removeprefix(given), name) for name in carriers]
        taken = [(place, name) for place, name in pairs if place in self.own_left]
        for place, name in taken:
            self._take(place, name)
        self.renamings.append(Renaming(given, own, len(taken)))
        return bool(taken)

    def by_order(self) -> None:
        """Take what is left in its order, where nine of ten sizes agree or one side is the other's beginning."""
        counted = [name for name in self.own_left if not _is_counter(name)]
        given = [name for name in self.given_left if not _is_counter(name)]
        for ours, theirs in ((counted, given), (list(self.own_left), list(self.given_left))):
            if ours and (self._alike(ours, theirs) or self._starts_alike(ours, theirs)):
                self.renamed = dict(zip(ours, theirs, strict=False))
                for own, name in self.renamed.items():
                    self._take(own, name)
                return

    def _alike(self, ours: list[str], theirs: list[str]) -> bool:
        if len(ours) != len(theirs):
            return False
        pairs = list(zip(ours, theirs, strict=True))
        agree = sum(_agree(self.own[own], self.given[given]) for own, given in pairs)
        return agree * 10 >= len(pairs) * 9 and all(self._same_rank(own, given) for own, given in pairs)

    def _starts_alike(self, ours: list[str], theirs: list[str]) -> bool:
        """Tell whether one side is the beginning of the other, ends of names and a matrix or more included."""
        pairs = list(zip(ours, theirs, strict=False))
        same = all(self.own[own] == self.given[given] and _last(own) == _last(given) for own, given in pairs)
        return same and len(pairs) > 1 and any(len(self.own[own] or ()) > 1 for own, _ in pairs)

    def _same_rank(self, own: str, given: str) -> bool:
        ours, theirs = self.own[own], self.given[given]
        return ours is None or theirs is None or len(ours) == len(theirs)


def _rivals(own: Mapping[str, Shape], left: Mapping[str, Shape]) -> Iterator[str]:
    """Give prefixes under which the whole model lies a second time: a teacher beside its student."""
    names = [name for name in own if not _is_counter(name)]
    first = names[0] if names else ""
    for prefix in [name.removesuffix(first) for name in left if first and name.endswith(f".{first}")]:
        if all(prefix + name in left and _agree(own[name], left[prefix + name]) for name in names):
            yield prefix


def _agree(own: Shape, given: Shape) -> bool:
    """Tell whether sizes agree; one number may be written as a vector of one, which torch loads as well."""
    return own is None or given is None or own == given or (own == () and given == (1,))


def _is_counter(name: str) -> bool:
    return _last(name) in _COUNTERS


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _bare(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def _wrapping(name: str) -> str:
    """Give the parts that wrappers put into a name: `module._orig_mod.`."""
    return "".join(f"{part}." for part in name.split(".") if part in WRAPPERS)


def _ends(name: str) -> list[str]:
    """Give a name without its first part, without its first two, …; the whole name comes first."""
    parts = name.split(".")
    return [".".join(parts[start:]) for start in range(len(parts))]


def _not_tied(kept: Mapping[str, Tensor], places: Iterable[str]) -> list[str]:
    """Give the names without a tensor; a second name of a parameter that has one needs none."""
    there = {id(kept[name]) for name in places}
    return [name for name, one in kept.items() if name not in places and id(one) not in there]


def _misfit(name: str, given_name: str, own: Mapping[str, Shape], given: Mapping[str, Shape]) -> Misfit:
    wants, has = own[name] or (), given[given_name] or ()
    return Misfit(name, given_name, wants, has, _kind(name, wants, has, own))


def _kind(
    name: str, wants: tuple[int, ...], has: tuple[int, ...], own: Mapping[str, Shape]
) -> Literal["rows", "channels", "positions", "transposed", "other"]:
    """Tell from the sizes what differs."""
    last = name.lower().rpartition(".")[2]
    if "pos" in last or "relative_coords" in last or "attn_mask" in last:
        return "positions"
    if len(wants) != len(has) or not wants:
        return "other"
    if len(wants) in (2, 4) and wants == (has[:1:-1] + has[:2] if len(has) == 4 else has[::-1]):
        return "transposed"
    axes = [axis for axis, (ours, theirs) in enumerate(zip(wants, has, strict=True)) if ours != theirs]
    first = next((one for one, shape in own.items() if shape is not None and len(shape) > 2), "")
    if axes == [1] and name == first and len(wants) > 2:
        return "channels"
    return "rows" if axes == [0] else "other"
