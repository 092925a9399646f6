from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import torchgraft as tg
from torchgraft.errors import EditError, SelectionError
from torchgraft.recipe import Recipe

WORDS = torch.randint(0, 11, (2, 5))


class Words(nn.Module):
    """A language model without anything between its words."""

    def __init__(self, *, tied: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(11, 6)
        self.turn = nn.Linear(11, 6, bias=False)
        self.head = nn.Linear(6, 11, bias=False)
        if tied:
            self.head.weight = self.embed.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.turn(self.head(self.embed(x))))


def loaded(**settings: bool) -> tg.Graft:
    return tg.load(Words(**settings), input=WORDS)


def test_one_parameter_is_held_in_both_places_under_both_keys():
    g = loaded()
    keys = list(g.module.state_dict())
    g.tie("head.weight", to="embed.weight")
    assert g.module.head.weight is g.module.embed.weight
    assert list(g.module.state_dict()) == keys
    assert g.recipe.base_name("head.weight") == "embed.weight"
    g.module.load_state_dict(g.module.state_dict())
    assert copy.deepcopy(g.module).head.weight.shape == (11, 6)


def test_what_was_tied_is_untied_and_back_by_identity(snapshot):
    g = loaded()
    before = snapshot(g.module)
    g.tie("head.weight", to="embed.weight").untie("head.weight")
    assert g.module.head.weight is not g.module.embed.weight
    assert torch.equal(g.module.head.weight, g.module.embed.weight)
    g.undo().undo()
    assert snapshot(g.module) == before


def test_untying_changes_nothing_that_is_computed_and_keeps_the_flag():
    g = loaded(tied=True).freeze("embed")
    wanted = g.module(WORDS)
    g.untie("head.weight")
    assert torch.equal(g.module(WORDS), wanted)
    assert not g.module.head.weight.requires_grad
    g.unfreeze("head")
    assert not g.module.embed.weight.requires_grad


def test_a_recipe_ties_and_unties_bit_for_bit():
    g = loaded(tied=True).untie("head.weight").tie("head.weight", to="embed.weight").untie("embed.weight")
    other = loaded(tied=True).apply_all(Recipe.from_yaml(g.recipe.to_yaml()).edits)
    assert other.recipe.edits == g.recipe.edits
    ours, theirs = g.module.state_dict(), other.module.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize(
    ("at", "to", "error", "match"),
    [
        ("turn.weight", "embed.weight", EditError, "its transpose"),
        ("head.wieght", "embed.weight", SelectionError, "did you mean head.weight"),
        ("head", "embed.weight", SelectionError, "is a module, no parameter"),
        ("head.weight", "head.weight", EditError, "one parameter already"),
    ],
)
def test_what_can_not_be_tied_is_told_and_nothing_changes(snapshot, at, to, error, match):
    g = loaded()
    before = snapshot(g.module)
    with pytest.raises(error, match=match):
        g.tie(at, to=to)
    assert snapshot(g.module) == before


def test_other_sizes_and_other_dtypes_are_refused():
    g = tg.load(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3), nn.Linear(3, 4).half()), input=(4,))
    with pytest.raises(EditError, match=r"1\.weight is \[3, 4\], 0\.weight is \[4, 4\]"):
        g.tie("1.weight", to="0.weight")
    with pytest.raises(EditError, match="one dtype"):
        g.tie("2.bias", to="0.bias")


def test_what_is_not_tied_can_not_be_untied():
    with pytest.raises(EditError, match="is not tied"):
        loaded().untie("head.weight")


def test_the_configuration_of_transformers_follows_and_its_files_load(tmp_path):
    transformers = pytest.importorskip("transformers")
    sizes = {"n_layer": 1, "n_head": 2, "n_embd": 16, "vocab_size": 50, "n_positions": 16}
    ends = {"bos_token_id": 1, "eos_token_id": 2}
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, **ends)).eval()
    words = {"input_ids": torch.randint(0, 50, (2, 8))}
    g = tg.load(model, input=words).untie("lm_head.weight")
    assert not model.config.tie_word_embeddings
    with torch.no_grad():
        model.lm_head.weight.mul_(2)
    model.save_pretrained(tmp_path)
    again = transformers.GPT2LMHeadModel.from_pretrained(tmp_path).eval()
    assert torch.equal(again(**words).logits, model(**words).logits)
    g.tie("lm_head.weight", to="transformer.wte.weight")
    assert model.config.tie_word_embeddings
    model.save_pretrained(tmp_path)
    again = transformers.GPT2LMHeadModel.from_pretrained(tmp_path).eval()
    assert again.lm_head.weight is again.transformer.wte.weight
    assert torch.equal(again(**words).logits, model(**words).logits)
