"""Labels, quantities and masks are trained, kept, told and predicted, as classes are."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_diabetes, load_digits
from torch import nn

import torchgraft as tg
from torchgraft.adapt import carry_out
from torchgraft.data.base import DataSet, ListSamples
from torchgraft.errors import RecipeError, TrainError
from torchgraft.plan import Talk, plan, planned, prepared
from torchgraft.recipe import Recipe

LOOPS = {0, 6, 8, 9}
NAMES = ("odd", "big", "loop")


def digits(kind, count=360):
    """Real digits with several labels, or with how much ink they have."""
    found = load_digits()
    images = [Image.fromarray((one * 15).astype("uint8")).resize((16, 16)) for one in found.images[:count]]
    if kind == "labels":
        targets = [(int(y % 2), int(y > 4), int(y in LOOPS)) for y in found.target[:count]]
        names = NAMES
    else:
        targets, names = (
            [(float(one.mean() * 10), float(one[:4].mean())) for one in found.images[:count]],
            ("ink", "top"),
        )
    half = count * 3 // 4
    return DataSet(
        ListSamples(images[:half], targets[:half]), ListSamples(images[half:], targets[half:]), names,
        1, (16, 16), "made: by order", task=kind,
    )  # fmt: skip


class Painted:
    """Bright squares on noise, and where they are; a stripe of each is not judged."""

    labels = ()

    def __init__(self, count, seed):
        random = np.random.default_rng(seed)
        self.images = random.integers(0, 90, (count, 24, 24)).astype(np.uint8)
        self.masks = np.zeros((count, 24, 24), dtype=np.uint8)
        for image, mask in zip(self.images, self.masks, strict=True):
            down, across = random.integers(0, 14, 2)
            image[down : down + 9, across : across + 9] += 150
            mask[down : down + 9, across : across + 9] = 1
            mask[:2] = 255
        self.pixels = tuple(int((self.masks == number).sum()) for number in (0, 1))

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return Image.fromarray(self.images[index]), self.masks[index]


def masks():
    return DataSet(Painted(32, 0), Painted(8, 1), ("ground", "square"), 1, (24, 24), "made: by order", task="mask")


def seer():
    """A small network that gives maps at half the size of the image, as segmentation models do: by name."""

    class Seer(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1, stride=2), nn.BatchNorm2d(8), nn.ReLU())
            self.out = nn.Conv2d(8, 21, 1)
            self.aux = nn.Conv2d(8, 21, 1)

        def forward(self, x):
            features = self.body(x)
            return {"out": self.out(features), "aux": self.aux(features)}

    torch.manual_seed(0)
    return tg.load(Seer(), input=(1, 24, 24))


def test_several_labels_are_learnt():
    g = tg.load("bundled:glyphs").head(3, task="labels")
    history = g.train(digits("labels", 240), epochs=3, batch=30, class_weights="balanced")
    assert (history.metric, history.higher) == ("average_precision", True)
    assert list(history.epochs[-1].val) == ["average_precision", "f1", "exact_match"]
    assert list(history.epochs[-1].train) == ["exact_match"]
    assert history.epochs[-1].val["average_precision"] > 0.85


def test_quantities_are_learnt_in_their_units():
    g = tg.load("bundled:glyphs").head(2, task="regression", mean=[48.0, 4.8], std=[5.0, 0.8])
    history = g.train(digits("regression"), epochs=3, batch=32)
    assert (history.metric, history.higher) == ("rmse", False)
    assert history.epochs[0].val["rmse"] < 10
    assert history.epochs[history.best - 1].val["r2"] > 0
    assert min(one.val["rmse"] for one in history.epochs) == history.epochs[history.best - 1].val["rmse"]


def test_rows_of_numbers_are_trained_on_as_they_are():
    found = load_diabetes()
    inputs = torch.tensor(found.data * 20, dtype=torch.float32)
    targets = [(float(one),) for one in found.target]
    data = DataSet(
        ListSamples(list(inputs[:340]), targets[:340]), ListSamples(list(inputs[340:]), targets[340:]),
        ("progression",), 0, (0, 0), "made: by order", task="regression", kind="tensor",
    )  # fmt: skip
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Linear(16, 5))
    g = tg.load(net, input=(10,)).head(1, task="regression", mean=[152.0], std=[77.0])
    history = g.train(data, epochs=12, batch=32, optimizer={"adamw": {"lr": 1e-2}}, loss="SmoothL1Loss")
    assert history.epochs[history.best - 1].val["r2"] > 0.35


@pytest.fixture(scope="module")
def segmented(tmp_path_factory):
    folder = tmp_path_factory.mktemp("masks")
    g = seer().head(2)
    told = []
    job = prepared(g, masks(), {"epochs": 6, "batch": 8, "optimizer": {"adamw": {"lr": 2e-2}}})
    outcome = carry_out(job, folder, talk=Talk(say=lambda word, words: told.append((word, words))))
    return outcome, told, folder


def test_masks_are_learnt_by_both_heads(segmented):
    outcome, told, _ = segmented
    assert outcome.history.metric == "mean_iou"
    assert outcome.evaluation.figures["mean_iou"] > 0.7
    assert "mean IoU" in dict(told)["result"]
    assert set(outcome.version.metrics) == {"mean_iou", "pixel_accuracy", "loss"}
    assert outcome.version.figure.startswith("mean IoU ")
    recipe = outcome.version.recipe
    assert "at:" in recipe
    assert "aux" in recipe


def test_the_report_of_masks_shows_the_worst(segmented):
    outcome, _, folder = segmented
    text = outcome.report.read_text()
    assert "The worst masks" in text
    assert "What is taken for what" not in text
    assert (folder / "reports/v1/masks.png").is_file()
    assert not (folder / "reports/v1/confusion.png").exists()
    assert len(outcome.evaluation.masks) == 3


def test_a_version_of_quantities_is_told_and_predicts_in_their_units(tmp_path):
    from torchgraft.predict import predict

    g = tg.load("bundled:glyphs").head(2, task="regression", mean=[48.0, 4.8], std=[5.0, 0.8])
    outcome = carry_out(prepared(g, digits("regression"), {"epochs": 1, "batch": 32}), tmp_path)
    text = outcome.report.read_text()
    assert "Predicted against true" in text
    assert "RMSE on validation" in text
    (answer,) = predict(f"{tmp_path}@v1", [tmp_path / "reports/v1/images/1.png"])
    assert answer.classes == ("ink", "top")
    assert 30 < answer.values[0] < 70
    assert json.loads((tmp_path / "versions" / f"{outcome.version.id}.json").read_text())["metrics"]["rmse"] > 0


def test_a_version_of_labels_has_a_row_for_each(tmp_path):
    g = tg.load("bundled:glyphs").head(3, task="labels")
    outcome = carry_out(prepared(g, digits("labels", 120), {"epochs": 1, "batch": 30}), tmp_path)
    text = outcome.report.read_text()
    assert "Label by label" in text
    assert all(f'class="name">{name}</th>' in text for name in NAMES)


# what is planned


@pytest.fixture
def table(tmp_path):
    """A table of images with labels and quantities."""
    found = load_digits()
    rows = ["path,odd,loop,ink"]
    for number, (image, y) in enumerate(zip(found.images[:40], found.target[:40], strict=True)):
        Image.fromarray((image * 15).astype("uint8")).resize((16, 16)).save(tmp_path / f"{number}.png")
        rows.append(f"{number}.png,{int(y % 2)},{int(y in LOOPS)},{image.mean() * 10:.3f}")
    (tmp_path / "all.csv").write_text("\n".join(rows))
    return f"csv:{tmp_path / 'all.csv'}"


def test_a_table_of_labels_drafts_a_head_for_labels(table):
    job = plan("bundled:glyphs", f"{table}?label=odd,loop")
    (head,) = job.recipe.edits
    assert (head.classes, head.task, head.mean) == (2, "labels", ())


def test_a_table_of_quantities_drafts_a_head_in_their_units(table):
    job = plan("bundled:glyphs", f"{table}?label=ink")
    (head,) = job.recipe.edits
    ink = [row[0] for row in job.data.train.labels]
    assert (head.classes, head.task) == (1, "regression")
    assert head.mean == pytest.approx((np.mean(ink),), rel=1e-3)
    assert head.std == pytest.approx((np.std(ink),), rel=1e-3)
    again = planned(Recipe.from_yaml(job.recipe.to_yaml()))
    assert again.recipe == job.recipe
    state = again.graft.module.state_dict()
    assert all(torch.equal(one, state[name]) for name, one in job.graft.module.state_dict().items())


def test_a_second_head_takes_the_units_of_the_first_away():
    g = tg.load("bundled:glyphs").head(2, task="regression", mean=[48.0, 4.8], std=[5.0, 0.8]).head(4)
    assert isinstance(g.module.fc, nn.Linear)
    assert g.trace().output_shapes() == [(2, 4)]


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"classes": 2, "mean": [1.0, 2.0]}, "mean and std are those of quantities"),
        ({"classes": 2, "task": "regression", "std": [1.0]}, "one number for each quantity: 2"),
    ],
)
def test_units_that_do_not_fit_the_head_are_told(settings, match):
    with pytest.raises(RecipeError, match=match):
        tg.load("bundled:glyphs").head(**settings)


@pytest.mark.parametrize(
    ("head", "kind", "match"),
    [
        ({"classes": 3}, "labels", "the head wants one class for each sample, and these data give a yes or no"),
        ({"classes": 2, "task": "labels"}, "regression", "wants a yes or no for each label.*give quantities"),
        ({"heads": {"a": 3, "b": 2}}, "labels", r"wants targets by name \(a, b\)"),
    ],
)
def test_a_head_for_another_task_is_told_before_training(head, kind, match):
    with pytest.raises(TrainError, match=match):
        tg.load("bundled:glyphs").head(**head).train(digits(kind, 40), epochs=1)


def test_a_classifier_is_told_that_masks_want_maps():
    with pytest.raises(TrainError, match=r"gives float32 \[N, 2\](.|\n)*maps of scores(.|\n)*segmentation"):
        tg.load("bundled:glyphs").head(2).train(masks(), epochs=1)


def test_too_few_labels_are_told():
    with pytest.raises(TrainError, match=r"gives float32 \[N, 5\](.|\n)*head: \{classes: 3, task: labels\}"):
        tg.load("bundled:glyphs").head(5, task="labels").train(digits("labels", 40), epochs=1)


# losses and metrics of a plan


def test_a_loss_handed_over_from_python_trains_and_stands_in_the_plan():
    calls = []

    def cubed(outputs, targets):
        calls.append(len(targets))
        return (outputs - targets).abs().pow(3).mean()

    g = tg.load("bundled:glyphs").head(2, task="regression", mean=[48.0, 4.8], std=[5.0, 0.8])
    g.train(digits("regression", 40), epochs=1, batch=10, loss=cubed, metric="mae")
    assert sum(calls) == 40
    assert g.recipe.train.loss == "object:cubed"
    with pytest.raises(TrainError, match="was an object of Python's, cubed"):
        g.train(digits("regression", 40), epochs=1, loss="object:cubed")


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"loss": nn.MSELoss}, "MSELoss is a class"),
        ({"loss": 3}, "a int is no loss"),
        ({"loss": "MseLoss"}, "no loss 'MseLoss'"),
        ({"metric": "acuracy"}, "no figure 'acuracy'"),
        ({"class_weights": [1.0]}, "1 class weights are given, and there are 3 classes"),
    ],
)
def test_what_can_not_be_judged_by_is_told_before_training(settings, match):
    g = tg.load("bundled:glyphs").head(3, task="labels")
    before = g.recipe
    with pytest.raises(TrainError, match=match):
        g.train(digits("labels", 40), epochs=1, **settings)
    assert g.recipe == before


def test_a_recipe_that_names_ones_own_loss_wants_trust(table, tmp_path, monkeypatch):
    (tmp_path / "ownloss.py").write_text(
        "def far(outputs, targets):\n    return (outputs - targets).abs().max()\n"
    )
    monkeypatch.chdir(tmp_path)
    settings = {"train.loss": "python:ownloss:far"}
    with pytest.raises(TrainError, match="runs code of your own"):
        plan("bundled:glyphs", f"{table}?label=ink", settings=settings)
    job = plan("bundled:glyphs", f"{table}?label=ink", settings=settings, trust=True)
    assert job.loss.__name__ == "far"
    with pytest.raises(TrainError, match="runs code of your own"):
        planned(job.recipe)
