"""Frozen means unmoved: parts whose parameters are all frozen stay in evaluation mode while training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from torchgraft.surgery.stillness import still_parts

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Still", "still", "train_mode"]


def train_mode(model: nn.Module) -> None:
    """Put a model into training mode, its frozen parts into evaluation mode: for a loop of your own.

    A part is frozen when it has parameters and none of them is trainable: its BatchNorm statistics do not move
    and its dropout is off, as if it were not trained at all. A norm without parameters goes with the layer before
    it, dropout between frozen layers of a Sequential with these; dropout right before what is trained is on.
    """
    model.train()
    for _, part in still_parts(model, lambda one: not one.requires_grad):
        part.eval()


class Still:
    """Keeps frozen parts of a model in evaluation mode, whoever calls `model.train()`; `remove()` ends it.

    It looks at the flags at each pass, so what is frozen or unfrozen meanwhile counts from the next one on. As a
    context manager it ends with its block.
    """

    def __init__(self, model: nn.Module, *, hook: bool = True) -> None:
        """Begin to keep a model still; without a `hook`, somebody calls `hold` before each pass."""
        self._model = model
        self._parameters = list(model.parameters())
        self._flags: list[bool] = []
        self._parts: list[nn.Module] = []
        self._hook = model.register_forward_pre_hook(self._before) if hook else None

    def _before(self, *_: Any) -> None:
        if self._model.training:
            self.hold()

    def hold(self) -> None:
        """Put frozen parts into evaluation mode now; what was frozen and is not any more, into training mode."""
        flags = [one.requires_grad for one in self._parameters]
        if flags != self._flags:
            self._flags = flags
            self._find()
        for part in self._parts:
            if part.training:
                part.eval()

    def _find(self) -> None:
        self._parameters = list(self._model.parameters())
        before, self._parts = self._parts, []
        for part in before:  # a trainer that puts parts into training mode once would not do it again
            part.train(self._model.training)
        self._parts = [part for _, part in still_parts(self._model, lambda one: not one.requires_grad)]

    def remove(self) -> None:
        """Take the hook off; modes stay as they are until somebody sets them."""
        if self._hook is not None:
            self._hook.remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


def still(model: nn.Module) -> Still:
    """Keep the frozen parts of a model still in any trainer: its statistics do not move, its dropout is off.

    Most trainers call `model.train()` at a moment of their own (Hugging Face, ignite and skorch before every
    batch), which puts a frozen BatchNorm back into training mode. A hook before the model's own forward pass sees
    to it then; nothing else of the model changes, and `still(model).remove()` takes it off.

    Args:
        model: any module; flags are looked at before each pass.

    Returns:
        a handle with `remove()`, which is a context manager as well.
    """
    return Still(model)
