from __future__ import annotations

import pytest
import torch
from torch import nn

import torchgraft as tg
from torchgraft.errors import SourceError
from torchgraft.sources import parse_source


def same(a: nn.Module, b: nn.Module) -> bool:
    a, b = a.state_dict(), b.state_dict()
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture
def kept(resnet18, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    resnet18.head(5)
    resnet18.save("runs")
    return resnet18


@pytest.mark.parametrize("text", ["runs@v1", "version:runs@v1", "runs@latest", "version:v1"])
def test_a_kept_version_is_a_base(kept, text):
    g = tg.load(text)
    assert g.recipe.base == "version:runs@v1"
    assert g.recipe.edits == ()
    assert g.recipe.input == (3, 64, 64)
    assert same(g.module, kept.module)


def test_what_is_made_of_it_is_kept_and_opened_with_only_its_own_tensors(kept):
    manifest = tg.load("runs@v1").head(3).save("more")
    assert set(manifest.tensors) == {"fc.weight", "fc.bias"}
    again = tg.open("more")
    assert again.recipe.base == "version:runs@v1"
    assert again.module.fc.out_features == 3
    assert same(again.module.layer1, kept.module.layer1)


def test_its_recipe_replays_after_newer_versions_came(kept):
    g = tg.load("runs@latest").head(3)
    kept.head(4).save("runs")
    assert same(tg.Recipe.from_yaml(g.recipe.to_yaml()) and tg.load(g.recipe.base).head(3).module, g.module)


def test_a_version_without_memory_keeps_its_structure(kept):
    g = tg.load("runs@v1", meta=True)
    assert g.module.fc.out_features == 5
    assert all(one.is_meta for one in g.module.parameters())
    assert g.load_weights(kept.module.state_dict()).whole


@pytest.mark.parametrize(
    ("text", "match"), [("version:runs@v7", "v7"), ("version:nowhere@v1", "no version is kept here")]
)
def test_one_that_is_not_there_is_refused(kept, text, match):
    with pytest.raises(SourceError, match=match):
        parse_source(text).load()


def test_versions_in_runs_are_offered(kept):
    assert [one.name for one in type(parse_source("version:runs@v1")).offers()] == ["runs@v1"]
