from __future__ import annotations

import pytest
import torch

import torchgraft as tg
from torchgraft.errors import EditError
from torchgraft.recipe import Recipe

transformers = pytest.importorskip("transformers")

SIZES = {"vocab_size": 50, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 16}


@pytest.fixture
def gpt2():
    config = transformers.GPT2Config(**SIZES, bos_token_id=49, eos_token_id=49)
    model = transformers.GPT2ForSequenceClassification(config)
    return tg.load(model, input={"input_ids": torch.zeros(2, 8, dtype=torch.long)})


def test_a_model_that_reads_the_last_token_takes_a_batch_once_it_knows_what_fills_up(gpt2):
    assert gpt2.trace().mismatch is not None
    gpt2.pad(49)
    assert gpt2.trace().mismatch is None
    assert gpt2.module.config.pad_token_id == 49
    assert gpt2.recipe.edits[0].sentence() == "short texts are filled up with token 49"


def test_it_is_taken_back_and_made_again(gpt2, snapshot):
    before = snapshot(gpt2.module)
    gpt2.pad(49).undo()
    assert snapshot(gpt2.module) == before
    assert gpt2.module.config.pad_token_id is None
    assert gpt2.redo().module.config.pad_token_id == 49


def test_it_stands_in_a_recipe():
    recipe = Recipe.from_yaml("base: transformers:gpt2@none\nedits:\n- pad: 7\n")
    assert recipe.edits[0].brief() == {"token": 7}
    assert "- pad: {token: 7}" in recipe.to_yaml()


def test_a_token_that_there_is_not_is_refused(gpt2):
    with pytest.raises(EditError, match="there is no token 50: the model has 50"):
        gpt2.pad(50)


def test_a_model_of_images_has_no_such_token(resnet18):
    with pytest.raises(EditError, match="no configuration of the model names"):
        resnet18.pad(0)


def test_a_check_offers_it(gpt2):
    (found,) = [one for one in gpt2.check() if one.is_error]
    assert [fix.name for fix in found.fixes] == ["pad"]
    assert found.fixes[0].edits[0].brief() == {"token": 49}
    gpt2.fix()
    assert not [one for one in gpt2.check() if one.is_error]
