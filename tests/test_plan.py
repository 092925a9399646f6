from __future__ import annotations

import re

import pytest
import torch
from PIL import Image
from torch import nn

import torchgraft as tg
from torchgraft.errors import DataError, EditError, RecipeError, SourceError, TrainError
from torchgraft.plan import Talk, plan, planned
from torchgraft.recipe import Recipe
from torchgraft.settings import settings_of


@pytest.fixture
def colours(tmp_path):
    """Two classes of colour photographs, so to say: reddish and bluish noise."""
    for name, tint in (("red", (200, 40, 40)), ("blue", (40, 40, 200))):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(10):
            image = Image.effect_noise((48, 40), 80).convert("RGB")
            Image.blend(image, Image.new("RGB", image.size, tint), 0.5).save(
                tmp_path / "data" / name / f"{number}.png"
            )
    return f"folder:{tmp_path / 'data'}"


def test_a_plan_says_each_step_and_stands_in_the_recipe(colours):
    told = []
    job = plan(
        "resnet18@none", colours, settings={"input": [3, 64, 64]}, talk=Talk(say=lambda word, _: told.append(word))
    )
    assert [word for word in told if word] == [
        "data", "load", "images", "head", "check", "balance", "batch", "judge",
    ]  # fmt: skip
    assert job.recipe.base == "torchvision:resnet18@none"
    assert [edit.kind() for edit in job.recipe.edits] == ["head"]
    assert job.recipe.train == job.train
    assert job.findings == ()


def test_the_recipe_of_a_plan_makes_the_same_plan(colours):
    job = plan("resnet18@none", colours, settings={"input": [3, 64, 64]})
    again = planned(Recipe.from_yaml(job.recipe.to_yaml()))
    assert again.recipe == job.recipe
    assert again.preprocess == job.preprocess


def test_grey_images_turn_a_colour_models_first_layer():
    job = plan("resnet18@none", "sklearn:digits", settings={"input": [3, 32, 32]})
    assert [edit.kind() for edit in job.recipe.edits] == ["input", "head"]
    assert job.graft.input_shape == (1, 32, 32)
    assert job.preprocess.channels == 1
    assert job.preprocess.mean == (0.449,)


def test_images_smaller_than_the_input_lose_no_border():
    job = plan("resnet18@none", "sklearn:digits", settings={"input": [3, 32, 32]})
    assert job.preprocess.resize is None


def test_a_model_that_picks_colours_out_of_its_input_keeps_three_channels(tmp_path, monkeypatch):
    (tmp_path / "picky.py").write_text(
        "from torchvision.models import googlenet\n"
        "def net():\n    return googlenet(weights=None, transform_input=True, init_weights=False)\n"
    )
    monkeypatch.chdir(tmp_path)
    job = plan("python:picky:net", "sklearn:digits", settings={"input": [3, 64, 64]}, trust=True)
    assert [edit.kind() for edit in job.recipe.edits] == ["head"]
    assert job.preprocess.channels == 3


def test_everything_can_be_set(colours):
    texts = [
        "input=[3,64,64]",
        "head.hidden=[32]",
        "freeze.all_but=head",
        "train.batch=4",
        "preprocess.resize=70",
        "seed=5",
    ]
    job = plan("resnet18@none", colours, settings=settings_of(texts))
    head, freeze = job.recipe.edits
    assert head.hidden == (32,)
    assert freeze.all_but == ("head",)
    assert (job.train.batch, job.preprocess.resize, job.recipe.seed) == (4, 70, 5)


def test_more_classes_than_the_data_have_may_be_asked_for(colours):
    job = plan("resnet18@none", colours, classes=5, settings={"input": [3, 64, 64]})
    assert job.graft.trace().output_shapes() == [(2, 5)]


@pytest.mark.parametrize(
    ("settings", "error", "match"),
    [
        ({"train.epoch": 3}, RecipeError, "did you mean train.epochs"),
        ({"train.batch": "many"}, RecipeError, r"train\.batch"),
        ({"preprocess.sizes": [3]}, RecipeError, "did you mean preprocess.size"),
        ({"head.hiden": [3]}, RecipeError, "did you mean head.hidden"),
        ({"trainn.batch": 3}, RecipeError, "did you mean train.batch"),
        ({"seed": "x"}, RecipeError, "seed is a whole number from 0 to 4294967295"),
        ({"input": [3, 32, -1]}, RecipeError, "input is a list of positive sizes"),
        ({"input": [3, 32]}, EditError, r"does not run on an input of \[3, 32\]"),
        ({"train.data": "foo"}, RecipeError, "named by --data"),
        (
            {"preprocess.size": [16, 16]},
            RecipeError,
            r"prepared as \[3, 16, 16\], but the model takes \[3, 64, 64\]",
        ),
        ({"preprocess.channels": 1}, RecipeError, r"prepared as \[1, 64, 64\], but the model takes \[3, 64, 64\]"),
        ({"preprocess.mean": [0.5]}, RecipeError, "mean needs one number a channel: 3, not 1"),
        ({"freeze.at": "fc", "freeze.all_but": "fc"}, RecipeError, "a freeze names either"),
        ({"head.classes": 1}, DataError, "more than the 1 asked for"),
        ({"train.optimizer": "lbfgs"}, TrainError, "can't train with lbfgs"),
        ({"train.device": "cuda:99"}, TrainError, "no device"),
    ],
)
def test_a_setting_that_is_wrong_is_told(colours, settings, error, match):
    with pytest.raises(error, match=match):
        plan("resnet18@none", colours, settings={"input": [3, 64, 64], **settings})


def test_fewer_classes_than_the_data_have_are_refused(colours):
    with pytest.raises(DataError, match="more than the 1 asked for"):
        plan("resnet18@none", colours, classes=1, settings={"input": [3, 64, 64]})


def test_a_recipe_without_a_training_plan_can_not_be_trained():
    with pytest.raises(RecipeError, match="does not say how to train"):
        planned(Recipe(base="resnet18@none"))


# the order


@pytest.fixture
def loud(tmp_path, monkeypatch):
    """A base that tells when it is loaded: by failing."""
    (tmp_path / "loud.py").write_text("def net():\n    raise KeyError('loaded')\n")
    monkeypatch.chdir(tmp_path)
    return "python:loud:net"


@pytest.mark.parametrize(
    ("data", "settings", "error"),
    [
        ("folder:nowhere", {}, DataError),
        ("sklearn:digits", {"train.epochs": 0}, RecipeError),
        ("sklearn:digits", {"preprocess.size": [0, 1]}, RecipeError),
        ("sklearn:digits", {"freeze.at": 3}, RecipeError),
        ("sklearn:digits", {"head.classes": 3}, DataError),
        ("sklearn:digits", {"train.optimizer": "adamm"}, TrainError),
    ],
)
def test_what_costs_nothing_is_checked_before_the_base_is_loaded(loud, data, settings, error):
    with pytest.raises(SourceError, match="loaded"):
        plan(loud, "sklearn:digits", trust=True)
    with pytest.raises(error):
        plan(loud, data, settings=settings, trust=True)


@pytest.mark.parametrize(
    ("train", "error"),
    [({"data": "folder:nowhere"}, DataError), ({"data": "sklearn:digits", "optimizer": "adamm"}, TrainError)],
)
def test_a_recipes_data_and_optimizer_are_checked_before_its_base_is_loaded(loud, train, error):
    with pytest.raises(error):
        planned(Recipe(base=loud, train=train), trust=True)


@pytest.mark.parametrize(
    "base",
    [
        "resnet81",
        "resnet18@V9",
        "timm:resnet81",
        "timm:resnet18.xyz",
        "bundled:x",
        "python:a:b",
        "file:x@resnet18",
    ],
)
def test_a_base_that_is_not_known_is_told_before_the_data_are_read(base):
    for run in (
        lambda: plan(base, "folder:nowhere"),
        lambda: planned(Recipe(base=base, train={"data": "folder:nowhere"})),
    ):
        with pytest.raises(SourceError):
            run()


def test_settings_come_before_the_data():
    with pytest.raises(RecipeError, match=r"did you mean train\.epochs"):
        plan("bundled:glyphs", "folder:nowhere", settings={"epochs": 3})


# the check


GLYPHS = "base: bundled:glyphs\nedits: [{head: {classes: 10}}]\ntrain: {data: sklearn:digits}\n"


def test_a_recipe_that_prepares_images_otherwise_than_the_model_takes_them_is_told():
    with pytest.raises(
        RecipeError, match=r"prepared as \[3, 16, 16\], but the model takes \[1, 16, 16\]"
    ) as refused:
        planned(Recipe.from_yaml(f"{GLYPHS}preprocess: {{size: [16, 16]}}\n"))
    assert "preprocess: {channels: 1, size: [16, 16]}" in refused.value.hint


def test_what_that_error_advises_works():
    job = planned(Recipe.from_yaml(f"{GLYPHS}preprocess: {{channels: 1, size: [16, 16]}}\n"))
    assert job.preprocess.mean == (0.449,)


class Answers(nn.Module):
    """Gives whatever its function makes of scores `[N, 10]`."""

    def __init__(self, shape):
        super().__init__()
        self.fc = nn.Linear(64, 10)
        self.shape = shape

    def forward(self, x):
        return self.shape(self.fc(x.flatten(1)), self.training)


@pytest.mark.parametrize(
    ("shape", "match"),
    [
        (lambda scores, _: None, "gives no tensor in evaluation mode"),
        (lambda scores, _: scores.sum(1), r"gives float32 \[N\] in evaluation mode"),
        (lambda scores, _: scores.unsqueeze(2), r"gives float32 \[N, 10, 1\] in evaluation mode"),
        (lambda scores, _: scores[:, :, None, None], r"gives float32 \[N, 10, 1, 1\] in evaluation mode"),
        (lambda scores, _: scores.repeat(2, 1), r"gives float32 \[4, 10\] in evaluation mode"),
        (lambda scores, _: scores.round().long(), r"gives int64 \[N, 10\] in evaluation mode"),
        (lambda scores, train: scores.sum(1) if train else scores, r"gives float32 \[N\] in training mode"),
        (
            lambda scores, train: (scores, scores.sum()) if train else scores,
            r"gives float32 \[\] in training mode",
        ),
    ],
)
def test_outputs_that_are_no_scores_are_told_before_training(shape, match):
    g = tg.load(Answers(shape), input=(1, 8, 8))
    before = g.recipe
    with pytest.raises(TrainError, match=match) as refused:
        g.train("sklearn:digits", epochs=1)
    assert re.search(r"rows, one a sample|head: \{classes: 10\}", refused.value.hint)
    assert g.recipe == before


def test_several_scores_are_a_classifiers():
    g = tg.load(Answers(lambda scores, train: (scores, scores) if train else scores), input=(1, 8, 8))
    assert g.train("sklearn:digits", epochs=1).ended == "finished"


@pytest.mark.parametrize("base", ["vit_b_16@none", "fasterrcnn_mobilenet_v3_large_fpn@none"])
def test_a_base_that_does_not_run_on_its_input_is_told_as_it_was_loaded(base):
    with pytest.raises(
        EditError, match=r"the base does not run on an input of \[3, 64, 64\](.|\n)*input="
    ) as refused:
        plan(base, "sklearn:digits", settings={"input": [3, 64, 64]})
    assert "takes 1 channels" not in str(refused.value)


def test_a_segmentation_model_is_told(colours):
    with pytest.raises(TrainError, match=r"gives float32 \[N, 2, 64, 64\]"):
        plan("fcn_resnet50@none", colours, settings={"input": [3, 64, 64]})


@pytest.mark.parametrize("settings", [{"epoch": 3}, {"epochs": 0}, {"optimizer": {"sgd": {"lr": "x"}}}])
def test_python_is_not_told_of_the_command_line(settings):
    with pytest.raises(RecipeError) as refused:
        tg.load("bundled:glyphs").train("sklearn:digits", **settings)
    assert "--" not in str(refused.value)
    assert refused.value.where == f"train.{next(iter(settings))}"


def test_an_input_that_is_not_an_image_is_not_told_of_the_command_line():
    with pytest.raises(EditError, match="does not take images") as refused:
        tg.load(nn.Linear(3, 4), input=(3,)).train("sklearn:digits")
    assert "--" not in str(refused.value)


def test_images_of_another_size_than_the_model_takes_are_told_to_python_too():
    g = tg.load("bundled:glyphs").head(10).input(size=(24, 24))
    g.recipe = g.recipe.model_copy(update={"preprocess": tg.load("bundled:glyphs").preprocess})
    with pytest.raises(RecipeError, match=r"prepared as \[1, 16, 16\], but the model takes \[1, 24, 24\]"):
        g.train("sklearn:digits", epochs=1)


def test_a_seed_decides_over_the_weights_of_a_head():
    first, other = (plan("bundled:glyphs", "sklearn:digits", settings={"seed": seed}) for seed in (0, 2**32 - 1))
    assert not torch.equal(first.graft.module.fc.weight, other.graft.module.fc.weight)
