"""Texts become batches: the same tokens whatever batch they stand in."""

from __future__ import annotations

import pickle

import pytest
import torch
from tests.texts import byte_tokenizer, word_tokenizer, written

import torchgraft as tg
from torchgraft.errors import RecipeError
from torchgraft.tokens import Tokens
from torchgraft.train.texts import Reader, digest_of, reader_of, tokenizer_of

pytestmark = pytest.mark.filterwarnings("ignore::torchgraft.errors.TorchgraftWarning")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def bert(home):
    return tg.load(f"transformers:{written('bert', home)}#AutoModelForSequenceClassification")


@pytest.fixture(scope="module")
def gpt2(home):
    folder = written("gpt2", home)
    return tg.load(f"transformers:{folder}#AutoModelForSequenceClassification").pad(0)


def test_a_text_gets_the_tokens_of_its_tokenizer(bert):
    reader = reader_of(bert, Tokens(max_length=20))
    assert reader.prepare("the cat sees a dog") == (word_tokenizer()("the cat sees a dog")["input_ids"],)


def test_a_batch_is_filled_up_to_its_longest_text(bert):
    reader = reader_of(bert, Tokens(max_length=20))
    batch = reader.collate([reader.prepare("the cat"), reader.prepare("the cat sees a dog")])
    assert {name: list(one.shape) for name, one in batch.items()} == {
        "input_ids": [2, 7],
        "attention_mask": [2, 7],
    }
    assert batch["input_ids"][0].tolist() == [2, 5, 10, 3, 0, 0, 0]
    assert batch["attention_mask"].sum(1).tolist() == [4, 7]


def test_a_batch_is_filled_up_to_one_length_where_the_recipe_says_so(bert):
    reader = reader_of(bert, Tokens(max_length=9, padding="max_length"))
    batch = reader.collate([reader.prepare("the cat"), reader.prepare("a dog sees")])
    assert [list(one.shape) for one in batch.values()] == [[2, 9], [2, 9]]
    assert batch["attention_mask"].sum(1).tolist() == [4, 5]


def test_what_is_over_is_cut_off_and_the_marks_stay(bert):
    reader = reader_of(bert, Tokens(max_length=4))
    assert reader.prepare("the cat sees a dog") == ([2, 5, 10, 3],)


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_a_text_is_answered_alike_in_any_batch(name, request):
    g = request.getfixturevalue(name)
    reader, model = reader_of(g, Tokens(max_length=60)), g.module.eval()
    short, long = reader.prepare("the cat sees a dog"), reader.prepare("the cat sees a dog " * 4)
    with torch.no_grad():
        alone, beside = model(**reader.collate([short])), model(**reader.collate([short, long]))
    assert torch.allclose(alone.logits[0], beside.logits[0], atol=1e-6)


def test_a_text_of_which_nothing_is_left_is_one_mark(bert, gpt2):
    assert reader_of(gpt2, Tokens(max_length=8)).prepare("") == ([0],)
    assert reader_of(bert, Tokens(max_length=8)).prepare("") == ([2, 3],)


def test_what_fills_up_is_what_the_model_looks_for(home):
    folder = written("gpt2", home / "other")
    g = tg.load(f"transformers:{folder}#AutoModelForSequenceClassification").pad(7)
    reader = reader_of(g, Tokens(max_length=8))
    assert reader.collate([reader.prepare("a"), reader.prepare("a cat and a dog")])["input_ids"][0, -1] == 7


def test_filling_stands_before_the_text_where_the_tokenizer_says_so(bert):
    tokenizer = word_tokenizer()
    tokenizer.padding_side = "left"
    reader = reader_of(bert, Tokens(max_length=8), tokenizer)
    batch = reader.collate([reader.prepare("cat"), reader.prepare("the cat")])
    assert batch["input_ids"][0].tolist() == [0, 2, 10, 3]
    assert batch["attention_mask"][0].tolist() == [0, 1, 1, 1]


def test_kinds_of_tokens_are_given_only_where_there_are_several():
    class Segmented:  # as XLNet's: the mark at the end is of a kind of its own
        pad_token_type_id = 3

        def __call__(self, text, **_):
            return {"input_ids": [7, 8, 4], "token_type_ids": [0, 0, 2]}

    reader = Reader(Segmented(), 8, {"input_ids": 5, "token_type_ids": 3}, left=True)
    batch = reader.collate([reader.prepare("two words"), ([1, 4], [0, 2])])
    assert batch["token_type_ids"].tolist() == [[0, 0, 2], [3, 0, 2]]


def test_a_reader_travels_to_workers(bert):
    reader = reader_of(bert, Tokens(max_length=20))
    assert pickle.loads(pickle.dumps(reader)).prepare("the cat") == reader.prepare("the cat")


def test_a_tokenizer_that_can_not_be_had_is_told(home, bert):
    bare = tg.load(f"transformers:{written('encoder', home, tokenizer=None)}")
    with pytest.raises(RecipeError, match="no tokenizer came with"):
        tokenizer_of(bare)
    with pytest.raises(RecipeError, match="there is no such folder here"):
        tokenizer_of(bert, Tokens(max_length=8, tokenizer="./nowhere"))


def test_another_tokenizer_in_its_place_is_noticed(bert):
    digest = digest_of(word_tokenizer())
    assert tokenizer_of(bert, Tokens(max_length=8, digest=digest)) is not None
    with pytest.raises(RecipeError, match="not the one that the model was trained with"):
        tokenizer_of(bert, Tokens(max_length=8, digest="0" * 16))


def test_a_digest_tells_words_marks_and_rules_apart():
    plain, lower = word_tokenizer(), word_tokenizer()
    lower.backend_tokenizer.normalizer = None
    marked = word_tokenizer()
    marked.add_special_tokens({"additional_special_tokens": ["[NEW]"]})
    assert digest_of(plain) == digest_of(word_tokenizer())
    assert len({digest_of(one) for one in (plain, lower, marked, byte_tokenizer())}) == 4
