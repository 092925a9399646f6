"""What is planned for texts, and what is refused before a step is taken."""

from __future__ import annotations

import shutil

import pytest
import torch
from tests.texts import POSITIONS, byte_tokenizer, samples, text_data, word_tokenizer, write_reviews, written

import torchgraft as tg
from torchgraft.data.base import ListSamples
from torchgraft.errors import DataError, EditError, RecipeError, TrainError
from torchgraft.plan import Talk, plan, planned, prepared
from torchgraft.texts import Lengths, as_classifier, measured, positions

transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.filterwarnings("ignore::torchgraft.errors.TorchgraftWarning")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("models")
    for kind in ("bert", "encoder", "classifier", "roberta", "distilbert", "gpt2"):
        written(kind, home)
    write_reviews(home / "reviews.csv")
    return home


class Heard(list):
    """What a plan says, by word."""

    def talk(self) -> Talk:
        return Talk(say=lambda word, sentence: self.append((word, sentence)))

    def of(self, word: str) -> list[str]:
        return [sentence for said, sentence in self if said == word]


def planned_for(home, kind, **settings):
    heard = Heard()
    job = plan(f"transformers:{home / kind}", f"csv:{home / 'reviews.csv'}", settings=settings, talk=heard.talk())
    return job, heard


# the class of model


@pytest.mark.parametrize(
    ("kind", "made", "at"),
    [
        ("bert", "BertForSequenceClassification", ("classifier",)),
        ("encoder", "BertForSequenceClassification", ("classifier",)),
        ("classifier", "BertForSequenceClassification", ("classifier",)),
        ("roberta", "RobertaForSequenceClassification", ("classifier.out_proj",)),
        ("distilbert", "DistilBertForSequenceClassification", ("classifier",)),
        ("gpt2", "GPT2ForSequenceClassification", ("score",)),
    ],
)
def test_a_base_becomes_a_classifier_of_the_classes_in_the_data(home, kind, made, at):
    job, _ = planned_for(home, kind)
    model = job.graft.module
    assert type(model).__name__ == made
    assert job.recipe.edits[-1].at == at
    assert model.config.num_labels == 2
    assert model.config.id2label == {0: "negated", 1: "plain"}
    assert job.graft.trace().output_shapes() == [(2, 2)]


def test_the_weights_of_the_base_stay(home):
    job, _ = planned_for(home, "bert")
    before = transformers.BertForMaskedLM.from_pretrained(home / "bert").bert.state_dict()
    after = job.graft.module.bert.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_a_class_that_is_named_is_kept(home):
    base = f"transformers:{home / 'bert'}"
    assert as_classifier(base) == f"{base}#AutoModelForSequenceClassification"
    assert as_classifier(f"{base}#BertForMaskedLM") == f"{base}#BertForMaskedLM"
    assert as_classifier(f"transformers:{home / 'classifier'}") == f"transformers:{home / 'classifier'}"
    assert as_classifier("resnet18") == "resnet18"


def test_a_model_without_a_padding_token_gets_one_as_an_edit(home):
    job, heard = planned_for(home, "gpt2")
    assert job.recipe.edits[0].brief() == {"token": 0}
    assert heard.of("pad") == ["short texts are filled up with token 0"]


def test_trained_transformers_take_small_rates_and_random_ones_the_usual(home):
    trained, _ = planned_for(home, "bert")
    drawn, _ = planned_for(home, "bert@none")
    assert (trained.train.optimizer.lr, trained.train.groups[0].lr) == (5e-5, 5e-4)
    assert (drawn.train.optimizer.lr, drawn.train.groups) == (1e-3, ())


def test_a_plan_that_is_read_again_is_the_same(home):
    job, _ = planned_for(home, "gpt2")
    again = planned(job.recipe)
    assert again.recipe == job.recipe
    pairs = zip(job.graft.module.state_dict().items(), again.graft.module.state_dict().items(), strict=True)
    assert all(a[0] == b[0] and torch.equal(a[1], b[1]) for a, b in pairs)


# the length


def test_short_texts_are_not_cut(home):
    job, heard = planned_for(home, "bert")
    tokens = job.preprocess.tokens
    longest = max(len(word_tokenizer()(text)["input_ids"]) for text, _ in job.data.train)
    assert tokens.max_length == longest < POSITIONS
    assert f"the longest {longest}" in heard.of("texts")[0]
    assert "none loses its end" in heard.of("texts")[0]


def test_what_the_model_has_no_position_for_is_cut_and_counted(home):
    job, _ = planned_for(home, "gpt2")
    short = samples(40)
    long = ListSamples(["the cat sees a dog " * 30, *short.items[1:]], short.labels)
    texts, told = measured(job.graft, text_data(train=long), {})
    assert texts.tokens.max_length == 64
    assert "1 of 40 lose their end" in told


@pytest.mark.parametrize(
    ("counts", "most", "limit"),
    [
        ([5] * 99 + [100], None, 100),  # all are short
        ([200] * 99 + [390], None, 390),  # much alike
        ([200] * 99 + [3000], None, 200),  # one is far longer
        ([5] * 99 + [3000], None, 128),  # so many cost little
        ([201] * 99 + [3000], None, 208),  # a multiple of eight
        ([200] * 99 + [3000], 128, 128),  # the model takes no more
    ],
)
def test_the_length_keeps_what_nearly_all_texts_need(counts, most, limit):
    assert Lengths(tuple(counts)).limit(most) == limit


def test_positions_are_counted_as_the_model_counts_them(home):
    def of(kind):
        return positions(tg.load(f"transformers:{home / kind}").module)

    assert (of("bert"), of("gpt2")) == (POSITIONS, 64)
    assert of("roberta") == POSITIONS - 1  # the first ones are its padding's
    t5 = transformers.T5Config(vocab_size=50, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    assert positions(transformers.T5EncoderModel(t5)) is None  # relative ones


def test_empty_texts_are_counted(home):
    job, _ = planned_for(home, "bert")
    data = text_data(train=ListSamples(["", " ", "the cat", "a dog"], [0, 1, 0, 1]))
    assert "2 are empty" in measured(job.graft, data, {})[1]


# what is refused


def test_texts_for_a_model_of_images(home):
    with pytest.raises(DataError, match=r"the data are texts, and resnet18 takes no tokens") as error:
        plan("resnet18@none", f"csv:{home / 'reviews.csv'}")
    assert "transformers:" in error.value.hint


def test_images_for_a_model_of_texts(home, tmp_path):
    from tests.train.stripes import DATA

    g = tg.load(f"transformers:{home / 'classifier'}")
    with pytest.raises(DataError, match=r"the data are images, and .* reads texts"):
        g.train(DATA)


def test_a_folder_without_a_tokenizer(home, tmp_path):
    folder = written("bert", tmp_path, tokenizer=None)
    with pytest.raises(RecipeError, match="no tokenizer came with") as error:
        plan(f"transformers:{folder}", f"csv:{home / 'reviews.csv'}")
    assert "save_pretrained" in error.value.hint
    job = plan(
        f"transformers:{folder}",
        f"csv:{home / 'reviews.csv'}",
        settings={"preprocess.tokens.tokenizer": str(home / "bert")},
    )
    assert job.preprocess.tokens.tokenizer == str(home / "bert")


def test_a_tokenizer_with_more_words_than_the_model_has_rows(home, tmp_path):
    tokenizer = word_tokenizer()
    tokenizer.add_tokens(["newword", "other"])
    folder = written("classifier", tmp_path, tokenizer)
    with pytest.raises(RecipeError, match=r"2 words, such as 'newword', for which the model has no row") as error:
        plan(f"transformers:{folder}", f"csv:{home / 'reviews.csv'}")
    assert "resize: {at: bert.embeddings.word_embeddings, inputs: 29}" in error.value.hint.replace("\n", " ")
    g = tg.load(f"transformers:{folder}").resize("bert.embeddings.word_embeddings", inputs=29).head(2)
    assert prepared(g, text_data(), {}).preprocess.tokens.max_length > 4


def test_a_length_beyond_the_positions(home):
    with pytest.raises(RecipeError, match=f"the model has {POSITIONS} positions"):
        planned_for(home, "bert", **{"preprocess.tokens.max_length": POSITIONS + 1})


def test_settings_of_images_for_texts_and_of_texts_for_images(home):
    with pytest.raises(RecipeError, match="'size' is about images, and the data are texts"):
        planned_for(home, "bert", **{"preprocess.size": [8, 8]})
    with pytest.raises(RecipeError, match=r"'augment' is about images, and the data are texts"):
        planned_for(home, "bert", **{"train.augment": "light"})
    with pytest.raises(RecipeError, match=r"'tokens\.max_length' is about texts"):
        plan("bundled:glyphs", "sklearn:digits", settings={"preprocess.tokens.max_length": 8})


def test_a_model_without_a_padding_token_that_was_loaded_in_python(home):
    g = tg.load(f"transformers:{home / 'gpt2'}#AutoModelForSequenceClassification")
    with pytest.raises(EditError, match="the model does not fit the data") as error:
        g.train(text_data())
    assert error.value.findings[0].fixes[0].name == "pad"


def test_an_encoder_without_a_head(home):
    g = tg.load(f"transformers:{home / 'encoder'}")
    with pytest.raises(TrainError, match="something of each token") as error:
        g.train(text_data())
    assert "#AutoModelForSequenceClassification" in error.value.hint


def test_one_class_only(home, tmp_path):
    rows = "\n".join(["text,label", *(f"the cat {n},plain" for n in range(20))])
    (tmp_path / "one.csv").write_text(rows + "\n")
    with pytest.raises((EditError, DataError), match=r"one class|does not fit") as error:
        plan(f"transformers:{home / 'classifier'}", f"csv:{tmp_path / 'one.csv'}")
    assert "same label" in str(error.value) or "class" in str(error.value)


def test_no_text_at_all(home):
    job, _ = planned_for(home, "bert")
    with pytest.raises(DataError, match="there is no text to train on"):
        measured(job.graft, text_data(train=ListSamples([], [])), {})


def test_the_tokenizer_was_exchanged_since(home, tmp_path):
    folder = shutil.copytree(home / "classifier", tmp_path / "mine")
    job = plan(f"transformers:{folder}", f"csv:{home / 'reviews.csv'}")
    tokenizer = word_tokenizer()
    tokenizer.backend_tokenizer.normalizer = None
    tokenizer.save_pretrained(folder)
    with pytest.raises(RecipeError, match="not the one that the model was trained with"):
        planned(job.recipe)


# the check


def test_a_check_reads_texts_as_training_does(home):
    job, _ = planned_for(home, "bert")
    found = job.graft.check(data=text_data())
    assert not [one for one in found if one.is_error]
    found = job.graft.check(data=f"csv:{home / 'reviews.csv'}")
    assert not [one for one in found if one.is_error]


def test_work_is_counted_for_texts_of_the_planned_length(home):
    job, _ = planned_for(home, "bert", **{"preprocess.tokens.max_length": 30})
    run = job.graft.trace()
    assert [run.values[number].shape for number in run.inputs] == [(2, 30), (2, 30)]
    again = planned(job.recipe).graft.trace()
    assert (again.macs, again.output_shapes()) == (run.macs, [(2, 2)])


# filling up


def test_filling_up_before_the_text_shifts_what_gpt2_reads(home, tmp_path):
    base = f"transformers:{written('gpt2', tmp_path, byte_tokenizer(padding_side='left'))}"
    job = plan(base, f"csv:{home / 'reviews.csv'}")
    (found,) = [one for one in job.findings if one.code == "D030"]
    assert "to fill up before it" in str(found)
    assert "padding_side = 'right'" in str(found)


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert", "gpt2"])
def test_models_that_hide_what_fills_up_are_not_blamed(home, kind):
    job, _ = planned_for(home, kind)
    assert "D030" not in {one.code for one in job.findings}
    assert not any(module.training for module in job.graft.module.modules())  # as it was loaded


def test_a_mean_over_all_tokens_is_found_by_a_check():
    class Mean(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.out = torch.nn.Embedding(20, 8), torch.nn.Linear(8, 2)

        def forward(self, input_ids, attention_mask):
            return self.out(self.words(input_ids).mean(1))

    class Masked(Mean):
        def forward(self, input_ids, attention_mask):
            held = attention_mask.unsqueeze(-1)
            return self.out((self.words(input_ids) * held).sum(1) / held.sum(1))

    torch.manual_seed(0)
    ids = torch.randint(1, 20, (8, 10))
    mask = torch.ones_like(ids)
    for row in range(1, 8):
        ids[row, -row:], mask[row, -row:] = 0, 0
    batch = {"input_ids": ids, "attention_mask": mask, "labels": torch.arange(8) % 2}
    assert "D030" in {one.code for one in tg.check(Mean(), data=batch)}
    assert "D030" not in {one.code for one in tg.check(Masked(), data=batch)}
