"""What differs: a graft against its own base, or against another model, recipe or version."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchgraft.errors import RecipeError, TorchgraftError
from torchgraft.view.compare import compare
from torchgraft.view.difference import Difference
from torchgraft.view.sides import Side, side

if TYPE_CHECKING:
    from torch import Tensor, nn

    from torchgraft.graft import Graft
    from torchgraft.recipe import Recipe
    from torchgraft.trace import Trace

__all__ = ["Difference", "base_of", "base_side", "diff", "side_of"]

_HOME = "torchgraft.comparing"
"""What opens names stands above: it is looked up when it is asked for, as the verbs of a graft are."""


def diff(
    graft: Graft,
    other: Graft | nn.Module | Recipe | str | Path | None = None,
    *,
    values: bool = True,
    to: str | Path | None = None,
) -> Difference:
    """Say what differs: `print(g.diff())` against the base, `print(g.diff(other))` from `g` to another.

    Args:
        graft: the first.
        other: the second: a graft, a module, a recipe, or a name as the command line takes it: a recipe.yaml, a
            source, a version. Where it is left out, the graft's own base is the first, and the graft the second.
        values: compare the numbers of tensors too. Against its own base, this loads the base again, since training
            may have changed in place what edits left there.
        to: draw both in one graph into this file: .svg, .html, .png, .dot or .json.

    Raises:
        TorchgraftError: what is named can't be opened, or the file can't be written.
    """
    if other is None:
        found = compare(base_side(graft, again=values), side_of(graft), values=values)
        second = None
    else:
        second, side = opened(graft, other)
        found = compare(side_of(graft), side, values=values)
    if to is not None:
        importlib.import_module(_HOME).draw_diff(found, graft, second, to)
    return found


def opened(graft: Graft, other: Any) -> tuple[Graft, Side]:
    """Open what a graft is compared with.

    Raises:
        TorchgraftError: it can't be opened, or is nothing that could be.
    """
    from torch import nn

    from torchgraft.graft import Graft
    from torchgraft.loading import load, replay
    from torchgraft.recipe import Recipe

    if isinstance(other, (str, Path)):
        home, name = importlib.import_module(_HOME), str(other)
        named: tuple[Graft, Side] = home.opened(name, usual=graft.recipe.input, trust=graft.trust)
        return named
    if isinstance(other, nn.Module):
        example = graft._example if graft._example is not None else graft.input_shape
        other = load(other, input=example)
    if isinstance(other, Recipe):
        other = replay(other, trust=graft.trust)
    if isinstance(other, Graft):
        return other, side_of(other)
    raise RecipeError(
        f"a {type(other).__name__} can't be compared",
        where="diff",
        hint="give a graft, a module, a recipe, or the name of one: g.diff('runs@v3')",
    )


def side_of(graft: Graft, title: str = "") -> Side:
    """Write down a graft as it stands."""
    trace, notes = _traced(graft)
    name = title or _title(graft)
    return side(name, graft.module, graft.recipe, trace, edits=graft.added, notes=notes)


@contextmanager
def base_of(graft: Graft) -> Iterator[Graft]:
    """Give a graft's base as a graft: every edit is taken back while the block runs, and made again after it."""
    from torchgraft.graft import Graft

    recipe = graft.recipe.model_copy(update={"edits": (), "train": None})
    for _, surgery in reversed(graft._history):
        surgery.undo()
    try:
        yield Graft(graft.module, recipe, example=graft._example, trust=graft.trust, real=graft._looks.real)
    finally:
        for _, surgery in graft._history:
            surgery.redo()


def base_side(graft: Graft, *, again: bool = True) -> Side:
    """Write down the base of a graft.

    Args:
        graft: whose base is meant; afterwards it is as it was, tensor by tensor.
        again: load the base anew for its numbers, where they are asked for.
    """
    with base_of(graft) as bare:
        found = side_of(bare, _base_title(graft))
    if not again or all(one.meta for one in found.tensors.values()):
        return found
    return _read_again(found, graft)


def _read_again(found: Side, graft: Graft) -> Side:
    """Let the numbers of a base come from its source: those in memory may have been trained since."""
    from dataclasses import replace

    if graft.recipe.base.startswith("object:"):
        note = "the base was handed over in Python: what was trained in place since can't be told from it"
        return replace(found, notes=(*found.notes, note))
    try:
        fresh = _loaded(graft)
    except TorchgraftError as error:
        note = f"the base can't be loaded again ({error.what}): what was trained in place can't be told from it"
        return replace(found, notes=(*found.notes, note))
    held = found.read

    def read(name: str) -> Tensor | None:
        return fresh()[name] if name in fresh() else held(name)

    return replace(found, read=read)


def _loaded(graft: Graft) -> Callable[[], dict[str, Tensor]]:
    """Give what loads the base of a graft once, when its numbers are asked for.

    Raises:
        TorchgraftError: it can't be had.
    """
    from torchgraft.sources import parse_source
    from torchgraft.weights.plan import tensors_of

    source = parse_source(graft.recipe.base)
    source.check(trust=graft.trust)

    @cache
    def load() -> dict[str, Tensor]:
        return tensors_of(source.load(seed=graft.recipe.seed, trust=graft.trust).module)

    return load


def _traced(graft: Graft) -> tuple[Trace | None, tuple[str, ...]]:
    try:
        return graft.trace(), ()
    except TorchgraftError as error:
        return None, (f"shapes and MACs are left out: {error.what}",)


def _title(graft: Graft) -> str:
    edits = len(graft.recipe.edits)
    name = graft.recipe.title if graft.version is None else f"v{graft.version.number} of {graft.recipe.title}"
    return f"{name} with {edits} edit{'s'[: edits != 1]}" if edits else name


def _base_title(graft: Graft) -> str:
    return f"{graft.recipe.title} as it was"
