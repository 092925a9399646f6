"""Texts with a frozen encoder: what it gives for each is computed once, where all are filled up to one length."""

from __future__ import annotations

import pytest
import torch
from tests.texts import write_reviews, written
from tests.train.prefix.nets import equal

from torchgraft.plan import Talk, plan
from torchgraft.train.loop import fit
from torchgraft.train.watch import Watch

pytestmark = pytest.mark.filterwarnings("ignore::torchgraft.errors.TorchgraftWarning")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("texts")
    written("bert", home)
    write_reviews(home / "reviews.csv", 120)
    return home


def job(home, heard=None, **settings):
    own = {"freeze.all_but": ["head"], "train.epochs": 3, "train.batch": 16, **settings}
    said = (lambda word, told: heard.append((word, told))) if heard is not None else lambda *_: None
    source = f"csv:{home / 'reviews.csv'}"
    return plan(f"transformers:{home / 'bert'}", source, settings=own, talk=Talk(say=said))


def weights(job):
    """Train what is planned; gives the final tensors and what was said on the way."""
    said = []
    torch.manual_seed(0)
    fit(job.graft, job.data, job.train, job.preprocess, watch=Watch(note=said.append))
    return job.graft.module.state_dict(), said


def test_a_frozen_encoder_reads_each_text_once(home):
    heard = []
    ours, said = weights(job(home, heard, **{"train.cache": "memory"}))
    plain, silent = weights(job(home, **{"train.cache": "off", "preprocess.tokens.padding": "max_length"}))
    assert equal(plain, ours)
    assert not silent
    assert said[0].startswith("frozen part computed once")
    assert "after bert: [32], 128 B a sample" in said[0]
    (told,) = [told for word, told in heard if word == "texts" and "filled up" in told]
    assert "the head alone is trained" in told


def test_the_recipe_says_so(home):
    planned = job(home)
    assert planned.preprocess.tokens.padding == "max_length"
    assert "padding: max_length" in planned.recipe.to_yaml()


@pytest.mark.parametrize(
    "settings",
    [
        {"preprocess.tokens.padding": "longest"},
        {"train.cache": "off"},
        {"train.epochs": 1},
        {"freeze.all_but": ["head", "bert.encoder.layer.1.**"]},
        {"train.unfreeze": [{"epoch": 2, "at": "bert"}]},
    ],
    ids=str,
)
def test_where_it_would_not_pay_batches_end_with_their_longest_text(home, settings):
    assert job(home, **settings).preprocess.tokens.padding == "longest"


def test_texts_of_several_lengths_are_told_what_would_help(home):
    settings = {"train.batch": 4, "preprocess.tokens.padding": "longest"}
    _, said = weights(job(home, **settings))
    assert len(said) == 1
    assert "preprocess: {tokens: {padding: max_length}} gives all one length" in said[0]
