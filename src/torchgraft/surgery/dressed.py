"""A forward around a module's own, where it takes or gives what no graph can write down: any arguments, tuples."""

from __future__ import annotations

import functools
import inspect
import linecache
from typing import TYPE_CHECKING, Any, Literal

from torchgraft.surgery.forward import derived

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Side", "dressed", "is_open"]

Side = Literal["before", "after", "around"]

_BODIES: dict[Side, str] = {
    "before": "    given = (new(given[0]), *given[1:])\n    return inner(self, *given, **named)\n",
    "after": "    out = inner(self, *given, **named)\n"
    "    return (new(out[0]), *out[1:]) if isinstance(out, tuple) else new(out)\n",
    "around": "    beside = new(given[0].clone())\n"
    "    out = inner(self, *given, **named)\n"
    "    return (out[0] + beside, *out[1:]) if isinstance(out, tuple) else out + beside\n",
}


def is_open(module: nn.Module) -> bool:
    """Tell whether a forward takes any number of arguments, by place or by name."""
    kinds = {one.kind for one in inspect.signature(module.forward).parameters.values()}
    return bool(kinds & {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD})


def dressed(module: nn.Module, name: str, side: Side) -> type[nn.Module]:
    """Give a class for a module whose forward also calls its child of that name, on the first tensor.

    Args:
        module: it keeps its children and keys.
        name: of the child.
        side: the child takes what the module is given, or what it gives; or runs beside it and is added.
    """
    cls = type(module)
    code = f"def forward(self, *given, **named):\n    new = getattr(self, {name!r})\n{_BODIES[side]}"
    file = f"<{side} the forward of {cls.__name__} {name} {id(module)}>"
    scope: dict[str, Any] = {"inner": cls.forward}
    exec(compile(code, file, "exec"), scope)
    linecache.cache[file] = (len(code), None, code.splitlines(keepends=True), file)
    return derived(cls, functools.wraps(cls.forward)(scope["forward"]))
