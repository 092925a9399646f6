"""The picture: well-formed, nothing over anything else, and as the golden ones."""

from __future__ import annotations

import io
import itertools
import os
import re
import xml.etree.ElementTree as ET
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib import font_manager
from PIL import Image, ImageFont
from tests.graph import models
from tests.graph.models import drawn
from torch import nn

import torchgraft as tg
from torchgraft.graph import Box, Drawing, Edge, drawing
from torchgraft.graph.layout import laid_out
from torchgraft.graph.opening import walk
from torchgraft.graph.png import png
from torchgraft.graph.svg import svg

GOLDEN = Path(__file__).parent / "golden"
SVG = "{http://www.w3.org/2000/svg}"
every = pytest.mark.parametrize("name", models.ALL)


@pytest.mark.parametrize("name", models.GOLDEN)
def test_the_picture_is_the_golden_one(name):
    text = svg(drawn(name))
    kept, seen = GOLDEN / f"{name}.svg", GOLDEN / f"{name}.png"
    image = Image.open(io.BytesIO(png(drawn(name)))).convert("RGB")
    image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    if os.environ.get("TORCHGRAFT_GOLDEN"):
        kept.write_text(text, encoding="utf-8")
        image.quantize(64).save(seen, optimize=True)
    assert text == kept.read_text(encoding="utf-8")
    golden = Image.open(seen).convert("RGB")
    assert golden.size == image.size
    apart = np.abs(np.asarray(golden, dtype=float) - np.asarray(image, dtype=float)).mean()
    assert apart < 1.5, f"pixels differ by {apart:.2f} of 255 on average"


@every
def test_the_svg_is_well_formed_and_names_every_box_once(name):
    tree = ET.fromstring(svg(drawn(name)))
    ids = [one.get("id") for one in tree.iter(f"{SVG}g") if one.get("id")]
    assert len(ids) == len(set(ids))
    shown = {child.id for box in walk(drawn(name).root) if box.id in drawn(name).opened for child in box.boxes}
    assert set(ids) == shown
    assert all(one.find(f"{SVG}title").text for one in tree.iter(f"{SVG}g") if one.get("id"))


@every
def test_boxes_lie_in_their_parents_and_beside_each_other(name):
    placed = laid_out(drawn(name))
    spots = {spot["id"]: spot for spot in placed["boxes"]}
    for one, other in itertools.combinations(placed["boxes"], 2):
        if one["parent"] == other["parent"]:
            assert not overlap(one, other), (one["id"], other["id"])
    for spot in placed["boxes"]:
        parent = spots.get(spot["parent"])
        if parent is not None:
            assert parent["x"] < spot["x"]
            assert spot["x"] + spot["w"] < parent["x"] + parent["w"]
            assert parent["y"] < spot["y"]
            assert spot["y"] + spot["h"] < parent["y"] + parent["h"]


def overlap(one: dict, other: dict) -> bool:
    apart = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
    return not (apart or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"])


@cache
def font(bold: bool, size: float) -> ImageFont.FreeTypeFont:
    named = font_manager.FontProperties(family="DejaVu Sans", weight="bold" if bold else "normal")
    return ImageFont.truetype(font_manager.findfont(named), size)


@every
def test_no_text_is_wider_than_its_box_or_the_picture(name):
    tree = ET.fromstring(svg(drawn(name)))
    width = float(tree.get("width"))
    for text in tree.iter(f"{SVG}text"):
        right = float(text.get("x")) + wide(text)
        assert right <= width, text.text
    for group in tree.iter(f"{SVG}g"):
        if group.get("id"):
            frame = group.findall(f"{SVG}rect")[0]
            left, right = float(frame.get("x")), float(frame.get("x")) + float(frame.get("width"))
            for text in group.findall(f"{SVG}text"):
                start = float(text.get("x")) - (wide(text) / 2 if text.get("text-anchor") else 0)
                assert left <= start, text.text
                assert start + wide(text) <= right + 1, text.text


def wide(text: ET.Element) -> float:
    size = float(text.get("font-size"))
    return font(bool(text.get("font-weight")), size * 8).getlength(text.text) / 8


def test_names_of_the_user_are_escaped():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.add_module('a<b & "c"', nn.Linear(4, 4))

        def forward(self, x):
            return getattr(self, 'a<b & "c"')(x)

    drawing_ = drawing(tg.load(Odd(), input=(4,)))
    tree = ET.fromstring(svg(drawing_))
    assert any(one.get("id") == 'a<b & "c"' for one in tree.iter(f"{SVG}g"))
    assert any(text.text == 'a<b & "c"' for text in tree.iter(f"{SVG}text"))


def test_control_characters_in_a_name_do_not_break_the_file():
    root = Box("(model)", "", "", boxes=(Box("a", "a", "a\x00\x1bb", role="module"),))
    assert ET.fromstring(svg(Drawing("a\x07title", root, frozenset({"(model)"}))))


def test_the_legend_names_just_the_colours_that_are_there():
    words = [text.text for text in ET.fromstring(svg(drawn("resnet18"))).iter(f"{SVG}text")]
    assert words[-2:] == ["trainable", "goes past what lies between"]
    words = [text.text for text in ET.fromstring(svg(drawn("edited"))).iter(f"{SVG}text")]
    for word in ("trainable", "frozen", "partly frozen", "new, by an edit", "put in by a repair"):
        assert word in words
    assert "the pass breaks off" in svg(drawn("broken"))


def test_the_words_of_a_difference_have_colours():
    boxes = tuple(Box(mark, mark, mark, mark=mark) for mark in ("added", "removed", "changed"))
    edges = (Edge("added", "removed", "[1]", mark="added"), Edge("removed", "changed", "[2]", mark="removed"))
    text = svg(Drawing("a difference", Box("(model)", "", "", boxes=boxes, edges=edges), frozenset({"(model)"})))
    colours = set(re.findall(r'stroke="(#\w+)"', text))
    assert len(colours) >= 3


def test_a_long_chain_can_be_drawn():
    deep = nn.Sequential(*(nn.Linear(4, 4 + n % 2) if n == 0 else nn.ReLU() for n in range(400)))
    assert svg(drawing(tg.load(deep, input=(4,)), fold=False)).count("<g id=") == 402


def test_a_long_finding_is_broken_into_lines():
    assert max(len(text.text) for text in ET.fromstring(svg(drawn("broken"))).iter(f"{SVG}text")) < 80


def test_a_notebook_shows_the_picture():
    assert drawn("vit")._repr_svg_() == svg(drawn("vit")) == drawn("vit").svg()
    assert str(drawn("vit")).startswith("VisionTransformer: ")


def test_the_picture_does_not_depend_on_what_was_drawn_before():
    torch.manual_seed(3)
    assert svg(drawing(models.vit())) == svg(drawn("vit"))
