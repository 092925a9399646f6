"""Texts end to end, from a base to the answers of a kept version; and images, which go the same way."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys

import pytest
import torch
from tests.texts import CLASSES, sentence, text_data, word_tokenizer, write_reviews, written

import torchgraft as tg
from torchgraft.adapt import carry_out
from torchgraft.data.images import decode
from torchgraft.errors import DataError, RecipeError, StoreError
from torchgraft.keep import save
from torchgraft.plan import plan
from torchgraft.predict import predict
from torchgraft.store import Store
from torchgraft.train.evaluate import probabilities
from torchgraft.train.loop import fit

pytestmark = pytest.mark.filterwarnings("ignore::torchgraft.errors.TorchgraftWarning")

FAST = {"train.optimizer": {"adamw": {"lr": 3e-3}}, "train.groups": [], "train.batch": 16, "train.epochs": 8}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    written("bert", home)
    write_reviews(home / "reviews.csv", 200)
    return home


@pytest.fixture(scope="module")
def done(home):
    """A version that tells whether a sentence denies something."""
    job = plan(f"transformers:{home / 'bert'}", f"csv:{home / 'reviews.csv'}", settings=FAST)
    return carry_out(job, home / "runs")


@pytest.fixture
def version(done, home):
    return f"{home / 'runs'}@v{done.version.number}"


# training


def test_a_small_bert_with_random_weights_learns_whether_a_sentence_denies(done):
    assert done.evaluation.accuracy >= 0.9
    assert done.evaluation.classes == ("negated", "plain")


def trained(home, kind, **settings):
    """Plan and train, without the report."""
    base = f"transformers:{home / kind}"
    job = plan(base, f"csv:{home / 'reviews.csv'}", settings={**FAST, "train.keep": "last", **settings})
    before = {name: one.clone() for name, one in job.graft.module.state_dict().items()}
    history = fit(job.graft, job.data, job.train, job.preprocess)
    after = job.graft.module.state_dict()
    return history, {name for name, one in after.items() if not torch.equal(one, before[name])}


@pytest.mark.parametrize(("kind", "epochs"), [("roberta", 5), ("distilbert", 4), ("gpt2", 7)])
def test_other_families_learn_it_too(home, kind, epochs):
    written(kind, home)
    history, _ = trained(home, kind, **{"train.epochs": epochs})
    assert history.epochs[-1].val_accuracy >= 0.8


def test_it_is_trained_in_python_as_well(home):
    g = tg.load(f"transformers:{home / 'bert'}#AutoModelForSequenceClassification").head(2, names=CLASSES)
    history = g.train(text_data(160), epochs=6, batch=16, optimizer={"adamw": {"lr": 3e-3}}, groups=[])
    assert max(epoch.val_accuracy for epoch in history.epochs) >= 0.8
    assert g.recipe.preprocess.tokens.max_length > 8


def test_the_head_alone_is_trained_while_the_base_stays_still(home):
    _, moved = trained(home, "bert", **{"train.epochs": 1, "freeze.all_but": "head"})
    assert moved == {"classifier.weight", "classifier.bias"}


def test_rates_fall_layer_by_layer_and_layers_are_unfrozen_one_by_one(home):
    slowly = {"train.unfreeze": {"every": 1, "from": "head"}, "train.layer_decay": 0.5}
    _, moved = trained(home, "bert", **{"train.epochs": 3, **slowly})
    assert {"classifier.weight", "bert.encoder.layer.1.output.dense.weight"} <= moved
    assert not any(name.startswith("bert.embeddings") for name in moved)  # their turn has not come


# the report


def test_the_report_shows_texts_and_no_pictures_of_them(done):
    page = done.report.read_text()
    assert "<blockquote>" in page
    assert not (done.report.parent / "samples.png").exists()
    assert not (done.report.parent / "images").exists()
    assert "Tell 2 classes of texts apart: negated, plain" in page


def test_the_next_command_asks_about_a_text(done, version):
    first, log = (shlex.split(command) for command in done.next_commands)
    assert first[:4] == ["torchgraft", "predict", version, "--text"]
    (answer,) = predict(version, texts=[first[4]])
    assert answer.text == first[4]
    assert log[:2] == ["torchgraft", "log"]


# the version


def test_the_version_knows_its_tokenizer_and_its_classes(done, version):
    g = tg.open(version)
    assert g.recipe.preprocess.tokens.digest
    assert g.module.config.id2label == {0: "negated", 1: "plain"}
    assert Store(version.partition("@")[0]).find("v1").classes == ("negated", "plain")


def test_a_text_is_told_by_name(version):
    sure = [next(predict(version, texts=[text])) for text in ("the dog sees a cat", "the dog never sees a cat")]
    assert [one.ranked(1)[0][0] for one in sure] == ["plain", "negated"]
    assert all(abs(sum(one.probabilities) - 1) < 1e-6 for one in sure)


@pytest.mark.slow
def test_another_day_gives_the_same_probabilities(version, tmp_path):
    texts = ["the dog sees a cat", "my teacher not hears the song and a river"]
    here = [one.probabilities for one in predict(version, texts=texts)]
    command = [sys.executable, "-m", "torchgraft", "predict", version, "--json"]
    said = subprocess.run(
        [*command, *(part for text in texts for part in ("--text", text))],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
    )
    assert [tuple(json.loads(line)["probabilities"]) for line in said.stdout.splitlines()] == here


def test_texts_are_answered_in_their_order_and_alike_in_any_company(version, tmp_path):
    import random

    draw = random.Random(5)
    texts = [sentence(draw, negated=bool(number % 2)) for number in range(40)]
    (tmp_path / "texts.txt").write_text("\n\n".join(texts) + "\n")
    together = list(predict(version, [tmp_path / "texts.txt"]))
    assert [one.text for one in together] == texts
    alone = next(predict(version, texts=texts[7:8]))
    assert together[7].probabilities == pytest.approx(alone.probabilities, abs=1e-6)


def test_an_empty_text_and_one_that_is_too_long_are_answered(version):
    empty, long = predict(version, texts=["", "the cat and the dog " * 100])
    assert empty.text == ""
    assert len(long.probabilities) == 2


def test_an_exchanged_tokenizer_is_noticed(home):
    folder = written("bert", home / "exchanged")
    job = plan(f"transformers:{folder}", f"csv:{home / 'reviews.csv'}", settings=FAST)
    save(job.graft, home / "later", classes=CLASSES)
    other = word_tokenizer()
    other.backend_tokenizer.normalizer = None
    other.save_pretrained(folder)
    with pytest.raises(RecipeError, match="not the one that the model was trained with"):
        next(predict(f"{home / 'later'}@v1", texts=["The cat"]))


@pytest.mark.parametrize("task", ["labels", "regression"])
def test_several_labels_and_quantities_are_told_too(home, tmp_path, task):
    rows = ["text,a,b"] + [
        f"the cat sees {n},{n % 2 + 0.5 * (task == 'regression')},{n % 3 % 2}" for n in range(40)
    ]
    (tmp_path / "rows.csv").write_text("\n".join(rows) + "\n")
    data = f"csv:{tmp_path / 'rows.csv'}?label=a,b&task={task}"
    job = plan(f"transformers:{home / 'bert'}", data, settings={**FAST, "train.epochs": 1})
    fit(job.graft, job.data, job.train, job.preprocess)
    save(job.graft, tmp_path / "runs", classes=job.data.classes)
    (answer,) = predict(f"{tmp_path / 'runs'}@v1", texts=["the cat"])
    told = answer.probabilities if task == "labels" else answer.values
    assert (answer.classes, len(told)) == (("a", "b"), 2)


# images


def test_an_image_is_told_as_it_was_before(tmp_path):
    from PIL import Image

    g = tg.load("bundled:glyphs")
    g.recipe = g.recipe.model_copy(update={"preprocess": g.preprocess})
    outputs = g.trace().output_shapes()[0][1]
    save(g, tmp_path / "runs", classes=[f"c{number}" for number in range(outputs)])
    Image.linear_gradient("L").save(tmp_path / "one.png")
    (answer,) = predict(f"{tmp_path / 'runs'}@v1", [tmp_path / "one.png"])
    expected = probabilities(g.module, g.preprocess.transform()(decode(tmp_path / "one.png")).unsqueeze(0))[0]
    assert answer.probabilities == tuple(expected.tolist())
    assert list(json.loads(answer.json())) == ["image", "classes", "probabilities"]
    with pytest.raises(DataError, match="takes images, not texts"):
        next(predict(f"{tmp_path / 'runs'}@v1", texts=["a text"]))
    with pytest.raises(DataError, match="there is no such image"):
        next(predict(f"{tmp_path / 'runs'}@v1", [tmp_path / "two.png"]))


@pytest.mark.parametrize(("label", "told"), [("grams", "values"), ("red,round", "probabilities")])
def test_a_model_without_a_new_head_gives_what_it_was_trained_for(tmp_path, monkeypatch, label, told):
    from PIL import Image

    for number in range(20):
        Image.new("L", (8, 8), number * 12).save(tmp_path / f"{number}.png")
    rows = ["path,grams,red,round", *(f"{n}.png,{n * 1000.5},{n % 2},{int(n > 9)}" for n in range(20))]
    (tmp_path / "rows.csv").write_text("\n".join(rows))
    names = label.split(",")
    code = (
        f"import torch.nn as nn\ndef make():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, {len(names)}))"
    )
    (tmp_path / f"headless_{told}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    g = tg.load(f"python:headless_{told}:make", input=(1, 8, 8), trust=True)
    history = g.train(f"csv:{tmp_path / 'rows.csv'}?label={label}", epochs=1)
    save(g, tmp_path / "runs", classes=names, history=history)
    (answer,) = predict(f"{tmp_path / 'runs'}@v1", [tmp_path / "7.png"], trust=True)
    raw = g.module(g.recipe.preprocess.transform()(decode(tmp_path / "7.png"))[None])[0]
    assert getattr(answer, told) == tuple((raw if told == "values" else raw.sigmoid()).tolist())


# mistakes


def test_nothing_that_is_asked_about(version):
    with pytest.raises(DataError, match="no image and no text is given"):
        next(predict(version))


def test_a_file_that_holds_no_texts(version, tmp_path):
    (tmp_path / "image.png").write_bytes(b"\x89PNG\r\n\x1a\n\xff\xfe")
    with pytest.raises(DataError, match="this is no text in UTF-8"):
        next(predict(version, [tmp_path / "image.png"]))
    with pytest.raises(DataError, match="No such file"):
        next(predict(version, [tmp_path / "nowhere.txt"]))


def test_a_version_that_was_not_trained(home, tmp_path):
    save(tg.load(f"transformers:{home / 'bert'}"), tmp_path / "runs")
    with pytest.raises(StoreError, match="does not say how its input is prepared"):
        next(predict(f"{tmp_path / 'runs'}@v1", texts=["a text"]))
