"""Edits given as text, applied to a recipe or a model by name: what `torchgraft edit` does before it prints."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from torchgraft import yamlfile
from torchgraft.checking import judged
from torchgraft.edits.base import Edit, kinds
from torchgraft.errors import RecipeError
from torchgraft.fault import UNTOLD, in_document
from torchgraft.loading import load, replay
from torchgraft.recipe import Recipe, is_recipe
from torchgraft.repair import Way
from torchgraft.rules import Finding
from torchgraft.sources.base import is_code

__all__ = ["Edited", "edited", "read_edit"]

_KIND = re.compile(r"\w+")
_WRITTEN = (
    "write an edit as in a recipe: its name, a colon, a space, its settings in braces: 'head: {classes: 10}'; "
    "a selector with * or [ in front wants quotes: 'freeze: {at: \"**:BatchNorm2d\"}'"
)


@dataclass(frozen=True)
class Edited:
    """A recipe with new edits.

    Attributes:
        recipe: with the edits, and those that a fix took.
        steps: number, edit and new parameters of each edit that came in.
        findings: what is to be said of the result.
    """

    recipe: Recipe
    steps: tuple[tuple[int, Edit, int], ...]
    findings: tuple[Finding, ...]


def read_edit(text: str) -> Edit:
    """Read one edit as it would stand in a recipe: `head: {classes: 10}`, or `remove: layer4` in short.

    Raises:
        RecipeError: it is no edit, or its settings are wrong.
    """
    value = Recipe.value(text)
    kind = next(iter(value), None) if isinstance(value, dict) else value
    if not isinstance(kind, str) or not _KIND.fullmatch(kind):
        raise RecipeError("this can't be read as an edit", where=text, hint=_WRITTEN)
    document = yamlfile.read(
        yamlfile.dump({"base": "none", "edits": [{kind: None} if value == kind else value]}), ""
    )
    try:
        return Recipe.model_validate(document.data).edits[0]
    except ValidationError as error:
        told = in_document(error, Recipe, document)
        what = told.what.replace("edits.0.", "").replace("edits.0: ", "")
        known = f"torchgraft edits {kind} tells its settings" if kind in kinds() else "torchgraft edits lists them"
        hint = known if told.hint == UNTOLD else told.hint.replace("edits.0.", "")
        raise RecipeError(what, where=text, hint=hint) from None


def edited(
    target: str,
    texts: Sequence[str],
    *,
    fix: Way | None = None,
    input: Sequence[int] | None = None,
    trust: bool = False,
) -> Edited:
    """Apply edits to a recipe file, a source or `file.py:factory`, each checked when it is made.

    Raises:
        RecipeError: a text is no edit.
        EditError: an edit does not fit, and `fix` does not mend it; it carries the findings.
    """
    edits = [read_edit(text) for text in texts]
    if is_recipe(target):
        graft = replay(Recipe.read(target), trust=trust)
    else:
        graft = load(target, input=input, trust=trust or is_code(target))
    count = len(graft.recipe.edits)
    for edit in edits:
        graft.apply(edit, fix=fix)
    sizes = graft.new_parameters()
    steps = [
        (number, edit, sizes.get(number, 0)) for number, edit in enumerate(graft.recipe.edits, 1) if number > count
    ]
    return Edited(graft.recipe, tuple(steps), judged(graft))
