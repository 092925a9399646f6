from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.fixes.mending import mended, offered
from torch import nn

import torchgraft as tg


class Text(nn.Module):
    """Words with a table of 16 positions, which is taken in one of several ways."""

    def __init__(self, take: Any, *, shape: tuple[int, ...] = (1, 16, 8), buffer: bool = False) -> None:
        super().__init__()
        self.words, self.out, self.take = nn.Embedding(50, 8), nn.Linear(8, 3), take
        table = torch.arange(128.0).reshape(shape)
        if buffer:
            self.register_buffer("pos", table)
        else:
            self.pos = nn.Parameter(table)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        words: torch.Tensor = self.words(tokens)
        return self.out((words + self.take(self.pos, tokens.shape[1])).mean(1))


TOKENS = torch.randint(1, 50, (3, 20))


@pytest.mark.parametrize("buffer", [False, True], ids=["parameter", "buffer"])
@pytest.mark.parametrize(
    ("shape", "take"),
    [
        ((1, 16, 8), lambda pos, length: pos[:, :length]),
        ((1, 16, 8), lambda pos, length: pos),
        ((16, 8), lambda pos, length: pos[:length]),
        ((16, 8), lambda pos, length: pos),
        ((16, 8), lambda pos, length: pos[:length].unsqueeze(0)),
    ],
    ids=["sliced", "whole", "flat-sliced", "flat-whole", "unsqueezed"],
)
def test_a_table_that_is_too_short_is_interpolated_so_that_every_token_counts(shape, take, buffer):
    model = Text(take, shape=shape, buffer=buffer).eval()
    assert tg.check(model, TOKENS)[0].code == "S004"
    assert offered(model, TOKENS)[0] == "reshape"
    g, output = mended(model, TOKENS)
    assert output.shape == (3, 3)
    assert [edit.kind() for edit in g.recipe.edits] == ["reshape"]
    others = TOKENS.clone()
    others[:, -1] = (others[:, -1] + 1) % 50
    assert not torch.equal(g.module(others), g.module(TOKENS))


def test_positions_of_a_text_are_interpolated_along_the_line_even_where_a_grid_would_fit():
    g, _ = mended(Text(lambda pos, length: pos), torch.randint(1, 50, (3, 25)))
    steps = g.module.pos[0].diff(dim=0)
    assert (steps[1:-1] > 0).all()


def test_positions_of_an_image_are_interpolated_as_a_grid():
    class Patches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cut, self.out = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 3)
            self.pos = nn.Parameter(torch.arange(16.0)[None, :, None].expand(1, 16, 8).clone())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out((self.cut(x).flatten(2).transpose(1, 2) + self.pos).mean(1))

    g, _ = mended(Patches(), torch.randn(2, 3, 20, 20), "reshape")
    assert g.module.pos[0, :, 0].diff().min() < 0  # each row of the grid starts anew


def test_sequences_are_never_mixed_along_their_length_as_if_it_were_channels():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.out = nn.Linear(8, 8), nn.Linear(8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out((self.a(x) + x[:, ::2]).mean(1))

    for fix in tg.check(Twice(), torch.randn(2, 10, 8))[0].fixes:
        assert "+0 parameters" in fix.sentence


def test_a_part_of_a_table_of_other_channels_is_not_taken_for_positions():
    model = Text(lambda pos, length: pos[:, :length, :4])
    assert "reshape" not in offered(model, torch.randint(1, 50, (3, 16)))


@pytest.mark.parametrize("ahead", [False, True], ids=["counted", "with a batch"])
def test_an_embedding_of_positions_that_is_too_short_gets_more_rows(ahead):
    class Counted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.pos, self.out = nn.Embedding(50, 8), nn.Embedding(16, 8), nn.Linear(8, 3)

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            places = torch.arange(tokens.shape[1])
            places = places.unsqueeze(0).expand(tokens.shape) if ahead else places
            return self.out((self.words(tokens) + self.pos(places)).mean(1))

    model = Counted()
    trained = model.pos.weight.detach().clone()
    g, output = mended(model, TOKENS)
    assert output.shape == (3, 3)
    assert g.module.pos.num_embeddings == 20
    assert torch.equal(g.module.pos.weight[:16], trained)


def test_words_that_a_vocabulary_lacks_are_not_given_rows():
    assert offered(nn.Sequential(nn.Embedding(50, 8)), torch.full((2, 3), 70)) == []
