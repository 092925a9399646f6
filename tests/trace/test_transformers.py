"""Models of transformers, built from a configuration: dict outputs, named arguments, tied weights."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BertConfig,
    GPT2Config,
    LlamaConfig,
)

import torchgraft as tg
from torchgraft.trace import trace

WORDS = torch.randint(0, 50, (2, 8))
BERT = BertConfig(
    hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, vocab_size=50,
    max_position_embeddings=16,
)  # fmt: skip
GPT = GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=50, n_positions=16)
LLAMA = LlamaConfig(
    hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=64,
    vocab_size=50,
)  # fmt: skip


@pytest.fixture(params=["bert", "gpt2", "llama"])
def model(request):
    torch.manual_seed(0)
    if request.param == "bert":
        return AutoModelForSequenceClassification.from_config(BERT)
    return AutoModelForCausalLM.from_config(GPT if request.param == "gpt2" else LLAMA)


def test_a_model_of_transformers_gives_no_finding(model):
    assert [finding for finding in tg.check(model, WORDS) if finding.severity != "note"] == []


def test_its_remembered_pass_is_the_same_as_one_that_really_runs(model):
    for train in (False, True):
        assert trace(model, WORDS, train=train) == trace(model, WORDS, train=train, cached=False)


def test_named_arguments_and_outputs_are_seen(model):
    run = trace(model, (), kwargs={"input_ids": WORDS, "attention_mask": torch.ones(2, 8, dtype=torch.long)})
    assert run.mismatch is None
    assert run.output_shapes()[0][0] == 2


def test_a_word_that_the_vocabulary_does_not_have_is_told(model):
    assert "S013" in {finding.code for finding in tg.check(model, WORDS + 20)}


def test_a_text_longer_than_the_table_of_positions_is_told():
    model = AutoModelForCausalLM.from_config(GPT)
    found = tg.check(model, torch.zeros(2, 17, dtype=torch.long))
    assert [finding.code for finding in found if finding.is_error] == ["S013"]
    assert "wpe" in found[0].where


def test_a_new_head_is_told_to_the_configuration_and_taken_back():
    model = AutoModelForSequenceClassification.from_config(BERT)
    g = tg.load(model, input=WORDS).head(7)
    assert (model.config.num_labels, model.num_labels, len(model.config.label2id)) == (7, 7, 7)
    assert model(WORDS, labels=torch.tensor([5, 6])).loss.isfinite()
    g.undo()
    assert (model.config.num_labels, model.num_labels) == (2, 2)
