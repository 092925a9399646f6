"""What every edit owes: its recipe makes the same model again, and undo gives the old one back."""

from __future__ import annotations

import copy

import torch

import torchgraft as tg
from torchgraft.loading import replay
from torchgraft.recipe import Recipe


def again(g: tg.Graft) -> tg.Graft:
    """Make a graft again from its YAML: the same recipe, tree and tensors, which a copy of the model has too."""
    other = replay(Recipe.from_yaml(g.recipe.to_yaml()))
    assert other.recipe == g.recipe
    for model in (other.module, copy.deepcopy(g.module)):
        ours, theirs = g.module.state_dict(), model.state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    return other
