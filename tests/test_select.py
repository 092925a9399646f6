from __future__ import annotations

import fnmatch

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torchvision.models import resnet18

from torchgraft.errors import SelectionError
from torchgraft.select import Selector, modules, parameters

MODEL = resnet18(weights=None)
PATHS = [path for path, _ in MODEL.named_modules() if path]


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


def test_a_role_stands_for_paths():
    assert list(modules(MODEL, "head", roles={"head": ["fc"]})) == ["fc"]


def test_nothing_matched_is_an_error_with_the_nearest_names():
    with pytest.raises(SelectionError, match="did you mean layer3"):
        modules(MODEL, "layre3")


def test_a_module_without_parameters_is_no_selection_of_parameters():
    with pytest.raises(SelectionError, match="have no parameters"):
        parameters(MODEL, "maxpool")


def test_a_selection_prints_what_it_matched():
    assert str(modules(MODEL, "layer1.*")) == "layer1.* -> 2: layer1.0, layer1.1"


@given(st.sampled_from(PATHS))
def test_every_path_selects_itself(path):
    assert Selector(path).takes(path)
    assert Selector("**").takes(path)
    assert Selector(f"{path.split('.')[0]}.**").takes(path)


@given(st.sampled_from(PATHS), st.sampled_from(["layer?", "*", "conv1", "layer[12]", "bn*"]))
def test_a_pattern_without_dots_means_what_it_means_to_a_shell(path, pattern):
    assert Selector(pattern).takes(path) == ("." not in path and fnmatch.fnmatchcase(path, pattern))
