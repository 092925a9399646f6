"""Rename: a module under another name, for keys that read as they should."""

from __future__ import annotations

import keyword
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from torchgraft.edits.base import Edit
from torchgraft.errors import EditError
from torchgraft.paths import joined
from torchgraft.schema import Name

if TYPE_CHECKING:
    from torch import nn

    from torchgraft.surgery.journal import Surgery

__all__ = ["Rename"]

_CONFIGURATIONS = ("default_cfg", "pretrained_cfg")
_PLACES = ("classifier", "first_conv")
"""Where timm's configurations name modules."""


class Rename(Edit):
    """Hold the module `at` under the name `to`, in the same place of its parent.

    The keys of the state dict change with it, and the base's weights still load. In a Sequential nothing calls
    its children by name. Elsewhere code does: the parent gets a class of its own, in which the old name means
    the module under its new one, for reading and for setting, so all its methods work as they were written
    (`copy.deepcopy` and `state_dict` work; pickling the whole module does not).

    Attributes:
        at: the path of the module.
        to: its new name, without dots.
        moved: which keys moved; written when the edit is applied.
    """

    written: ClassVar[frozenset[str]] = frozenset({"moved"})
    at: str
    to: Name
    moved: dict[str, str] = Field(default_factory=dict)

    def apply(self, surgery: Surgery) -> Rename:
        """Hold the module under its new name.

        Raises:
            SelectionError: there is no such module.
            EditError: the name is taken, or is none that an attribute may have.
        """
        parent, name = surgery.parent(self.at)
        homes = [path for path, one in surgery.model.named_modules(remove_duplicate=False) if one is parent]
        by_name = not _is_container(parent)
        if by_name and (not self.to.isidentifier() or keyword.iskeyword(self.to)):
            raise EditError(
                f"'{self.to}' can't be an attribute of {type(parent).__name__}",
                where=self.at,
                hint="take letters, digits and underscores, and no digit first",
            )
        surgery.rename(self.at, self.to)
        if by_name:
            surgery.recast(parent, _with_alias(type(parent), name, self.to))
        new = f"{self.at.rpartition('.')[0]}.{self.to}".removeprefix(".")
        _configured(surgery, self.at, new)
        moved = {joined(home, self.to): joined(home, name) for home in homes}
        return self.model_copy(update={"moved": moved})

    def sentence(self) -> str:
        """Say what is called differently."""
        return f"{self.at} is renamed to {self.to}"


def _is_container(parent: nn.Module) -> bool:
    """Tell whether a module reaches its children by order or by key, through no attribute."""
    from torch import nn

    return isinstance(parent, (nn.Sequential, nn.ModuleList, nn.ModuleDict))


def _with_alias(cls: type[nn.Module], old: str, new: str) -> type[nn.Module]:
    """Make the class again, with the old name of a child as another word for its new one."""

    def read(self: Any) -> Any:
        return getattr(self, new)

    def write(self: Any, name: str, value: Any) -> None:
        super(made, self).__setattr__(new if name == old else name, value)

    body = {old: property(read), "__setattr__": write, "__module__": cls.__module__, "__doc__": cls.__doc__}
    made: type[nn.Module] = type(cls.__name__, (cls,), body)
    return made


def _configured(surgery: Surgery, old: str, new: str) -> None:
    """Let timm's configuration, which names the classifier and the first layer, follow."""

    def told(value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return type(value)(told(one) for one in value)
        if isinstance(value, str) and (value == old or value.startswith(f"{old}.")):
            return new + value[len(old) :]
        return value

    for name in _CONFIGURATIONS:
        held = vars(surgery.model).get(name)
        if isinstance(held, dict):
            after = {**held, **{key: told(held[key]) for key in _PLACES if key in held}}
            if after != held:
                surgery.set(surgery.model, name, after)
