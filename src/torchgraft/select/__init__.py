"""Selectors: which modules or parameters of a model are meant.

    layer3              the module of that path (for parameters: all under it)
    layer[34].**        every module at any depth in layer3 and layer4, themselves included
    features.*          every direct child
    blocks[3:]          children by their order, as Python slices a list; blocks[-1] is the last
    **:BatchNorm2d      every module of that class (or of a base class of that name)
    layer1.0.conv1.weight   one parameter, where parameters are asked for
    head, stem, backbone    roles that a trace finds
    norms, biases, vectors, embeddings, trainable, frozen    roles that the model shows
    layer3.** & norms   what both select
    not norms           what it does not select; in a list, what is taken away from the others

A module's own name wins over a role of that name. A selection is a value: it prints what it matched. One that
matches nothing is an error with the nearest names.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from torchgraft.errors import SelectionError
from torchgraft.select.roles import BUILT_IN, Roles, is_norm
from torchgraft.select.seen import Noun, Seen
from torchgraft.select.selection import Matched, Selection
from torchgraft.select.selector import Entry, Selector, entry_of

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "Matched",
    "Roles",
    "Selection",
    "Selector",
    "described",
    "is_norm",
    "modules",
    "parameters",
    "selected",
]


def modules(model: nn.Module, asked: str | Iterable[str], *, roles: Roles | None = None) -> Selection:
    """Select modules by path, class or role.

    Raises:
        SelectionError: a selector matches no module.
    """
    return _selection(Seen(model, roles or {}), asked, "module")


def parameters(model: nn.Module, asked: str | Iterable[str], *, roles: Roles | None = None) -> Selection:
    """Select parameters: by their own path, or all under the modules that are selected.

    Raises:
        SelectionError: a selector matches neither a parameter nor a module that has one.
    """
    return _selection(Seen(model, roles or {}), asked, "parameter")


def selected(
    model: nn.Module, asked: str | Iterable[str], *, roles: Roles | None = None
) -> dict[int, nn.Parameter]:
    """Select parameters as objects, by id: a tied one is meant by any of its names."""
    seen = Seen(model, roles or {})
    found = _selection(seen, asked, "parameter")
    return {id(seen.held[name]): seen.held[name] for name in found}


def described(model: nn.Module, asked: str | Iterable[str], *, roles: Roles | None = None) -> Selection:
    """Select modules, or parameters where no module is meant, with their classes and sizes.

    Raises:
        SelectionError: a selector matches neither.
    """
    try:
        found = modules(model, asked, roles=roles)
    except SelectionError as error:
        try:
            found = parameters(model, asked, roles=roles)
        except SelectionError:
            raise error from None
    chosen = set(found)
    if found.noun == "parameter":
        named = [(name, one) for name, one in model.named_parameters(remove_duplicate=False) if name in chosen]
        rows = [(name, str(list(one.shape)), [one]) for name, one in named]
    else:
        inside = [(path, one) for path, one in model.named_modules(remove_duplicate=False) if path in chosen]
        rows = [(path, type(one).__name__, list(one.parameters())) for path, one in inside]
    every = {id(one): one for _, _, held in rows for one in held}
    matched = tuple(Matched(path, kind, *_sizes(held)) for path, kind, held in rows)
    return Selection(found.asked, found.paths, matched, found.noun, _sizes(every.values()))


def _sizes(held: Iterable[nn.Parameter]) -> tuple[int, int]:
    sizes = [(one.numel(), one.requires_grad) for one in held]
    return sum(size for size, _ in sizes), sum(size for size, free in sizes if free)


def _selection(seen: Seen, asked: str | Iterable[str], noun: Noun) -> Selection:
    """Put the entries of a list together: the union of those that select, less those that take away."""
    wanted = (asked,) if isinstance(asked, str) else tuple(asked)
    entries = [entry_of(text) for text in wanted]
    every = set(seen.every(noun))
    chosen = set() if any(not entry.takes_away for entry in entries) else set(every)
    for entry in entries:
        if not entry.takes_away:
            chosen |= _all_of(entry, seen, noun)
    for entry in entries:
        if entry.takes_away:
            chosen &= _all_of(entry, seen, noun)
    if wanted and not chosen:
        raise SelectionError(f"nothing is left of {', '.join(wanted)}", where=", ".join(wanted))
    return Selection(wanted, tuple(path for path in seen.every(noun) if path in chosen), noun=noun)


def _all_of(entry: Entry, seen: Seen, noun: Noun) -> set[str]:
    """Give what all terms of an entry hold for."""
    found = set(seen.every(noun))
    for negated, term in entry.terms:
        one = seen.match(term, noun)
        if not one and not (negated and term in BUILT_IN):
            raise seen.nothing(term, noun)
        found = found - seen.under(one, noun) if negated else found & one
    if not found and not entry.takes_away:
        raise SelectionError(
            f"'{entry.text}' matches no {noun}: each of its terms does, but none matches all of them",
            where=entry.text,
        )
    return found
