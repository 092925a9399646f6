from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import torchgraft as tg
from torchgraft.errors import RecipeError, StoreError, TorchgraftError
from torchgraft.loading import replay
from torchgraft.recipe import Recipe, TrainPlan

DESIGNED = """
torchgraft: 1
base: torchvision:resnet18@none
input: [3, 64, 64]
edits:
  - head: {classes: 10, hidden: [512], dropout: 0.5}
  - insert: {after: layer2, name: attention, module: {block.SqueezeExcite: {reduction: 4}}}
  - replace: {at: layer3, with: [{nn.Conv2d: {out_channels: 256, kernel_size: 3, padding: 1}},
                                 {nn.BatchNorm2d: {}}, {nn.ReLU: {inplace: true}}, {nn.MaxPool2d: {kernel_size: 2}}]}
  - freeze: {all_but: [head, layer2.attention, layer3]}
train:
  data: folder:./flowers
  epochs: 10
  batch: 64
  optimizer: {sgd: {lr: 1e-3, momentum: 0.9}}
  groups: [{at: "conv1.**", lr: 1e-4}, {at: head, lr: 1e-2}]
"""


def test_the_recipe_of_the_design_reads_and_replays():
    recipe = Recipe.from_yaml(DESIGNED)
    g = replay(recipe)
    assert g.module(torch.randn(2, 3, 64, 64)).shape == (2, 10)
    assert g.recipe.train == TrainPlan(
        data="folder:./flowers",
        epochs=10,
        batch=64,
        optimizer={"sgd": {"lr": 1e-3, "momentum": 0.9}},
        groups=[{"at": "conv1.**", "lr": 1e-4}, {"at": "head", "lr": 1e-2}],
    )


def test_sizes_that_were_left_open_are_written_out():
    g = replay(Recipe.from_yaml(DESIGNED))
    text = g.recipe.to_yaml()
    assert "in_channels: 128" in text
    assert "num_features: 256" in text
    assert "channels: 128" in text


def test_writing_and_reading_gives_the_same_recipe():
    g = replay(Recipe.from_yaml(DESIGNED))
    assert Recipe.from_yaml(g.recipe.to_yaml()) == g.recipe


def test_replaying_gives_the_same_tensors_bit_for_bit():
    first = replay(Recipe.from_yaml(DESIGNED))
    again = replay(Recipe.from_yaml(first.recipe.to_yaml()))
    ours, theirs = first.module.state_dict(), again.module.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_another_seed_gives_other_new_tensors():
    first = replay(Recipe.from_yaml(DESIGNED))
    other = replay(Recipe.from_yaml(DESIGNED + "seed: 1\n"))
    assert not torch.equal(first.module.fc[0].weight, other.module.fc[0].weight)


def test_replaying_does_not_move_torchs_own_generator():
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    replay(Recipe.from_yaml(DESIGNED))
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize(
    ("text", "what", "where", "do"),
    [
        ("base: resnet18\nedit: []", "there is no key 'edit'", "r.yaml:2", "did you mean edits"),
        ("base: resnet18\ntrain: {dat: x}", "there is no key 'dat'", "r.yaml:2", "did you mean data"),
        ("base: r\nedits:\n- head: {clases: 3}", "there is no key 'clases'", "r.yaml:3", "did you mean classes"),
        ("base: r\nedits:\n- hed: {classes: 3}", "there is no edit 'hed'; did you mean head", "r.yaml:3", ""),
        ("base: r\nedits:\n- head: {classes: ten}", "a whole number is needed, not 'ten'", "r.yaml:3", ""),
        ("base: r\nedits:\n- head", "an edit is one key and its settings", "r.yaml:3", ""),
        ("base: r\ntrain:\n  data: d\n  epochs: 0", "a number of 1 or more is needed, not 0", "r.yaml:4", ""),
        ("base: r\ntrain:\n  data: d\n  groups:\n  - {at: x, lrr: 1}", "there is no key 'lrr'", "r.yaml:5", "lr"),
        (
            "base: r\nedits:\n- insert: {after: layer2, module: {block.SqueezeExit: {}}}",
            "there is no block 'SqueezeExit'; did you mean SqueezeExcite",
            "r.yaml:3",
            "",
        ),
        (
            "base: r\nedits:\n- insert: {after: a, module: {block.SqueezeExcite: {ratio: 4}}}",
            "there is no key 'ratio'",
            "r.yaml:3",
            "",
        ),
        ("base: r\nedits:\n- insert: {module: nn.ReLU}", "an insert names one place", "r.yaml:3", ""),
        ("edits: []", "'base' is missing", "r.yaml:1", "add base"),
        ("base: [1, 2", "this is not YAML", "r.yaml:1", ""),
        ("just words", "a recipe is a mapping", "r.yaml:1", "base:"),
        ("torchgraft: 2\nbase: r", "1 is needed, not 2", "r.yaml:1", "write 1"),
        ("base: r\nseed: -1", "seed: a number of 0 or more", "r.yaml:2", "from 0 to 4294967295"),
        ("base: r\n1: x", "a key must be text", "r.yaml:1", "quotes"),
        ("base: 3", "base: text is needed, not 3", "r.yaml:1", "quotes"),
        ("base: r\nedits: 3", "edits: a list is needed, not 3", "r.yaml:2", "write [a, b]"),
        ("base: r\nedits: [{head: three}]", "a whole number is needed, not 'three'", "r.yaml:2", "such as 3"),
        ("base: r\ntrain: d", "train: a mapping is needed, not 'd'", "r.yaml:2", "its keys are data, epochs"),
        ("base: r\ntrain: {data: d, strict: x}", "true or false is needed", "r.yaml:2", "write true or false"),
        (
            "base: r\ntrain: {data: d, keep: x}",
            "best or last is needed, not 'x'",
            "r.yaml:2",
            "write best or last",
        ),
        (
            "base: r\ntrain:\n  data: d\n  optimizer:\n    sgd: {lr: x}",
            "train.optimizer.lr: a number",
            "r.yaml:5",
            "",
        ),
        ("base: r\ntrain: {data: d, optimizer: {sgd: {lr: -1}}}", "a number of 0 or more", "r.yaml:2", ""),
        ("base: r\ntrain: {data: d, optimizer: {sgd: {}, adam: {}}}", "an optimizer is one key", "r.yaml:2", ""),
        (
            "base: r\npreprocess: {size: [16]}",
            "preprocess.size: the list is too short",
            "r.yaml:2",
            "write [a, b]",
        ),
        ("base: r\npreprocess: {size: [1, 2, 3]}", "a list of 2 is needed, not of 3", "r.yaml:2", "write [a, b]"),
        ("base: r\nedits:\n- head: {head: 3}", "there is no key 'head'", "r.yaml:3", "did you mean heads?"),
        (
            "base: r\nedits:\n- replace: {at: a, with: [{nn.ReLU: {}, nn.GELU: {}}]}",
            "a module is one key; there are 2",
            "r.yaml:3",
            "write a list for several: [{nn.ReLU: {}}, {nn.GELU: {}}]",
        ),
        (
            "base: r\nedits:\n- replace: {at: a, with: {}}",
            "a module is one key",
            "r.yaml:3",
            "write {nn.ReLU: {}}",
        ),
        ("base: r\nedits:\n- replace: {at: a, with: 3}", "a mapping is needed", "r.yaml:3", "write {nn.ReLU: {}}"),
        (
            "base: r\nedits:\n- insert: {after: a, module: {block.SqueezeExcite: {xyz: 4}}}",
            "there is no key 'xyz'",
            "r.yaml:3",
            "one of channels, layout, reduction",
        ),
        ("base: r\nedits:\n- replace: {at: a, with: &a [*a]}", "it contains itself", "r.yaml:3", "alias"),
    ],
)
def test_a_wrong_recipe_says_what_where_and_what_to_do(text, what, where, do):
    with pytest.raises(RecipeError) as refused:
        Recipe.from_yaml(text, name="r.yaml")
    assert what in refused.value.what
    assert refused.value.where == where
    assert do in refused.value.hint


def test_a_place_that_can_not_be_written_is_told(tmp_path):
    with pytest.raises(StoreError, match="the recipe can't be written"):
        Recipe(base="r").write(tmp_path)


def test_a_missing_file_names_the_nearest_one(tmp_path):
    (tmp_path / "recipe.yaml").write_text("base: resnet18")
    with pytest.raises(RecipeError, match=r"did you mean recipe\.yaml"):
        Recipe.read(tmp_path / "recipes.yaml")


def test_a_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "recipe.yaml").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(RecipeError, match="not UTF-8"):
        Recipe.read(tmp_path / "recipe.yaml")


def test_numbers_are_those_of_yaml_1_2():
    assert Recipe.value("1e-3") == 1e-3
    assert Recipe.value("on") == "on"
    assert Recipe.value("no") == "no"
    assert Recipe.value("010") == 10
    assert Recipe.value("true") is True


def test_a_module_handed_over_in_python_is_said_to_be_missing_when_it_is_replayed(resnet18, custom_block):
    class Same(nn.Module):
        def forward(self, x):
            return x * 1

    resnet18.insert(Same(), after="layer2", name="mine")
    recipe = Recipe.from_yaml(resnet18.recipe.to_yaml())
    with pytest.raises(TorchgraftError, match="Same was handed over in Python"):
        replay(recipe)
    again = replay(recipe, objects={"layer2.mine": Same()})
    assert isinstance(again.module.layer2.mine, Same)


settings = st.fixed_dictionaries(
    {"data": st.just("sklearn:digits")},
    optional={
        "epochs": st.integers(1, 10**6),
        "batch": st.integers(1, 4096),
        "warmup": st.floats(0, 1),
        "label_smoothing": st.floats(0, 0.99),
        "clip": st.none() | st.floats(0, 1e6),
        "precision": st.sampled_from(["fp32", "bf16", "fp16"]),
        "optimizer": st.sampled_from([{"sgd": {"lr": 1e-3}}, "adamw", {"adam": {"betas": [0.9, 0.99]}}]),
    },
)


@given(settings, st.integers(0, 2**31), st.text(min_size=1))
def test_any_recipe_survives_writing_and_reading(train, seed, base):
    recipe = Recipe.model_validate({"base": base, "seed": seed, "train": train})
    assert Recipe.from_yaml(recipe.to_yaml()) == recipe


def test_the_public_names_are_there():
    assert all(hasattr(tg, name) for name in tg.__all__)
