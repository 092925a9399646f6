"""Insert: a new module before, after or beside an existing one."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, model_validator

from torchgraft.edits.base import Edit
from torchgraft.errors import EditError
from torchgraft.family import kind_of
from torchgraft.modulespec import ModuleSpec
from torchgraft.schema import Name
from torchgraft.surgery.build import build
from torchgraft.surgery.chain import beside, chained, gated, scaled, takes_one
from torchgraft.surgery.dressed import Side, dressed, is_open
from torchgraft.surgery.lists import follow_length, is_list, runs_with
from torchgraft.surgery.standing import free_name, gate_like, gives_pair, is_sequence, look_like

if TYPE_CHECKING:
    from torch import nn

    from torchgraft.surgery.journal import Surgery

__all__ = ["Insert"]


class Insert(Edit):
    """Put a module before or after another, so that the tensor passes through both, or around it: beside it.

    Into a Sequential it goes by order, no key is renumbered; into a list of layers too, where the model goes
    through the list. Elsewhere the neighbour is wrapped in a Sequential (in a graph of torch.fx where it takes
    more than one argument), which moves its keys by one name; `moved` says so, and loading the base's weights uses
    it. A neighbour that takes any arguments, or gives several tensors, gets a forward of its own and keeps its
    keys.

    Attributes:
        module: what is put in.
        after: the neighbour that it stands behind.
        before: or the one that it stands in front of.
        name: under which it is held.
        start: with `identity`, what the module gives is added through a gate that starts at zero, so the model
            starts as it was; the module is then held as `block`.
        around: or the neighbour that it runs beside: it takes the same tensor, and what both give is added.
        moved: which keys a wrapper moved; written when the edit is applied.
    """

    written: ClassVar[frozenset[str]] = frozenset({"moved"})
    module: ModuleSpec
    after: str | None = None
    before: str | None = None
    name: Name | None = None
    start: Literal["identity"] | None = None
    around: str | None = None
    moved: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if sum(one is not None for one in (self.after, self.before, self.around)) != 1:
            raise ValueError("an insert names one place: after, before or around")
        return self

    @property
    def at(self) -> str:
        """The neighbour."""
        return self.after or self.before or self.around or ""

    @property
    def side(self) -> Side:
        """On which side of the neighbour the module stands."""
        return "after" if self.after is not None else "before" if self.before is not None else "around"

    def apply(self, surgery: Surgery) -> Insert:
        """Build the module for the tensor that passes there, and put it in."""
        neighbour = surgery.module(self.at)
        traced = surgery.look(False)
        arriving = traced.gave(self.at) if self.after else traced.given(self.at)
        module, spec = build(self.module, arriving, surgery, self.at)
        name = self.name or _free_name(spec, neighbour, surgery.parent(self.at)[0])
        if self.start == "identity":
            module = scaled(module) if self.around else gated(module)
            gate_like(module, neighbour, surgery.model)
        moved = self._place(surgery, neighbour, name, module)
        return self.model_copy(update={"module": spec, "name": name, "moved": moved})

    def _place(self, surgery: Surgery, neighbour: nn.Module, name: str, module: nn.Module) -> dict[str, str]:
        if self.around:
            return _wrap(surgery, self.at, neighbour, name, module, side="around")
        parent, own = surgery.parent(self.at)
        home = self.at.rpartition(".")[0]
        if is_sequence(parent):
            surgery.insert(home, name, module, after=own if self.after else _before(parent, own))
            return {}
        if is_sequence(neighbour):
            last = list(neighbour._modules)[-1] if len(neighbour._modules) else None
            surgery.insert(self.at, name, module, after=last if self.after else None)
            return {}
        if is_list(parent) and self._into_list(surgery, home, name, module):
            return {}
        return _wrap(surgery, self.at, neighbour, name, module, side=self.side)

    def _into_list(self, surgery: Surgery, home: str, name: str, module: nn.Module) -> bool:
        """Put the module into a list of layers by order, where the model then goes through it."""
        parent, own = surgery.parent(self.at)
        count, place = len(parent._modules), list(parent._modules).index(own) + bool(self.after)

        def change(one: Surgery) -> None:
            one.insert(home, name, module, after=own if self.after else _before(parent, own))
            follow_length(one, home, count, place=place)

        fits = runs_with(surgery, change, calls=f"{home}.{name}")
        if fits:
            change(surgery)
        return fits

    def sentence(self) -> str:
        """Say what stands where."""
        told = f"{self.module} is inserted {self.side} {self.at}" + (f" as {self.name}" if self.name else "")
        if self.start and self.around:
            return f"{told}, and starts at zero"
        return f"{told}, and starts as the identity" if self.start else told


def _before(parent: nn.Module, name: str) -> str | None:
    order = list(parent._modules)
    place = order.index(name)
    return order[place - 1] if place else None


def _wrap(
    surgery: Surgery, path: str, neighbour: nn.Module, name: str, module: nn.Module, *, side: Side
) -> dict[str, str]:
    if is_open(neighbour) or len(surgery.look(False).gave(path)) > 1 or gives_pair(neighbour):
        last = next(reversed(neighbour._modules), None)
        surgery.insert(path, name, module, after=last)
        surgery.recast(neighbour, dressed(neighbour, name, side))
        return {}
    if name == "base":
        raise EditError("'base' names the wrapped module", where=path, hint="give the new module another name")
    every = [one for one, held in surgery.model.named_modules(remove_duplicate=False) if held is neighbour]
    made = _wrapper(path, [("base", neighbour), (name, module)], side)
    look_like(made, neighbour)
    surgery.put(path, made)
    surgery.added[-1] = f"{path}.{name}"
    return {f"{one}.base": one for one in every}


def _wrapper(path: str, pair: list[tuple[str, nn.Module]], side: Side) -> nn.Module:
    from torch import nn

    if side == "around":
        return beside(path, pair)
    if takes_one(pair[0][1]):
        return nn.Sequential(OrderedDict(pair if side == "after" else pair[::-1]))
    return chained(path, pair, after=side == "after")


def _free_name(spec: ModuleSpec, neighbour: nn.Module, parent: nn.Module) -> str:
    word = spec.args.get("class") if spec.of == "object" else spec.of.rpartition(".")[2].rpartition(":")[2]
    return free_name(kind_of(str(word)), parent, neighbour)
