from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import torchgraft as tg
from torchgraft.edits.reshape import Reshape
from torchgraft.errors import EditError, SelectionError


class Tied(nn.Module):
    """One parameter under two names, and a table of positions that nothing reads the shape of."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.arange(1.0, 4.0))
        self.again = self.scale
        self.positions = nn.Parameter(torch.randn(1, 17, 4))
        self.register_buffer("seen", torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale.mean() + self.positions.mean() + self.seen.mean()


@pytest.fixture
def g() -> tg.Graft:
    return tg.load(Tied(), input=(3,))


def test_new_values_start_at_zero_or_at_the_mean(g):
    g.reshape("scale", (5,))
    assert g.module.scale.tolist() == [1, 2, 3, 0, 0]
    g.undo().reshape("scale", (5,), start="mean")
    assert g.module.scale.tolist() == [1, 2, 3, 2, 2]


def test_a_parameter_of_two_names_stays_one(g):
    g.reshape("again", (2,))
    assert g.module.scale is g.module.again
    assert g.recipe.edits[0].drops == 1


def test_buffers_stay_buffers(g):
    g.reshape("seen", (4,))
    assert g.module.seen.tolist() == [1, 1, 1, 0]
    assert not isinstance(g.module.seen, nn.Parameter)


def test_positions_are_interpolated_as_a_grid_behind_their_class_token(g):
    old = g.module.positions.detach().clone()
    g.reshape("positions", (1, 10, 4), along=1)
    grid = old[:, 1:].transpose(1, 2).reshape(1, 4, 4, 4)
    wanted = (
        nn.functional.interpolate(grid, (3, 3), mode="bicubic", align_corners=False).flatten(2).transpose(1, 2)
    )
    assert torch.equal(g.module.positions[:, :1], old[:, :1])
    torch.testing.assert_close(g.module.positions[:, 1:], wanted)


def test_undoing_gives_back_the_very_tensors(g, snapshot):
    before = snapshot(g.module)
    g.reshape("scale", (5,)).reshape("positions", (1, 10, 4), along=1).reshape("seen", (4,))
    assert snapshot(g.undo().undo().undo().module) == before


def test_a_frozen_parameter_stays_frozen(g):
    g.freeze("scale").reshape("scale", (5,))
    assert not g.module.scale.requires_grad


def test_it_replays_from_its_recipe(g):
    g.reshape("positions", (1, 10, 4), along=1)
    written = g.recipe.edits[0].brief()
    assert Reshape.model_validate(written) == g.recipe.edits[0]


def test_what_is_not_there_is_told_with_the_nearest_name(g):
    with pytest.raises(SelectionError, match="no parameter or buffer 'position'"):
        g.reshape("position", (1, 10, 4))


def test_another_rank_is_refused(g):
    with pytest.raises(EditError, match="1 dimensions"):
        g.reshape("scale", (1, 5))
