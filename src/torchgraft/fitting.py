"""What goes into a planned model: images, texts or tensors made to fit, or why they don't."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from torchgraft.data import DataSet
from torchgraft.edits.base import Edit, kinds
from torchgraft.errors import EditError, RecipeError
from torchgraft.fault import in_setting
from torchgraft.graft import Graft
from torchgraft.preprocess import Preprocess
from torchgraft.reading import preparation
from torchgraft.recipe import Recipe, TrainPlan
from torchgraft.rules import Finding
from torchgraft.settings import COMMAND_LINE
from torchgraft.tensors import check_tensors
from torchgraft.texts import check_foreign, check_kind, check_texts, filled_up, filling, measured
from torchgraft.tokens import Texts

__all__ = ["Prepared", "check_input", "faults_of_texts", "fitted", "prepared_as"]

Prepared = Preprocess | Texts | None
"""How inputs are prepared: of tensors there is nothing to say."""

Say = Callable[[str, str], None]
"""Is told a word and a sentence."""


def prepared_as(graft: Graft, data: DataSet, say: Say) -> Prepared:
    """Prepare images as the base wants them, or texts as they and the base want it; tensors stay as they are."""
    check_kind(graft, data)
    if data.kind == "tensor":
        return None
    return _fit_texts(graft, data, {}, say) if data.kind == "text" else _preprocess_of(graft)


def _fit_texts(graft: Graft, data: DataSet, own: Mapping[str, Any], say: Say) -> Texts:
    texts, told = measured(graft, data, own)
    say("texts", told)
    return texts


def _preprocess_of(graft: Graft) -> Preprocess:
    """Take the base's own preparation of images, or a plain one for its input."""
    made = preparation(graft)
    if made is None:
        raise EditError(
            f"{graft.name} does not take images: its input is {list(graft.input_shape or ())}",
            where=graft.recipe.base,
            hint="say the shape: input=[3, 224, 224]",
        )
    return made


def fitted(graft: Graft, data: DataSet, edits: Sequence[Edit], own: Mapping[str, Any], say: Say) -> Prepared:
    """Fit the input to the data and apply the plan's edits; gives how images or texts are prepared.

    Args:
        graft: the base.
        data: what it is to take.
        edits: of the plan.
        own: what the user sets, by its path under `preprocess`.
        say: is told each edit.

    Raises:
        DataError, RecipeError, EditError: they don't go together.
    """
    check_kind(graft, data)
    fill = filling(graft) if data.kind == "text" else None
    if fill is not None:
        _apply(graft, fill, say)
    if graft.trace().mismatch is not None:  # told before an edit makes it another fault
        raise EditError(
            f"the base does not run on an input of {list(graft.input_shape or ())}",
            where=graft.recipe.base,
            hint="set the shape that it takes: input=[3, 224, 224]",
            findings=[finding for finding in graft.check() if finding.is_error],
        )
    preprocess: Prepared = None
    if data.kind != "tensor":
        preprocess = (_fit_texts if data.kind == "text" else _fit_input)(graft, data, own, say)
    for edit in edits:
        _apply(graft, edit, say)
    return preprocess


def _fit_input(graft: Graft, data: DataSet, own: Mapping[str, Any], say: Say) -> Preprocess:
    """Make the base take the data's channels, or convert the images where it can't."""
    shape = graft.input_shape
    if shape is not None and len(shape) == 3 and shape[0] != data.channels:
        try:
            if getattr(graft.module, "transform_input", False):
                raise EditError("the model picks single colours out of its input")
            _apply(graft, kinds()["input"].of(channels=data.channels), say)
        except EditError as error:
            say("input", f"kept at {shape[0]} channels, the images are converted: {error.what}")
    preprocess = _changed(_uncropped(_preprocess_of(graft), data), own)
    shown = "×".join(map(str, preprocess.size))
    say(
        "images",
        f"{'stretched' if preprocess.resize is None else 'cropped'} to {shown}, normalised as the base's",
    )
    return preprocess


def _changed(preprocess: Preprocess, own: Mapping[str, Any]) -> Preprocess:
    """Put in what the user set; each value is checked already, but not whether they go together."""
    check_foreign(own, kind="image")
    ready = preprocess.with_channels(own.get("channels", preprocess.channels))
    try:
        return Preprocess.model_validate({**ready.model_dump(), **own})
    except ValidationError as error:
        raise in_setting(error, Recipe, "preprocess", COMMAND_LINE.format("preprocess.…")) from None


def _apply(graft: Graft, edit: Edit, say: Say) -> None:
    graft.apply(edit)
    say(edit.kind(), graft.recipe.edits[-1].sentence())


def _uncropped(preprocess: Preprocess, data: DataSet) -> Preprocess:
    """Cut no border off images that are smaller than the input: they are framed tightly already."""
    small = max(data.size) <= min(preprocess.size)
    return preprocess.model_copy(update={"resize": None}) if small else preprocess


def check_input(graft: Graft, data: DataSet, preprocess: Prepared, train: TrainPlan) -> None:
    """Refuse samples that the model does not take as they are prepared.

    Raises:
        DataError, RecipeError, TrainError: say what does not fit.
    """
    check_kind(graft, data)
    if isinstance(preprocess, Texts):
        check_texts(graft, preprocess, train)
    elif data.kind == "tensor":
        check_tensors(graft, data)
    elif preprocess is not None:
        _check_images(graft, preprocess)


def faults_of_texts(
    graft: Graft, data: DataSet, preprocess: Prepared, before: Sequence[Finding]
) -> tuple[Finding, ...]:
    """Find what is wrong with texts in batches, where the model runs."""
    broken = any(finding.is_error for finding in before)
    return filled_up(graft, data, preprocess) if isinstance(preprocess, Texts) and not broken else ()


def _check_images(graft: Graft, preprocess: Preprocess) -> None:
    """Refuse images of another shape than the model is traced with."""
    made = (preprocess.channels, *preprocess.size)
    shape = graft.input_shape
    if shape is not None and shape != made:
        raise RecipeError(
            f"the images are prepared as {list(made)}, but the model takes {list(shape)}",
            where="preprocess",
            hint=f"write preprocess: {{channels: {shape[0]}, size: {list(shape[1:])}}}, or input: {list(made)}",
        )
