from __future__ import annotations

import pytest
from torch import nn

import torchgraft as tg
from torchgraft.editing import read_edit
from torchgraft.errors import RecipeError

NEEDED = {
    "init": {"weight": "zeros"},
    "tie": {"to": "0.weight"},
    "share": {"to": "0"},
    "swap": {"to": "nn.GELU"},
    "eval_mode": {},
    "unfreeze": {},
    "untie": {},
    "repeat": {},
    "merge": {},
}


@pytest.mark.parametrize("kind", NEEDED)
def test_an_empty_list_of_places_is_not_everything(kind, snapshot):
    g = tg.load(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)), input=(4,))
    before = snapshot(g.module)
    with pytest.raises(RecipeError, match="the list is empty"):
        getattr(g, kind)([], **NEEDED[kind])
    with pytest.raises(RecipeError, match="the list is empty"):
        read_edit(f"{kind}: {{at: [], {', '.join(f'{key}: {value}' for key, value in NEEDED[kind].items())}}}")
    assert snapshot(g.module) == before


def test_a_name_with_a_dot_is_refused_in_words():
    with pytest.raises(RecipeError, match="a name without dots and blanks is needed"):
        read_edit("rename: {at: layer4, to: a.b}")
