"""Proof: one real forward and backward pass of a double of the model, on a small random batch."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from torchgraft.rng import rng_kept
from torchgraft.rules.finding import Finding
from torchgraft.trace.tree import tensors

__all__ = ["proven"]


def proven(model: nn.Module, example: Any, wanted: list[tuple[int, ...]], name: str) -> Finding | None:
    """Run a double of the model on random values of the example's shapes, forward and backward, in training mode.

    Args:
        model: neither run nor changed; random numbers are left as they were.
        example: a tensor with its batch, or a tuple of arguments; only shapes and dtypes are read.
        wanted: the shapes that the outputs should have, batch included.
        name: what the model is called in the finding.

    Returns:
        nothing where the outputs have the wanted shapes and all gradients are finite; else what is wrong.
    """
    with rng_kept(), torch.enable_grad():
        try:
            if any(one.is_meta for one in model.parameters()):
                raise ValueError("the weights are on the meta device: they have no values")
            double = copy.deepcopy(model).train()
            double.zero_grad(set_to_none=True)
            device = next((one.device for one in double.parameters()), torch.device("cpu"))
            torch.manual_seed(0)
            given = example if isinstance(example, tuple) else (example,)
            outputs = tensors(double(*(_random(one, device) for one in given)))
            told = _wrong_shapes(outputs, wanted) or _wrong_gradients(double, outputs)
        except Exception as error:  # whatever the model raises on real numbers
            told = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
    if told is None:
        return None
    return Finding("S099", "error", "the forward pass breaks off", name, (f"a real pass says  {told}",))


def _wrong_shapes(outputs: list[Tensor], wanted: list[tuple[int, ...]]) -> str | None:
    shapes = [tuple(one.shape) for one in outputs]
    if shapes == wanted:
        return None
    given, asked = (", ".join(str(list(shape)) for shape in group) for group in (shapes, wanted))
    return f"the outputs have the shapes {given}, not {asked}"


def _wrong_gradients(model: nn.Module, outputs: list[Tensor]) -> str | None:
    losses = [one.float().square().mean() for one in outputs if one.requires_grad]
    if not losses:
        return None
    torch.autograd.backward(torch.stack(losses).sum())
    bad = [
        name
        for name, one in model.named_parameters()
        if one.grad is not None and not bool(torch.isfinite(one.grad).all())
    ]
    return f"the gradients of {', '.join(bad[:3])} are not finite" if bad else None


def _random(one: Any, device: torch.device) -> Any:
    if isinstance(one, Tensor):
        if one.is_floating_point():
            return torch.rand(one.shape, dtype=one.dtype, device=device)
        return torch.zeros(one.shape, dtype=one.dtype, device=device)
    return one
