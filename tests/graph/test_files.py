"""Drawings in files: the ending says the format, and nothing that was there is lost."""

from __future__ import annotations

import json
from dataclasses import MISSING, fields

import pytest
from tests.graph import models

import torchgraft as tg
from torchgraft.errors import SelectionError, StoreError
from torchgraft.graph import Box, drawing
from torchgraft.graph.data import as_data
from torchgraft.graph.opening import walk
from torchgraft.view.places import MARKS

BEGINS = {
    ".svg": b"<svg",
    ".png": b"\x89PNG",
    ".html": b"<!doctype html",
    ".dot": b"// drawn by torch",
    ".json": b'{"generator": "tor',
}


@pytest.fixture(scope="module")
def graft() -> tg.Graft:
    return models.graft("several")


@pytest.mark.parametrize("ending", BEGINS)
def test_the_ending_says_the_format(graft, tmp_path, ending):
    path = graft.draw(tmp_path / f"model{ending}")
    assert path.read_bytes()[:20].lower().startswith(BEGINS[ending].lower())
    assert graft.draw(path) == path, "a drawing may be drawn again"
    assert [one.name for one in tmp_path.iterdir()] == [f"model{ending}"]


def test_without_a_file_the_drawing_is_given(graft):
    assert graft.draw().root == drawing(graft).root


def test_an_unknown_ending_is_refused_before_anything_is_done(tmp_path):
    with pytest.raises(StoreError, match=r"ends in '\.gif'") as refused:
        tg.load("torchvision:resnet18@none").draw(tmp_path / "model.gif")
    assert ".svg, .png, .html, .dot, .json" in refused.value.hint
    with pytest.raises(StoreError, match="no ending"):
        tg.load("torchvision:resnet18@none").draw(tmp_path / "model")


def test_another_file_is_not_overwritten(graft, tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{"classes": 10}')
    with pytest.raises(StoreError, match="no JSON of torchgraft's, and would be lost"):
        graft.draw(path)
    assert path.read_text() == '{"classes": 10}'


@pytest.mark.parametrize("ending", [".svg", ".html", ".dot", ".png"])
def test_nor_is_a_drawing_of_somebody_else(graft, tmp_path, ending):
    path = graft.draw(tmp_path / f"model{ending}")
    mark = MARKS[ending]
    path.write_bytes(path.read_bytes().replace(mark, mark[:-8] + b" " * 8))
    before = path.read_bytes()
    with pytest.raises(StoreError, match="would be lost"):
        graft.draw(path)
    assert path.read_bytes() == before


def test_a_folder_that_is_not_there_is_named(graft, tmp_path):
    with pytest.raises(StoreError, match="there is no folder"):
        graft.draw(tmp_path / "pictures" / "model.svg")
    (tmp_path / "model.svg").mkdir()
    with pytest.raises(StoreError, match="a folder of that name"):
        graft.draw(tmp_path / "model.svg")


def test_a_failed_drawing_leaves_the_old_one(graft, tmp_path):
    path = graft.draw(tmp_path / "model.dot")
    before = path.read_bytes()
    with pytest.raises(SelectionError, match="matches no module"):
        graft.draw(path, at="nowhere")
    assert path.read_bytes() == before


def test_the_data_hold_all_that_is_not_as_usual(graft):
    made = drawing(graft)
    data = json.loads(json.dumps(as_data(made)))
    assert (data["version"], data["title"], data["opened"]) == (1, "Several", sorted(made.opened))

    def read(held: dict) -> Box:
        plain = {one.name: one.default for one in fields(Box) if one.default is not MISSING} | held
        plain["boxes"] = tuple(read(one) for one in held.get("boxes", ()))
        return Box(
            **{
                name: tuple(one) if isinstance(one, list) and name != "edges" else one
                for name, one in plain.items()
            }
        )

    root = read(data["root"])
    for one, other in zip(walk(root), walk(made.root), strict=True):
        for field in fields(Box):
            if field.name not in ("boxes", "edges"):
                assert getattr(one, field.name) == getattr(other, field.name)
