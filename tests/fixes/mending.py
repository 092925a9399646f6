"""What the tests of fixes share: check a model, mend it, and see that undo brings all back."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

import torchgraft as tg


def offered(model: nn.Module, example: Any) -> list[str]:
    """Name the fixes of the first finding."""
    return [fix.name for fix in tg.check(model, example)[0].fixes]


def mended(model: nn.Module, example: Any, which: int | str = 1) -> tuple[tg.Graft, torch.Tensor]:
    """Mend a model, run it, and assert that its own tensors are all still there, then that undo is exact."""
    own = {name: id(tensor) for name, tensor in model.state_dict(keep_vars=True).items()}
    shown = repr(model)
    g = tg.load(model, input=example)
    g.fix(which)
    assert not [one for one in g.check() if one.is_error]
    given = g._example if isinstance(g._example, tuple) else (g._example,)
    output = g.module.eval()(*given)
    edits = len(g.recipe.edits)
    for _ in range(edits):
        g.undo()
    assert repr(model) == shown
    assert {name: id(tensor) for name, tensor in model.state_dict(keep_vars=True).items()} == own
    for _ in range(edits):
        g.redo()
    return g, output


def kept(g: tg.Graft, model_state: dict[str, torch.Tensor]) -> bool:
    """Tell whether every tensor of the base is still in the model, unchanged, under a name that leads back to it."""
    names = {g.recipe.base_name(name): tensor for name, tensor in g.module.state_dict().items()}
    return all(name in names and torch.equal(names[name], tensor) for name, tensor in model_state.items())
