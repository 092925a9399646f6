"""Selectors: which modules or parameters of a model are meant.

    layer3              the module of that path (for parameters: all under it)
    layer[34].**        every module at any depth in layer3 and layer4, themselves included
    features.*          every direct child
    **:BatchNorm2d      every module of that class (or of a base class of that name)
    layer1.0.conv1.weight   one parameter, where parameters are asked for
    head                a role: the layers that make the model's output

A selection is a value: it prints what it matched. One that matches nothing is an error with the nearest names.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torchgraft.errors import SelectionError, nearest

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Roles", "Selection", "Selector", "modules", "parameters", "selected"]

Roles = Mapping[str, Sequence[str]]
"""Names that stand for paths: `{"head": ("fc",)}`."""


@dataclass(frozen=True)
class Selector:
    """A dotted glob over module paths with an optional class name: `layer[34].**:Conv2d`."""

    text: str

    @property
    def path(self) -> str:
        """The glob over the path, `**` where only a class is given."""
        return self.text.partition(":")[0] or "**"

    @property
    def kind(self) -> str:
        """The class name asked for, or nothing."""
        return self.text.partition(":")[2]

    def takes(self, path: str, types: Iterable[str] = ()) -> bool:
        """Tell whether a module or parameter of this path and these class names is meant."""
        if self.kind and self.kind not in types:
            return False
        return _fits(self.path.split("."), path.split(".") if path else [])

    def __str__(self) -> str:
        return self.text


def _fits(pattern: Sequence[str], parts: Sequence[str]) -> bool:
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_fits(pattern[1:], parts[start:]) for start in range(len(parts) + 1))
    return bool(parts) and fnmatch.fnmatchcase(parts[0], pattern[0]) and _fits(pattern[1:], parts[1:])


@dataclass(frozen=True)
class Selection:
    """What selectors matched, in the model's own order."""

    asked: tuple[str, ...]
    paths: tuple[str, ...]

    def __iter__(self) -> Iterator[str]:
        return iter(self.paths)

    def __len__(self) -> int:
        return len(self.paths)

    def __contains__(self, path: object) -> bool:
        return path in self.paths

    def __str__(self) -> str:
        return f"{', '.join(self.asked)} -> {len(self)}: {', '.join(self.paths)}"


def modules(model: nn.Module, asked: str | Iterable[str], *, roles: Roles | None = None) -> Selection:
    """Select modules by path, class or role.

    Raises:
        SelectionError: a selector matches no module.
    """
    table = {
        path: [base.__name__ for base in type(module).__mro__]
        for path, module in model.named_modules(remove_duplicate=False)
        if path
    }
    return _choose(asked, table, roles or {}, "module")


def parameters(model: nn.Module, asked: str | Iterable[str], *, roles: Roles | None = None) -> Selection:
    """Select parameters: by their own path, or all under the modules that are selected.

    Raises:
        SelectionError: a selector matches neither a parameter nor a module that has one.
    """
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    wanted = (asked,) if isinstance(asked, str) else tuple(asked)
    chosen: set[str] = set()
    for text in wanted:
        direct = {name for name in names if ":" not in text and Selector(text).takes(name)}
        if not direct:
            homes = modules(model, text, roles=roles)
            direct = {name for name in names if any(name.startswith(f"{home}.") for home in homes)}
        if not direct:
            raise SelectionError(f"'{text}' selects modules that have no parameters", where=text)
        chosen |= direct
    return Selection(wanted, tuple(name for name in names if name in chosen))


def selected(
    model: nn.Module, asked: str | Iterable[str], *, roles: Roles | None = None
) -> dict[int, nn.Parameter]:
    """Select parameters as objects, by id: a tied one is meant by any of its names."""
    names = frozenset(parameters(model, asked, roles=roles))
    named = model.named_parameters(remove_duplicate=False)
    return {id(parameter): parameter for name, parameter in named if name in names}


def _choose(asked: str | Iterable[str], table: Mapping[str, Sequence[str]], roles: Roles, noun: str) -> Selection:
    wanted = (asked,) if isinstance(asked, str) else tuple(asked)
    chosen: set[str] = set()
    for text in wanted:
        meant = roles[text] if text in roles and text not in table else (text,)
        selectors = [Selector(one) for one in meant]
        found = {path for path, types in table.items() if any(one.takes(path, types) for one in selectors)}
        if not found:
            raise SelectionError(
                f"'{text}' matches no {noun}",
                where=text,
                hint=nearest(text.partition(":")[0], [*table, *roles]) or f"one of {_some(table)}",
            )
        chosen |= found
    return Selection(wanted, tuple(path for path in table if path in chosen))


def _some(names: Iterable[str]) -> str:
    top = [name for name in names if "." not in name]
    return ", ".join(top[:12]) + (", …" if len(top) > 12 else "")
