"""Review a recipe or a model by name: what `torchgraft check` does before it prints."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torchgraft.checking import judged
from torchgraft.edits.base import Edit
from torchgraft.errors import EditError, RecipeError, nearest
from torchgraft.fixing import mend
from torchgraft.fixing import prove as proof
from torchgraft.graft import Graft
from torchgraft.loading import load, replay
from torchgraft.recipe import Recipe, is_recipe
from torchgraft.repair import WAYS
from torchgraft.rules import Finding, Fix, judge
from torchgraft.sources.base import is_code

__all__ = ["Review", "review"]


@dataclass(frozen=True)
class Review:
    """What a review found.

    Attributes:
        findings: errors first.
        recipe: what was reviewed, with the edits that mend it where that was asked for.
        added: how many edits these are.
        proved: one real forward and backward pass was asked for, and got through.
        edit: the number of the edit of the recipe that was refused, if one was.
    """

    findings: tuple[Finding, ...]
    recipe: Recipe
    added: int = 0
    proved: bool = False
    edit: int | None = None


def review(
    target: str,
    *,
    input: Sequence[int] | None = None,
    data: Any = None,
    weights: Any = None,
    fix: str | None = None,
    prove: bool = False,
    real: bool = False,
    trust: bool = False,
) -> Review:
    """Review a recipe file, a source, or `file.py:factory`.

    Args:
        target: what to review.
        input: the shape of one input without the batch; for a recipe in place of its own.
        data: see `tg.check`.
        weights: see `tg.check`.
        fix: mend what does not fit: the number of a fix, counted from 1, or its name.
        prove: run one real forward and backward pass as well.
        real: trace on small real tensors.
        trust: whether code of the user's own may be run; naming a file of it is trust.

    Raises:
        EditError: there is no such fix.
        RecipeError, SourceError: the recipe or the model can't be had.
    """
    recipe = Recipe.read(target) if is_recipe(target) else None
    if recipe is not None and input is not None:
        recipe = recipe.model_copy(update={"input": tuple(input)})
    try:
        if recipe is None:
            graft = load(target, input=input, real=real, trust=trust or is_code(target))
        else:
            graft = replay(recipe, trust=trust) if fix is None else _replayed(recipe, fix, trust=trust)
    except EditError as error:
        if not error.findings or recipe is None:
            raise
        return Review(error.findings, recipe, edit=_number(error))
    count = len(recipe.edits) if recipe else 0
    if fix is not None:
        done = len(graft.recipe.edits) > count or (fix in WAYS and _fits(graft))
        mend(graft, None if done else _which(fix))
    found = list(judged(graft, data, weights=weights))
    passed = prove and not any(one.is_error for one in found)
    if passed and (wrong := proof(graft)) is not None:
        found, passed = [wrong, *found], False
    return Review(tuple(found), graft.recipe, len(graft.recipe.edits) - count, passed)


def _fits(graft: Graft) -> bool:
    return not any(one.is_error for one in judge(graft.evidence()))


def _which(fix: str) -> int | str | None:
    """Read which fix is meant; the first is what `--fix` alone means, which is no fault where nothing is amiss."""
    return (int(fix) if fix != "1" else None) if fix.isdigit() else fix


def _number(error: EditError) -> int | None:
    """Read which edit was refused."""
    found = re.search(r"edit (\d+)", error.where)
    return int(found[1]) if found else None


def _replayed(recipe: Recipe, fix: str, *, trust: bool) -> Graft:
    """Replay a recipe, and mend each edit that does not fit by itself: the first as asked, the others at best."""
    if not fix.isdigit() and fix in WAYS:
        return replay(recipe, trust=trust, fix=fix)
    try:
        return replay(recipe, trust=trust)  # nothing to mend
    except EditError as error:
        if not error.findings:
            raise
    graft = replay(recipe.model_copy(update={"edits": ()}), trust=trust)
    asked = fix
    for edit in recipe.edits:
        asked = _applied(graft, edit, asked)
    return graft


def _applied(graft: Graft, edit: Edit, asked: str) -> str:
    """Apply an edit with the fix that is asked for where it takes one, and say what is asked of the next."""
    try:
        graft.apply(edit)
    except EditError as error:
        offers = error.findings[0].fixes if error.findings else ()
        if not offers:
            raise
        graft.apply(edit, fix=_chosen(offers, asked).name)  # type: ignore[arg-type]  # offers are ways
        return "1"
    return asked


def _chosen(offers: Sequence[Fix], asked: str) -> Fix:
    names = [fix.name for fix in offers]
    if asked.isdigit() and 1 <= int(asked) <= len(offers):
        return offers[int(asked) - 1]
    if asked in names:
        return offers[names.index(asked)]
    raise RecipeError(
        f"there is no fix '{asked}' here",
        where=f"--fix={asked}",
        hint=nearest(asked, names) or f"one of 1 to {len(offers)}: {', '.join(names)}",
    )
