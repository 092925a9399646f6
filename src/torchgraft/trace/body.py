"""The ghost of a whole model, kept from trace to trace: only what changed since the last one is made again.

A sweep compares every module with what it held at the last sweep, by identity, which costs a few microseconds a
module and misses nothing that is done to a module itself or to what it holds. Each module has a signature of its
structure: class, settings, sizes, children. Two blocks of one signature do the same to the same input, so one
trace serves both.
"""

from __future__ import annotations

import functools
import itertools
import weakref
from collections.abc import Callable, Hashable, Set
from dataclasses import dataclass, field
from operator import is_
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from torchgraft.errors import SourceError
from torchgraft.trace.copies import Copied, Copies, Turn
from torchgraft.trace.ghost import HOOKS, fill, shell
from torchgraft.trace.signature import LAZY, signature, token
from torchgraft.trace.signature import spec as spec_of

__all__ = ["Body", "Part"]

_PLAIN_TRAIN = nn.Module.train


@dataclass(eq=False, slots=True)
class Part:
    """One module of the model with its ghost.

    Attributes:
        sign: a number that stands for the structure of the subtree.
        free: nothing in the subtree refers to a module outside of it, so a call depends on its inputs alone.
        odd: paths in the subtree whose training flag is not that of the pass.
        dirty: the ghost has to be filled anew before the next trace.
    """

    module: nn.Module
    ghost: nn.Module
    path: str = ""
    kind: str = ""
    sign: int = -1
    free: bool = True
    dirty: bool = True
    seen: _Print | None = None
    copies: tuple[Copied, ...] = ()
    loose: tuple[Tensor, ...] = ()
    held: tuple[Tensor, ...] = ()
    titles: tuple[str, ...] = ()
    sizes: list[Hashable] = field(default_factory=list)
    named: tuple[tuple[int, str], ...] = ()
    ties: tuple[str, ...] = ()
    own: int = -1
    hidden: frozenset[int] = frozenset()
    reach: frozenset[int] = frozenset()
    below: tuple[tuple[str, nn.Module], ...] = ()
    trains: Callable[[bool], Any] | None = None
    odd: tuple[str, ...] = ()
    state: tuple[Any, ...] = field(default=(), repr=False)


class Body:
    """A model and its ghost.

    Attributes:
        parts: every module, by the id of the original, in the model's own order.
        names: the name of each parameter and buffer, by the id of its stand-in.
        kinds: the class name of each module, by path.
        files: the names of the Python files that their classes come from.
        scripted: whether a module is scripted, so that its parts live outside of Python.
    """

    def __init__(
        self,
        model: nn.Module,
        tensor: Callable[[Tensor], Tensor],
        wrap: Callable[[Part, Callable[..., Any]], Callable[..., Any]],
        note: Callable[[Part], None],
    ) -> None:
        self.model = model
        self.parts: dict[int, Part] = {}
        self.names: dict[int, str] = {}
        self.kinds: dict[str, str] = {}
        self.files: frozenset[str] = frozenset()
        self.scripted = False
        self._tensor = tensor
        self._wrap = wrap
        self._note = note
        self._twins: dict[int, tuple[weakref.ref[Tensor], Hashable, Tensor]] = {}
        self._interned: dict[Hashable, int] = {}
        self._copies: Copies = {}
        self._outside: dict[int, tuple[nn.Module, nn.Module]] = {}
        self._stamp = 0
        self._shared = self._several = False
        self._place: Hashable = None

    @property
    def ghost(self) -> nn.Module:
        """The ghost of the whole model."""
        return self.parts[id(self.model)].ghost

    # sweeping

    def sweep(self, touched: Set[int] | None = None) -> bool:
        """See what changed since the last sweep, make that anew, and tell whether there was anything.

        Args:
            touched: ids of the only modules that can have changed, where that is known.

        Raises:
            SourceError: a layer's sizes are not known yet (`nn.LazyLinear` and the like).
        """
        self._look_at_place()
        self._stamp += 1
        self._outside = {}
        if touched is None:
            changed = {key for key, part in self.parts.items() if part.dirty or not _same(part, self._stamp)}
        else:
            changed = {key for key, part in self.parts.items() if part.dirty or key in touched}
        if self.parts and not changed:
            return False
        if touched is None:
            self._spread(changed)
        before = self.parts
        self.parts = self._walked(changed)
        new = self.parts.keys() - before.keys()
        gone = before.keys() - self.parts.keys()
        moved = new | gone
        self._copies = {key: one for key, one in self._copies.items() if not one.stale}
        renewed = [
            part
            for key, part in self.parts.items()
            if key in changed or key in new or not (part.hidden.isdisjoint(moved) if part.hidden else True)
        ]
        for part in renewed:
            self._fill(part)
        several = self._name() or self._shared  # names or modules under several paths, now or before
        self._unsign(renewed, every=several or self._several)
        self._several = several
        self._sign(self.parts[id(self.model)])
        return True

    def _spread(self, changed: set[int]) -> None:
        """Make copies anew with all that they hang together with, and every part that holds one of them."""
        found = True
        while found:
            found = False
            for key, part in self.parts.items():
                if part.copies and any(one.changed(self._stamp) for one in part.copies):
                    fresh = [one for one in part.copies if not one.stale]
                    found = found or bool(fresh) or key not in changed
                    changed.add(key)
                    for one in fresh:
                        one.stale = True

    def _look_at_place(self) -> None:
        """Make all anew where the model was moved, which torch does behind every tensor at once."""
        first = next(self.model.parameters(), None)
        place = None if first is None else first.device
        if place != self._place:
            self._place = place
            for part in self.parts.values():
                part.dirty = True

    def _walked(self, changed: set[int]) -> dict[int, Part]:
        """Walk over the model, and give its parts in order, with those that are new."""
        order: dict[int, Part] = {}
        self._shared = False
        stack: list[tuple[str, nn.Module]] = [("", self.model)]
        while stack:
            path, module = stack.pop()
            key = id(module)
            if key in order:
                self._shared = True
                continue
            part = self.parts.get(key)
            if part is None or part.module is not module:
                part = Part(module, shell(module), kind=type(module).__name__)
                changed.add(key)
            if key in changed:
                part.below = tuple(_children(module).items())
            if part.path != path:
                part.path = path
                self._entitle(part)
            order[key] = part
            if part.below:
                home = f"{path}." if path else ""
                stack.extend([(home + name, child) for name, child in reversed(part.below)])
        return order

    def _ghost_of(self, module: nn.Module) -> tuple[nn.Module, bool]:
        """Give the ghost of a module, and whether it is one of the tree's; another's is made where it is met."""
        part = self.parts.get(id(module))
        if part is not None and part.module is module:
            return part.ghost, True
        if id(module) not in self._outside:
            self._outside[id(module)] = (module, shell(module))
            if not isinstance(module, torch.jit.ScriptModule):
                turn = Turn(self._ghost_of, self.stand_in, self._copies)
                fill(module, self._outside[id(module)][1], turn, lambda: None)
        return self._outside[id(module)][1], False

    def _fill(self, part: Part) -> None:
        if isinstance(part.module, torch.jit.ScriptModule):
            part.own, part.dirty = self._intern(("script", token(part.module))), False
            part.trains = part.ghost.train
            return
        _refuse_lazy(part)
        if type(part.ghost) is not type(part.module):
            part.ghost.__class__, part.kind = type(part.module), type(part.module).__name__
        part.seen = _print_of(part.module)
        held = _tensors_of(part.module)
        part.titles, part.held = tuple([name for name, _ in held]), tuple([one for _, one in held])
        part.loose = tuple([one for one in part.module.__dict__.values() if isinstance(one, Tensor)])
        part.sizes = _sizes((*part.held, *part.loose))
        turn = Turn(self._ghost_of, self.stand_in, self._copies)
        fill(part.module, part.ghost, turn, functools.partial(self._note, part))
        if isinstance(part.module, _NormBase) and part.module.momentum is None:
            part.ghost.__dict__["momentum"] = 0.1  # None reads the value of a counter, and no shape depends on it
        part.hidden, part.copies = frozenset(turn.hidden), tuple(turn.used.values())
        part.own = self._intern((signature(part.module), tuple(map(spec_of, part.held))))
        self._entitle(part)
        part.dirty = turn.outside or _has_hooks(part.module)  # what they keep is copied for each trace
        forward = part.ghost.forward
        part.ghost.__dict__["forward"] = self._wrap(part, forward)
        part.trains = part.ghost.train if _trains_by_itself(part.module) else None
        part.state = state_of(part.ghost)

    def _entitle(self, part: Part) -> None:
        home = f"{part.path}." if part.path else ""
        pairs = zip(part.titles, part.held, strict=True)
        part.named = tuple([(id(self.stand_in(one)), home + title) for title, one in pairs])

    def stand_in(self, tensor: Tensor) -> Tensor:
        """Give the stand-in of a tensor, made when it is first asked for."""
        known = self._twins.get(id(tensor))
        spec = spec_of(tensor)
        if known is None or known[0]() is not tensor or known[1] != spec:
            known = self._twins[id(tensor)] = (weakref.ref(tensor), spec, self._tensor(tensor))
        return known[2]

    def _name(self) -> bool:
        """Name the stand-ins, and tell whether some have several; these keep the first."""
        self.kinds = {part.path: part.kind for part in self.parts.values()}
        self.files = frozenset([type(part.module).__module__ for part in self.parts.values()])
        self.scripted = any(isinstance(part.module, torch.jit.ScriptModule) for part in self.parts.values())
        every = [part.named for part in self.parts.values() if part.named]
        self.names = dict(itertools.chain.from_iterable(every))
        tied = len(self.names) != sum(map(len, every))
        if tied:
            self.names = dict(itertools.chain.from_iterable(reversed([part[::-1] for part in every])))
        for part in self.parts.values():
            names = tuple([self.names[key] for key, _ in part.named]) if tied else ()
            part.ties = names if names != tuple([name for _, name in part.named]) else ()
        if len(self._twins) > 2 * len(self.names) + 64:
            self._twins = {key: twin for key, twin in self._twins.items() if twin[0]() is not None}
        return tied

    # signatures

    def _unsign(self, renewed: list[Part], *, every: bool) -> None:
        """Forget the signatures of parts that were made anew and of all that hold them."""
        if every:
            for part in self.parts.values():
                part.sign = -1
            return
        homes = {part.path[:end] for part in renewed for end in _ends(part.path)}
        for part in self.parts.values():
            if part.path in homes:
                part.sign = -1

    def _sign(self, part: Part) -> int:
        if part.sign >= 0:
            return part.sign
        signs, reach = [], part.hidden
        for name, child in part.below:
            one = self.parts[id(child)]
            shared = one.path if one.path != (f"{part.path}.{name}" if part.path else name) else None
            signs.append((name, self._sign(one), shared))
            reach = reach | one.reach if one.reach else reach
        part.sign = self._intern((part.own, part.ties, tuple(signs)))
        part.reach = reach - self._ids(part) if reach else reach
        part.free = not part.reach
        return part.sign

    def _intern(self, value: Hashable) -> int:
        return self._interned.setdefault(value, len(self._interned))

    def _ids(self, part: Part) -> set[int]:
        return {id(module) for module in part.module.modules()}

    # flags and state

    def train(self, train: bool) -> None:
        """Set the training flags of all ghosts, as `model.train(train)` would."""
        own = [part for part in self.parts.values() if part.trains is not None]
        done: str | None = None
        for part in self.parts.values():
            below = done is not None and _under(part.path, done)
            if part.trains is not None and not below:
                done = part.path
            if part.trains is None or not isinstance(part.module, torch.jit.ScriptModule):
                # what an overriding train() does not reach keeps its own flag
                part.ghost.__dict__["training"] = part.module.training if below else train
            part.odd = ()
        done = None
        for part in own:
            if part.trains is not None and not (done is not None and _under(part.path, done)):
                part.trains(train)
                done = part.path
        if own:
            self._mark_odd(train)

    def _mark_odd(self, train: bool) -> None:
        """Note in every part which modules of it have the other flag, such as norms that stay still."""
        by_path = {part.path: part for part in self.parts.values()}
        for part in self.parts.values():
            if part.ghost.training is train or isinstance(part.module, torch.jit.ScriptModule):
                continue
            steps = part.path.split(".") if part.path else []
            for count in range(len(steps) + 1):
                home = by_path.get(".".join(steps[:count]))
                if home is not None:
                    home.odd = (*home.odd, ".".join(steps[count:]))

    def disturbed(self, ran: set[int]) -> bool:
        """Mark ghosts that the pass wrote to, and tell whether one wrote to another."""
        foreign = False
        for key in ran:
            part = self.parts[key]
            for one in (part, *(self.parts[id(child)] for _, child in part.below)):
                if not one.dirty and one.state and changed_state(one):
                    one.dirty = True
                    foreign = foreign or id(one.module) not in ran or one is not part
        return foreign


def _ends(path: str) -> list[int]:
    """Give where the path of each module ends that holds the one at `path`, itself included."""
    return [0, *(place for place, sign in enumerate(path) if sign == "."), len(path)]


def _under(path: str, home: str) -> bool:
    return not home or path == home or path.startswith(f"{home}.")


def state_of(ghost: nn.Module) -> tuple[Any, ...]:
    """Take down what a ghost holds, to see later whether a pass wrote to it; the training flag left out."""
    held = ghost.__dict__
    return tuple(held.items()), _contents(held), _shapes(held)


def _contents(held: dict[str, Any]) -> tuple[Any, ...]:
    return (*held["_parameters"].values(), *held["_buffers"].values(), *held["_modules"].values())


def _shapes(held: dict[str, Any]) -> tuple[Any, ...]:
    return tuple([None if one is None else one.shape for one in held["_buffers"].values()])


def changed_state(part: Part) -> bool:
    """Tell whether a ghost holds something else than when it was filled."""
    items, contents, shapes = part.state
    held = part.ghost.__dict__
    now = _contents(held)
    if len(items) != len(held) or len(now) != len(contents) or not all(map(is_, now, contents)):
        return True
    if _shapes(held) != shapes or any(one.disturbed() for one in part.copies):
        return True
    return any(held.get(name, _GONE) is not value for name, value in items if name != "training")


_GONE = object()


def _children(module: nn.Module) -> dict[str, nn.Module]:
    if isinstance(module, torch.jit.ScriptModule):
        return {}
    return {name: child for name, child in module._modules.items() if child is not None}


def _tensors_of(module: nn.Module) -> list[tuple[str, Tensor]]:
    if isinstance(module, torch.jit.ScriptModule):
        return []
    boxes = (module._parameters, module._buffers)
    return [(name, one) for box in boxes for name, one in box.items() if one is not None]


@dataclass(slots=True)
class _Print:
    """What a module held, for a comparison with what it holds."""

    held: dict[str, Any]
    forward: Any
    children: list[Any]
    tensors: tuple[Any, ...]
    hooks: tuple[Any, ...]


def _print_of(module: nn.Module) -> _Print:
    held = module.__dict__
    return _Print(dict(held), type(module).forward, list(held["_modules"].items()), _ids_of(held), _hooks_of(held))


def _ids_of(held: dict[str, Any]) -> tuple[Any, ...]:
    parameters, buffers = held["_parameters"], held["_buffers"]
    return (*parameters, *map(id, parameters.values()), *buffers, *map(id, buffers.values()))


def _hooks_of(held: dict[str, Any]) -> tuple[Any, ...]:
    return (*map(id, held["_forward_hooks"].values()), *map(id, held["_forward_pre_hooks"].values()))


def _sizes(tensors: tuple[Tensor, ...]) -> list[Hashable]:
    return [(one.shape, one.dtype, one.layout is torch.strided and one.stride()) for one in tensors]


def _same(part: Part, stamp: int) -> bool:
    """Tell whether a module holds what it held at the last sweep."""
    module, seen = part.module, part.seen
    if seen is None:
        return isinstance(module, torch.jit.ScriptModule)
    held = module.__dict__
    if type(part.ghost) is not type(module) or type(module).forward is not seen.forward:
        return False
    try:  # identical values are equal at once; a tensor in place of another has no truth
        if held != seen.held and not _switched(held, seen):
            return False
        if (held["_modules"] or seen.children) and list(held["_modules"].items()) != seen.children:
            return False
    except Exception:
        return False
    if _ids_of(held) != seen.tensors or _hooks_of(held) != seen.hooks:
        return False
    if part.copies and any(one.changed(stamp) for one in part.copies):
        return False
    return not part.sizes or _sizes((*part.held, *part.loose)) == part.sizes


def _switched(held: dict[str, Any], seen: _Print) -> bool:
    """Tell whether `training` alone was switched, which says nothing about the structure."""
    return held == {**seen.held, "training": held.get("training")}


def _has_hooks(module: nn.Module) -> bool:
    hooks = [hook for name in HOOKS for hook in module.__dict__.get(name, {}).values()]
    return any(not str(getattr(hook, "__module__", "")).startswith("torch.") for hook in hooks)


def _trains_by_itself(module: nn.Module) -> bool:
    return type(module).train is not _PLAIN_TRAIN or callable(module.__dict__.get("train"))


def _refuse_lazy(part: Part) -> None:
    tensors = (*part.module._parameters.values(), *part.module._buffers.values())
    if any(isinstance(one, LAZY) for one in tensors):
        raise SourceError(
            f"the sizes of {part.path or 'the model'} ({part.kind}) are not known yet",
            where=part.path,
            hint="run one batch through the model first, or write the sizes out",
        )
