"""What goes into the model of a graft when it is traced: an example, or the shape that the recipe names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from torchgraft.edits.input import Input
from torchgraft.errors import SourceError
from torchgraft.tokens import Texts

if TYPE_CHECKING:
    from torch import nn

    from torchgraft.recipe import Recipe

__all__ = ["input_shape", "inputs"]

_Shape = tuple[int, ...] | None


def input_shape(recipe: Recipe) -> _Shape:
    """Give the shape of one input after all edits, without the batch."""
    return _after(recipe, recipe.input)


def inputs(recipe: Recipe, model: nn.Module, example: Any) -> Any:
    """Give what a trace goes in with: two samples without data, or the example.

    Raises:
        SourceError: neither an example nor a shape is known.
    """
    if example is not None:
        return _long(recipe, _shaped(recipe, example))
    shape = input_shape(recipe)
    if shape is None:
        raise SourceError(
            f"the input of {recipe.title} is not known",
            where=recipe.base,
            hint="say its shape without the batch: input=(3, 224, 224), --input='[3,224,224]' to the command; "
            "or give an example in Python: a tensor with its batch, a tuple of arguments, a dict of them by name",
        )
    first = next((one.dtype for one in model.parameters() if one.is_floating_point()), torch.float32)
    return torch.empty(2, *shape, device="meta", dtype=first)


def _shaped(recipe: Recipe, example: Any) -> Any:
    """Give the example the shape that input edits ask for, where it is one tensor of images."""
    if not isinstance(example, torch.Tensor) or example.dim() != 4:
        return example
    shape = _after(recipe, tuple(example.shape[1:]))
    if shape is None or shape == example.shape[1:]:
        return example
    return example.new_empty((example.shape[0], *shape), device="meta")


def _long(recipe: Recipe, example: Any) -> Any:
    """Give texts the length that the recipe cuts them to: work and memory are those of the longest ones."""
    if not isinstance(recipe.preprocess, Texts):
        return example
    length = recipe.preprocess.tokens.max_length

    def stretched(one: Any) -> Any:
        if not isinstance(one, torch.Tensor) or one.dim() != 2 or one.is_floating_point():
            return one
        return one.repeat(1, -(-length // one.shape[1]))[:, :length]

    if isinstance(example, Mapping):
        return {name: stretched(one) for name, one in example.items()}
    return tuple(map(stretched, example)) if isinstance(example, tuple) else stretched(example)


def _after(recipe: Recipe, shape: _Shape) -> _Shape:
    for edit in recipe.edits:
        if isinstance(edit, Input):
            shape = edit.given(shape)
    return shape
