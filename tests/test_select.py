from __future__ import annotations

import fnmatch
import re

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torchvision.models import densenet121, resnet18, vit_b_32

import torchgraft as tg
from torchgraft.errors import SelectionError
from torchgraft.select import Selector, described, modules, parameters, selected
from torchgraft.select.cover import covering

MODEL = resnet18(weights=None)
PATHS = [path for path, _ in MODEL.named_modules() if path]
NAMES = [name for name, _ in MODEL.named_parameters()]


def test_a_plain_path_selects_that_module_alone():
    assert list(modules(MODEL, "layer3.0")) == ["layer3.0"]


def test_two_stars_select_a_module_and_all_under_it():
    chosen = modules(MODEL, "layer[34].**")
    assert list(chosen) == [path for path in PATHS if path.startswith(("layer3", "layer4"))]


def test_one_star_selects_direct_children():
    assert list(modules(MODEL, "layer1.*")) == ["layer1.0", "layer1.1"]


def test_a_class_name_selects_by_kind_and_by_base_class():
    assert len(modules(MODEL, "**:BatchNorm2d")) == 20
    assert modules(MODEL, ":BatchNorm2d").paths == modules(MODEL, "**:_BatchNorm").paths


def test_parameters_of_a_leaf_are_selected_with_two_stars():
    assert list(parameters(MODEL, "conv1.**")) == ["conv1.weight"]


def test_a_parameter_is_selected_by_its_own_path():
    assert list(parameters(MODEL, "**.bias")) == [n for n, _ in MODEL.named_parameters() if n.endswith(".bias")]


def test_nothing_matched_is_an_error_with_the_nearest_names():
    with pytest.raises(SelectionError, match="did you mean layer3"):
        modules(MODEL, "layre3")


def test_an_index_as_in_python_is_answered_with_the_dotted_name():
    with pytest.raises(SelectionError, match=r"a child is named with a dot: layer1\.0\.conv1"):
        modules(MODEL, "layer1[0].conv1")


def test_a_misspelt_class_is_answered_with_the_nearest_class():
    with pytest.raises(SelectionError, match="did you mean BatchNorm2d"):
        modules(MODEL, "**:BatchNorm2")


def test_a_module_without_parameters_is_no_selection_of_parameters():
    with pytest.raises(SelectionError, match="have no parameters"):
        parameters(MODEL, "maxpool")


def test_a_selection_prints_what_it_matched():
    assert str(modules(MODEL, "layer1.*")) == "layer1.* -> 2: layer1.0, layer1.1"


def test_a_described_selection_prints_classes_sizes_and_what_is_frozen():
    model = resnet18(weights=None)
    model.layer1[0].requires_grad_(False)
    assert str(described(model, "layer1.**:BasicBlock")) == (
        "layer1.**:BasicBlock: 2 modules, 147,968 parameters, 73,984 trainable\n"
        "  layer1.0  BasicBlock        73,984   frozen\n"
        "  layer1.1  BasicBlock        73,984"
    )


def test_a_selection_counts_each_parameter_once_and_folds_long_lists():
    g = tg.load(resnet18(weights=None), input=(3, 64, 64))
    text = str(g.select("**"))
    assert text.startswith("**: 67 modules, 11,689,512 parameters, all trainable")
    assert text.endswith("… and 43 more")


def test_a_selection_of_parameters_is_given_where_no_module_is_meant():
    assert described(MODEL, "biases & layer1.**").noun == "parameter"
    with pytest.raises(SelectionError, match="matches no module"):
        described(MODEL, "biasses")


# slices


class Listed(nn.Module):
    """Blocks with names that are no numbers, so that order and name differ."""

    def __init__(self, names):
        super().__init__()
        self.blocks = nn.Module()
        for name in names:
            self.blocks.add_module(name, nn.Linear(1, 1))


children = st.lists(st.sampled_from("abcdefghij"), unique=True, max_size=8)
bound = st.none() | st.integers(-9, 9)


@given(children, bound, bound, st.none() | st.integers(-3, 3))
def test_slices_take_children_as_python_slices_a_list(names, start, stop, step):
    text = ":".join(
        "" if one is None else str(one) for one in ((start, stop) if step is None else (start, stop, step))
    )
    taken = [name for name in names if step != 0 and name in names[slice(start, stop, step)]]
    model = Listed(names)
    if not taken:
        with pytest.raises(SelectionError):
            modules(model, f"blocks[{text}]")
    else:
        assert list(modules(model, f"blocks[{text}]")) == [f"blocks.{name}" for name in taken]
        assert len(selected(model, f"blocks[{text}].weight")) == len(taken)


@given(children, st.integers(-9, -1))
def test_a_negative_index_is_pythons(names, index):
    selector = Selector(f"blocks[{index}]")
    tree = lambda path: names if path == "blocks" else ()  # noqa: E731
    taken = [name for name in names if selector.takes(f"blocks.{name}", children=tree)]
    assert taken == ([names[index]] if len(names) >= -index else [])


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("layer[12][-1]", ["layer1.1", "layer2.1"]),
        ("layer4[-1].bn?", ["layer4.1.bn1", "layer4.1.bn2"]),
        ("layer1[:1].conv1", ["layer1.0.conv1"]),
        ("layer3[:][-1]", ["layer3.1"]),
        ("[-1:]", ["fc"]),
        ("layer2[1:].**:Conv2d", ["layer2.1.conv1", "layer2.1.conv2"]),
    ],
)
def test_slices_go_with_globs_and_classes(text, meant):
    assert list(modules(MODEL, text)) == meant


# roles


def test_a_role_stands_for_paths():
    assert list(modules(MODEL, "head", roles={"head": ["fc"]})) == ["fc"]
    assert "fc.weight" not in parameters(MODEL, "backbone", roles={"head": ["fc"]})


def test_norms_and_biases_and_vectors_are_found_by_what_they_are():
    vit = vit_b_32(weights=None)
    assert all(re.search(r"ln(_\d)?\.", name) for name in parameters(vit, "norms"))
    assert len(modules(vit, "norms")) == 25
    assert "encoder.layers.encoder_layer_0.self_attention.in_proj_bias" in parameters(vit, "biases")
    assert {one.dim() for one in selected(vit, "vectors").values()} == {1}
    assert set(parameters(vit, ["norms", "biases"])) <= set(parameters(vit, "vectors"))
    assert list(parameters(vit, "embeddings")) == ["class_token", "encoder.pos_embedding"]


def test_a_block_whose_name_says_norm_is_no_norm():
    model = timm.create_model("mobilenetv3_small_050")
    kinds = {type(model.get_submodule(path)).__name__ for path in modules(model, "norms")}
    assert kinds == {"BatchNormAct2d"}
    assert all("norm" in path or "downsample.1" in path for path in modules(densenet121(weights=None), "norms"))


def test_trainable_and_frozen_share_the_parameters_between_them():
    model = resnet18(weights=None)
    model.layer1.requires_grad_(False)
    frozen, trainable = parameters(model, "frozen"), parameters(model, "trainable")
    assert all(name.startswith("layer1.") for name in frozen)
    assert sorted([*frozen, *trainable]) == sorted(NAMES)
    assert parameters(model, "not frozen").paths == trainable.paths


def test_not_frozen_is_everything_where_nothing_is():
    assert set(parameters(MODEL, "not frozen")) == set(NAMES)


def test_a_modules_own_name_wins_over_a_role_of_that_name():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.norms = nn.Linear(2, 2)
            self.head = nn.BatchNorm1d(2)

    assert list(parameters(Net(), "norms")) == ["norms.weight", "norms.bias"]
    assert list(modules(Net(), "head", roles={"head": ["norms"]})) == ["head"]


@pytest.mark.parametrize(
    ("source", "stem"),
    [
        ("torchvision:resnet18@none", ["conv1", "bn1"]),
        ("torchvision:mobilenet_v2@none", ["features.0"]),
        ("torchvision:vgg11_bn@none", ["features.0", "features.1"]),
        ("timm:convnext_atto@none", ["stem"]),
    ],
)
def test_the_stem_is_what_reads_the_input_up_to_the_first_block(source, stem):
    g = tg.load(source, input=(3, 64, 64))
    assert list(g.select("stem")) == stem
    assert not set(parameters(g.module, "stem", roles=g.roles)) & set(parameters(g.module, "head", roles=g.roles))


def test_the_tokens_of_a_vit_belong_to_its_stem():
    g = tg.load("torchvision:vit_b_32@none", input=(3, 224, 224))
    assert set(parameters(g.module, "stem", roles=g.roles)) == {
        "class_token",
        "conv_proj.weight",
        "conv_proj.bias",
        "encoder.pos_embedding",
    }


# sets


SELECTORS = ["layer3.**", "norms", "biases", "**:Conv2d", "fc", "layer[12].**", "**.weight", "vectors"]


@given(st.lists(st.sampled_from(SELECTORS), min_size=1), st.lists(st.sampled_from(SELECTORS)))
def test_a_list_is_the_union_less_what_is_negated(wanted, away):
    union = set().union(*(parameters(MODEL, one) for one in wanted))
    less = set().union(*(parameters(MODEL, one) for one in away))
    asked = [*wanted, *(f"not {one}" for one in away)]
    if union - less:
        assert set(parameters(MODEL, asked)) == union - less
    else:
        with pytest.raises(SelectionError, match="nothing is left"):
            parameters(MODEL, asked)


@given(st.sampled_from(SELECTORS), st.sampled_from(SELECTORS))
def test_and_is_the_intersection_and_not_the_complement(one, other):
    first, second, every = set(parameters(MODEL, one)), set(parameters(MODEL, other)), set(NAMES)
    for text, meant in ((f"{one} & {other}", first & second), (f"{one} & not {other}", first - second)):
        if meant:
            assert set(parameters(MODEL, text)) == meant
        else:
            with pytest.raises(SelectionError):
                parameters(MODEL, text)
    assert set(parameters(MODEL, f"not {one}")) == every - first


def test_the_negation_of_a_module_takes_away_what_is_in_it():
    convolutions = modules(MODEL, ["**:Conv2d", "not layer3"])
    assert convolutions.paths == tuple(p for p in modules(MODEL, "**:Conv2d") if not p.startswith("layer3."))
    assert list(modules(MODEL, "layer3.** & norms")) == [
        p for p in modules(MODEL, "norms") if p.startswith("layer3")
    ]


def test_a_misspelt_negation_is_an_error_too():
    with pytest.raises(SelectionError, match="did you mean layer3"):
        parameters(MODEL, ["**", "not layre3"])


# globs


@given(st.sampled_from(PATHS))
def test_every_path_selects_itself(path):
    assert Selector(path).takes(path)
    assert Selector("**").takes(path)
    assert Selector(f"{path.split('.')[0]}.**").takes(path)


@given(st.sampled_from(PATHS), st.sampled_from(["layer?", "*", "conv1", "layer[12]", "bn*"]))
def test_a_pattern_without_dots_means_what_it_means_to_a_shell(path, pattern):
    assert Selector(pattern).takes(path) == ("." not in path and fnmatch.fnmatchcase(path, pattern))


def reference(pattern):
    """A glob as a regular expression, by another way."""
    parts = [
        r"(?:[^.]+\.)*"
        if p == "**"
        else fnmatch.translate(p)
        .replace("(?s:", "(?:")
        .replace(r"\Z", "")
        .replace(r"\z", "")
        .replace(".*", "[^.]*")
        + r"\."
        for p in pattern.split(".")
    ]
    return re.compile("".join(parts))


part = st.sampled_from(["a", "b", "ab", "*", "**", "a*", "?", "[ab]", "[!a]"])


@settings(max_examples=300)
@given(
    st.lists(part, min_size=1, max_size=4),
    st.lists(st.sampled_from(["a", "b", "ab", "ba"]), min_size=1, max_size=4),
)
def test_globs_agree_with_a_regular_expression(pattern, path):
    meant = reference(".".join(pattern)).fullmatch("".join(f"{one}." for one in path)) is not None
    assert Selector(".".join(pattern)).takes(".".join(path)) == meant


# cover


@given(st.sets(st.sampled_from(NAMES), min_size=1))
def test_covering_selectors_select_just_what_they_cover(names):
    assert set(parameters(MODEL, covering(MODEL, names))) == names


def test_a_whole_module_is_covered_by_its_name():
    assert covering(MODEL, [n for n in NAMES if n.startswith(("conv1", "layer2"))]) == ("conv1", "layer2")
    assert covering(MODEL, NAMES) == ("**",)


def test_a_tied_parameter_is_meant_by_any_of_its_names():
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    model[1].weight = model[0].weight
    assert selected(model, "1") == {id(model[0].weight): model[0].weight}
    assert torch.equal(model[0].weight, model[1].weight)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("!layer3", "write: not layer3"),
        ("~ head", "write: not head"),
        ("layer3, fc", "several selectors are a list"),
        ("layer3 | fc", "several selectors are a list"),
        ("layer{3,4}", "layer[34]"),
    ],
)
def test_what_other_languages_write_is_told_as_it_is_written_here(text, hint):
    with pytest.raises(SelectionError) as refused:
        modules(MODEL, text)
    assert hint in refused.value.hint


def test_a_role_that_nothing_has_is_not_proposed_for_itself():
    with pytest.raises(SelectionError, match="the model has none of that role") as refused:
        modules(MODEL, "frozen")
    assert "frozen" not in refused.value.hint
