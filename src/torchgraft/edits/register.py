"""Register: layers that a module keeps in a plain list or dict become its children."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torchgraft.edits.base import Edit
from torchgraft.errors import EditError
from torchgraft.schema import Places

if TYPE_CHECKING:
    from torch import nn

    from torchgraft.surgery.journal import Surgery

__all__ = ["Register", "registrable"]


class Register(Edit):
    """Make layers in plain lists, tuples or dicts known to their module: as `nn.ModuleList`, `nn.ModuleDict`.

    The forward pass goes through them as before; from now on they are trained, saved, and moved with the model.

    Attributes:
        at: the module that keeps them; the model itself when empty.
        names: its attributes that hold them.
    """

    at: str = ""
    names: Places

    def apply(self, surgery: Surgery) -> Register:
        """Put a list or dict of modules in the place of each plain one."""
        home = surgery.module(self.at) if self.at else surgery.model
        known = registrable(home)
        for name in self.names:
            if name not in known:
                raise EditError(
                    f"'{name}' of {self.at or 'the model'} is no plain list or dict of layers",
                    where=self.at or "(the model itself)",
                    hint=f"one of {', '.join(known)}" if known else "register them in __init__",
                )
            surgery.register(home, name, _kept(vars(home)[name]))
        return self

    def sentence(self) -> str:
        """Say what is registered."""
        return f"{', '.join(self.names)} of {self.at or 'the model'} is registered"


def registrable(module: nn.Module) -> tuple[str, ...]:
    """Name the attributes of a module that hold layers and nothing else, in a list, tuple or dict."""
    from torch import nn

    def layers(value: Any) -> bool:
        if isinstance(value, dict):
            return bool(value) and all(isinstance(one, nn.Module) for one in value.values()) and _named(value)
        if isinstance(value, (list, tuple)):
            return bool(value) and all(isinstance(one, nn.Module) for one in value)
        return False

    return tuple(name for name, value in vars(module).items() if not name.startswith("_") and layers(value))


def _named(value: dict[Any, Any]) -> bool:
    return all(isinstance(key, str) and "." not in key and key for key in value)


def _kept(value: Any) -> nn.Module:
    from torch import nn

    return nn.ModuleDict(value) if isinstance(value, dict) else nn.ModuleList(value)
