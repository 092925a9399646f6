"""Insert: a new module before or after an existing one."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from torchgraft.edits.base import Edit
from torchgraft.edits.build import build
from torchgraft.edits.chain import chained, gated, takes_one
from torchgraft.errors import EditError
from torchgraft.family import kind_of
from torchgraft.modulespec import ModuleSpec
from torchgraft.schema import Name

if TYPE_CHECKING:
    from torch import nn

    from torchgraft.edits.surgery import Surgery

__all__ = ["Insert", "is_sequence", "place_in"]


class Insert(Edit):
    """Put a module before or after another, so that the tensor passes through both.

    Into a Sequential it goes by order, no key is renumbered. Elsewhere the neighbour is wrapped in a Sequential
    (in a graph of torch.fx where it takes more than one argument), which moves its keys by one name; `moved` says
    so, and loading the base's weights uses it.

    Attributes:
        module: what is put in.
        after: the neighbour that it stands behind.
        before: or the one that it stands in front of.
        name: under which it is held.
        start: with `identity`, what the module gives is added to what it takes through a gate that starts at zero,
            so the model starts as it was; the module is then held as `block`.
        moved: which keys a wrapper moved; written when the edit is applied.
    """

    module: ModuleSpec
    after: str | None = None
    before: str | None = None
    name: Name | None = None
    start: Literal["identity"] | None = None
    moved: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.after is None) == (self.before is None):
            raise ValueError("an insert names one place: after or before")
        return self

    @property
    def at(self) -> str:
        """The neighbour."""
        return self.after or self.before or ""

    def apply(self, surgery: Surgery) -> Insert:
        """Build the module for the tensor that passes there, and put it in."""
        neighbour = surgery.module(self.at)
        traced = surgery.look(False)
        arriving = traced.gave(self.at) if self.after else traced.given(self.at)
        module, spec = build(self.module, arriving, surgery, self.at)
        name = self.name or _free_name(spec, neighbour, surgery.parent(self.at)[0])
        if self.start == "identity":
            module = gated(module)
        moved = self._place(surgery, neighbour, name, module)
        return self.model_copy(update={"module": spec, "name": name, "moved": moved})

    def _place(self, surgery: Surgery, neighbour: nn.Module, name: str, module: nn.Module) -> dict[str, str]:
        parent, own = surgery.parent(self.at)
        home = self.at.rpartition(".")[0]
        if is_sequence(parent):
            surgery.insert(home, name, module, after=own if self.after else _before(parent, own))
            return {}
        if is_sequence(neighbour):
            last = list(neighbour._modules)[-1] if len(neighbour._modules) else None
            surgery.insert(self.at, name, module, after=last if self.after else None)
            return {}
        return _wrap(surgery, self.at, neighbour, name, module, after=bool(self.after))

    def keys(self) -> Mapping[str, str]:
        """Say which keys a wrapper moved."""
        return self.moved

    def sentence(self) -> str:
        """Say what stands where."""
        side = "after" if self.after else "before"
        told = f"{self.module} is inserted {side} {self.at}" + (f" as {self.name}" if self.name else "")
        return f"{told}, and starts as the identity" if self.start else told


def is_sequence(module: nn.Module) -> bool:
    """Tell whether a module passes its input through its children in order, and does nothing else."""
    from torch import nn

    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward


def place_in(home: str, sequence: nn.Module, name: str | None, module: nn.Module, surgery: Surgery) -> str:
    """Put a module at the end of a Sequential."""
    last = list(sequence._modules)[-1] if len(sequence._modules) else None
    return surgery.insert(home, name or _free(str(len(sequence._modules)), sequence), module, after=last)


def _before(parent: nn.Module, name: str) -> str | None:
    order = list(parent._modules)
    place = order.index(name)
    return order[place - 1] if place else None


def _wrap(
    surgery: Surgery, path: str, neighbour: nn.Module, name: str, module: nn.Module, *, after: bool
) -> dict[str, str]:
    from torch import nn

    pair = [("base", neighbour), (name, module)]
    if name == "base":
        raise EditError("'base' names the wrapped module", where=path, hint="give the new module another name")
    every = [one for one, held in surgery.model.named_modules(remove_duplicate=False) if held is neighbour]
    plain = takes_one(neighbour)
    made = nn.Sequential(OrderedDict(pair if after else pair[::-1])) if plain else chained(path, pair, after=after)
    _look_like(made, neighbour)
    surgery.put(path, made)
    surgery.added[-1] = f"{path}.{name}"
    return {f"{one}.base": one for one in every}


def _look_like(wrapper: nn.Module, neighbour: nn.Module) -> None:
    """Give a wrapper the plain attributes of what it wraps: the parent may read them off its child."""
    for name, value in vars(neighbour).items():
        plain = value is None or isinstance(value, (bool, int, float, str, tuple))
        if plain and not name.startswith("_") and not hasattr(wrapper, name):
            setattr(wrapper, name, value)


def _free_name(spec: ModuleSpec, neighbour: nn.Module, parent: nn.Module) -> str:
    word = spec.args.get("class") if spec.of == "object" else spec.of.rpartition(".")[2].rpartition(":")[2]
    return _free(kind_of(str(word)), parent, neighbour)


def _free(name: str, *modules: nn.Module) -> str:
    number, free = 2, name
    while any(hasattr(module, free) for module in modules):
        free, number = f"{name}_{number}", number + 1
    return free
