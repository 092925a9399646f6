"""Get a graft: from a source, from a module made by hand, or from a recipe."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from numbers import Integral
from typing import Any

from pydantic import ValidationError
from torch import nn

from torchgraft.edits.base import Edit
from torchgraft.errors import EditError, RecipeError, SourceError, TorchgraftWarning
from torchgraft.graft import Graft
from torchgraft.probes.arguments import by_place, is_named, needed, taken
from torchgraft.recipe import Recipe
from torchgraft.repair import Way
from torchgraft.sources import Base, parse_source
from torchgraft.wording import named
from torchgraft.wording import needed as told

__all__ = ["load", "loaded_base", "replay"]


def load(
    base: str | nn.Module | Base,
    *,
    input: Iterable[int] | Any = None,
    seed: int = 0,
    trust: bool = False,
    real: bool = False,
    meta: bool = False,
    pretrained: bool | None = None,
    weights: Any = ...,
) -> Graft:
    """Load a base model, or take one that was made by hand, as a graft.

    Args:
        base: a source such as `torchvision:resnet18@IMAGENET1K_V1`, any module, or a loaded base.
        input: the shape of one input without the batch, or an example: a tensor with its batch, a tuple of
            arguments, or a dict of them by the names of the forward's parameters.
        seed: what new weights are drawn from.
        trust: whether code of the user's own may be run (`python:` sources, `package.module:Class` modules).
        real: trace on small real tensors instead of fake ones, for a model whose flow depends on values.
        meta: build the base with its parameters on the meta device: it costs no memory for them, reads no weights,
            and can be edited and checked. `g.load_weights(file)` puts weights straight into place afterwards.
        pretrained: as torchvision and timm once had it; a warning says how it is written now.
        weights: as torchvision has it: None, `"DEFAULT"`, a name or a member of its enums; a warning says how
            that is written here.

    Raises:
        SourceError: the base can't be had.
        RecipeError: the input is neither a shape nor an example that the forward could take.
    """
    shape, example = _shape_of(input)
    if isinstance(base, nn.Module):
        base = getattr(base, "_orig_mod", base)  # what torch.compile wraps
        base = Base(base, f"object:{type(base).__name__}")
    elif isinstance(base, str):
        text = base if pretrained is None else _as_once(base, pretrained)
        source = parse_source(text if weights is ... else _with_weights(text, weights))
        base = source.skeleton(seed=seed, trust=trust) if meta else source.load(seed=seed, trust=trust)
    elif not isinstance(base, Base):
        raise SourceError(f"{named(base)} is no model", where="tg.load", hint="give a source by name, or a module")
    try:
        recipe = Recipe(base=base.text, input=shape or base.input, seed=seed)
    except ValidationError as error:
        first = error.errors()[0]
        raise RecipeError(
            f"{first['loc'][0]}: {told(first)[0]}",
            where="tg.load",
            hint="input is a list of positive sizes, seed a whole number from 0 to 4294967295",
        ) from None
    example = base.example if example is None and shape is None else example
    example = _in_order(example, base.module) if isinstance(example, Mapping) else example
    return Graft(
        base.module,
        recipe,
        example=example,
        preprocess=base.preprocess,
        tokenizer=base.tokenizer,
        trust=trust,
        real=real,
    )


def _as_once(text: str, pretrained: bool) -> str:
    """Read `pretrained=` as torchvision meant it: weights of that time, or random ones.

    Raises:
        SourceError: the source names its weights by itself.
    """
    source = parse_source(text)
    if source.tag:
        raise SourceError(f"'{text}' names its weights already", where="pretrained", hint="leave pretrained= out")
    if pretrained and str(source).startswith("torchvision:"):
        return f"{source}@pretrained"
    now = str(source) if pretrained else str(source.bare)
    told = f"pretrained={pretrained} is written '{now}'; it is read so"
    warnings.warn(told, TorchgraftWarning, stacklevel=3)
    return now


def _with_weights(text: str, weights: Any) -> str:
    """Read `weights=` as torchvision means it: None for random ones, a name, or a member of an enum.

    Raises:
        SourceError: the source names its weights by itself, or is not torchvision's.
    """
    source = parse_source(text)
    name = str(getattr(weights, "name", weights)).rpartition(".")[2]
    if source.tag or not (weights is None or str(source).startswith("torchvision:")):
        raise SourceError(
            f"weights={name} can't be said of '{text}'", where="weights", hint="name them in the source: …@NAME"
        )
    now = str(source.bare) if weights is None else f"{source}@{name}"
    warnings.warn(f"weights={name} is written '{now}'; it is read so", TorchgraftWarning, stacklevel=3)
    return now


def _shape_of(given: Any) -> tuple[tuple[int, ...] | None, Any]:
    """Tell a shape from an example.

    Raises:
        RecipeError: it is neither, such as a text or a numpy array.
    """
    if given is None:
        return None, None
    if isinstance(given, (list, tuple)) and all(isinstance(size, Integral) for size in given):
        return tuple(int(size) for size in given), None
    entries = (
        given if isinstance(given, (list, tuple)) else [*given.values()] if isinstance(given, Mapping) else [given]
    )
    odd = [one for one in entries if _is_no_tensor(one)]
    if odd and len(odd) == len(entries):
        array = next((one for one in odd if type(one).__module__ == "numpy"), None)
        raise RecipeError(
            f"the input holds no tensor: {given!r:.60}"
            if array is None
            else "the input is a numpy array, no tensor",
            where="input",
            hint="give the shape of one input without the batch, such as (3, 224, 224), or an example: a tensor "
            "with its batch, a tuple of arguments, or a dict of them by name"
            if array is None
            else "torch.from_numpy(array), with the batch as its first dimension",
        )
    return None, given


def _is_no_tensor(one: Any) -> bool:
    """Tell whether a value is plainly no tensor: a text, a number, an array, a picture."""
    return isinstance(one, (str, bytes, int, float)) or type(one).__module__.partition(".")[0] in ("numpy", "PIL")


def _in_order(example: Mapping[str, Any], model: nn.Module) -> Any:
    """Put named arguments in the order of the forward; a dict of other names is one argument.

    Raises:
        RecipeError: the forward takes several arguments, and these are not their names.
    """
    if is_named(example, model):
        ordered = by_place(example, model)
        return example if ordered is None else ordered
    if len(needed(model)) > 1:
        raise RecipeError(
            f"the example names {', '.join(map(str, example))}; the forward takes {', '.join(taken(model))}",
            where="input",
            hint="name every entry as the forward does",
        )
    return example


def replay(
    recipe: Recipe,
    *,
    trust: bool = False,
    objects: Mapping[str, nn.Module] | None = None,
    base: Base | None = None,
    fix: Way | None = None,
) -> Graft:
    """Load a recipe's base and apply its edits again: same recipe, same base, same seed, same tensors.

    Args:
        recipe: what to make.
        trust: whether code of the user's own may be run.
        objects: modules that were handed over in Python when the recipe was made, by their place.
        base: the recipe's base, where it is loaded already.
        fix: mend each edit that does not fit by itself; the edits that this takes follow it in the recipe.

    Raises:
        SourceError: the base can't be had.
        EditError: an edit does not fit.
    """
    given = objects or {}
    base = base or loaded_base(recipe, trust=trust, objects=given)
    graft = load(base, input=recipe.input, seed=recipe.seed, trust=trust)
    kept = {"preprocess": recipe.preprocess, "train": recipe.train}
    graft.recipe = graft.recipe.model_copy(update=kept)
    edits = [_with_objects(edit, given) for edit in recipe.edits]
    if fix is None:
        return graft.apply_all(edits)
    try:
        return graft.apply_all(edits)  # nothing to mend
    except EditError:
        for edit in edits:
            graft.apply(edit, fix=fix)
    return graft


def loaded_base(recipe: Recipe, *, trust: bool = False, objects: Mapping[str, nn.Module] | None = None) -> Base:
    """Load the base of a recipe; one that was handed over in Python is taken from `objects['']`.

    Raises:
        SourceError: the base can't be had.
        RecipeError: it was handed over in Python, and is not here now.
    """
    if not recipe.base.startswith("object:"):
        return parse_source(recipe.base).load(seed=recipe.seed, trust=trust)
    if not objects or "" not in objects:
        raise RecipeError(
            f"the base, a {recipe.base.partition(':')[2]}, was handed over in Python",
            where="base",
            hint="hand it over again: tg.open(…, objects={'': model})",
        )
    return Base(objects[""], recipe.base)


def _with_objects(edit: Edit, objects: Mapping[str, nn.Module]) -> Edit:
    """Put modules that are handed over again into an edit that names their place."""
    field = "with_" if "with_" in type(edit).model_fields else "module"
    spec = getattr(edit, field, None)
    name = getattr(edit, "name", None)
    at = getattr(edit, "at", "")
    if getattr(spec, "replays", True):
        return edit
    beside = at.rpartition(".")[0]
    for key in (f"{at}.{name}", f"{beside}.{name}" if beside else str(name), at):
        if key in objects:
            made: Edit = type(edit).model_validate(
                {**{n: getattr(edit, n) for n in type(edit).model_fields}, field: objects[key]}
            )
            return made
    return edit
