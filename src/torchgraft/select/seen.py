"""A model as selectors see it: what one term matches among its modules, or among its parameters."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from torchgraft.errors import SelectionError, nearest
from torchgraft.select.roles import MODULE_ROLES, PARAMETER_ROLES, Roles
from torchgraft.select.selector import Selector

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Noun", "Seen", "walk"]

Noun = Literal["module", "parameter"]

_FEW = 4
"""Up to so many modules are compared one by one with a path; of more, each prefix of the path is looked up."""


@dataclass(frozen=True)
class Seen:
    """A model as selectors see it; what one term matches in it."""

    model: nn.Module
    roles: Roles

    @cached_property
    def _modules(self) -> dict[str, nn.Module]:
        return dict(walk(self.model))

    @cached_property
    def table(self) -> dict[str, nn.Module]:
        """Every module but the model itself, by each of its paths."""
        return {path: module for path, module in self._modules.items() if path}

    @cached_property
    def held(self) -> dict[str, nn.Parameter]:
        """Every parameter, by each of its names."""
        return {
            f"{path}.{name}" if path else name: one
            for path, module in self._modules.items()
            for name, one in module._parameters.items()
            if one is not None
        }

    @cached_property
    def names(self) -> list[str]:
        """The names of all parameters; a tied one has several."""
        return list(self.held)

    def children(self, path: str) -> Sequence[str]:
        """Give the names of a module's children in their order."""
        module = self._modules.get(path)
        return [] if module is None else [name for name, one in module._modules.items() if one is not None]

    def every(self, noun: Noun) -> Sequence[str]:
        """Give all there is, in the model's order."""
        return list(self.table) if noun == "module" else self.names

    def match(self, term: str, noun: Noun) -> set[str]:
        """Give what a term selects."""
        return self.modules(term) if noun == "module" else self.parameters(term)

    def under(self, paths: set[str], noun: Noun = "module") -> set[str]:
        """Give modules with all that is in them; parameters as they are."""
        return paths if noun == "parameter" else {path for path in self.table if _is_in(path, paths)}

    def modules(self, term: str) -> set[str]:
        """Give the modules that a term selects."""
        if term in self.table:
            return {term}
        if term in self.roles:
            return {path for one in self.roles[term] for path in self._globbed(one)}
        if term in MODULE_ROLES:
            return {path for path, one in self._modules.items() if path and MODULE_ROLES[term](one)}
        if term == "backbone" and "head" in self.roles:
            return set(self.table) - self.under(self.modules("head"))
        return self._globbed(term)

    def parameters(self, term: str) -> set[str]:
        """Give the names of the parameters that a term selects."""
        if term in self.table:
            return self._held({term})
        if term in self.roles:
            return {name for one in self.roles[term] for name in self._either(one)}
        if term in PARAMETER_ROLES and term not in self.names:
            return PARAMETER_ROLES[term](self.model)
        if term == "backbone" and "head" in self.roles:
            return set(self.names) - self.parameters("head")
        return self._either(term)

    def _either(self, term: str) -> set[str]:
        selector = Selector(term)
        direct = set() if selector.kind else {n for n in self.names if selector.takes(n, children=self.children)}
        return direct or self._held(self._globbed(term))

    def _held(self, homes: set[str]) -> set[str]:
        found = {name for name in self.names if _is_in(name, homes)}
        if homes and not found:
            text = ", ".join(sorted(homes)[:3])
            raise SelectionError(f"'{text}' selects modules that have no parameters", where=text)
        return found

    def _globbed(self, term: str) -> set[str]:
        selector = Selector(term)
        types = _types if selector.kind else _no_types
        return {path for path, one in self.table.items() if selector.takes(path, types(one), self.children)}

    def nothing(self, term: str, noun: Noun) -> SelectionError:
        """Say that a term matches nothing, and what is near."""
        roles = [*self.roles, *PARAMETER_ROLES, "backbone", "stem", "head"]
        near = "" if term in roles else nearest(Selector(term).path, [*self.table, *roles])
        return SelectionError(
            f"'{term}' matches no {'module' if noun == 'module' else 'module or parameter'}"
            + (": the model has none of that role" if term in roles else ""),
            where=term,
            hint=self._indexed(term) or _otherwise(term) or near or self._kinds(term) or self._some(),
        )

    def _indexed(self, term: str) -> str:
        """Say how a child is named, where somebody wrote an index as in Python."""
        dotted = re.sub(r"\[(\d+)\]", r".\1", term)
        return f"a child is named with a dot: {dotted}" if dotted != term and dotted in self.table else ""

    def _kinds(self, term: str) -> str:
        kinds = {type(one).__name__ for one in self.table.values()}
        return nearest(Selector(term).kind, kinds) if Selector(term).kind else ""

    def _some(self) -> str:
        top = [name for name in self.table if "." not in name]
        return f"one of {', '.join(top[:12])}{', …' if len(top) > 12 else ''}"


def _otherwise(term: str) -> str:
    """Say how it is written here, where somebody wrote a selector as in another language."""
    if term[:1] in ("!", "~"):
        return f"write: not {term[1:].strip()}"
    if "{" in term:
        return "one of several letters is written [34]: layer[34]"
    return "several selectors are a list: ['layer3', 'head']" if re.search(r"[|,()]", term) else ""


def _types(module: nn.Module) -> list[str]:
    return [base.__name__ for base in type(module).__mro__]


def _no_types(module: nn.Module) -> list[str]:
    return []


def walk(module: nn.Module, path: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Give a module and all in it by every path, in the order of `named_modules`, and in a third of its time."""
    yield path, module
    for name, child in module._modules.items():
        if child is not None:
            yield from walk(child, f"{path}.{name}" if path else name)


def _is_in(path: str, homes: Set[str]) -> bool:
    if path in homes or len(homes) <= _FEW:
        return path in homes or path.startswith(tuple([f"{home}." for home in homes]))
    return any(prefix in homes for prefix in _prefixes(path))


def _prefixes(path: str) -> Iterator[str]:
    """Give a path and the paths of all that hold it."""
    yield path
    while "." in path:
        path = path.rpartition(".")[0]
        yield path
