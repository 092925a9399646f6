from __future__ import annotations

import pytest
from PIL import Image

from torchgraft.errors import DataError, RecipeError
from torchgraft.plan import Talk, plan, planned, settings_of
from torchgraft.recipe import Recipe


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
    assert [word for word in told if word] == ["load", "data", "images", "head", "check"]
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
        ({"train.epoch": 3}, RecipeError, "did you mean epochs"),
        ({"train.batch": "many"}, RecipeError, r"train\.batch"),
        ({"preprocess.sizes": [3]}, RecipeError, "did you mean size"),
        ({"head.hiden": [3]}, RecipeError, "did you mean hidden"),
        ({"trainn.batch": 3}, RecipeError, "did you mean train"),
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
