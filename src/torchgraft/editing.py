"""Edits given as text, applied to a recipe or a model by name: what `torchgraft edit` does before it prints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from torchgraft.checking import judged
from torchgraft.edits.base import AnyEdit, Edit
from torchgraft.errors import RecipeError
from torchgraft.loading import load, replay
from torchgraft.recipe import Recipe
from torchgraft.repair import Way
from torchgraft.rules import Finding
from torchgraft.wording import needed

__all__ = ["Edited", "edited", "read_edit"]


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
    try:
        made: Edit = TypeAdapter(AnyEdit).validate_python({value: None} if isinstance(value, str) else value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise RecipeError(
            f"{place}: {needed(first)[0]}" if place else needed(first)[0],
            where=text,
            hint="write an edit as in a recipe: 'head: {classes: 10}'; torchgraft edits lists them",
        ) from None
    return made


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
    if Path(target).suffix in (".yaml", ".yml"):
        graft = replay(Recipe.read(target), trust=trust)
    else:
        graft = load(target, input=input, trust=trust or target.partition(":")[0].endswith(".py"))
    count = len(graft.recipe.edits)
    for edit in edits:
        graft.apply(edit, fix=fix)
    sizes = graft.new_parameters()
    steps = [
        (number, edit, sizes.get(number, 0)) for number, edit in enumerate(graft.recipe.edits, 1) if number > count
    ]
    return Edited(graft.recipe, tuple(steps), judged(graft))
