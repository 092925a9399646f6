"""Sheets: one of them dot by dot, the others by what must be on them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import torchgraft as tg
from torchgraft.errors import DataError, StoreError
from torchgraft.features import attention_maps, drawn, feature_maps, first_filters, grad_cam, layer_statistics
from torchgraft.features.images import images_of, read_images
from torchgraft.features.layout import Grids
from torchgraft.features.pictures import Section, Tile, sheet
from torchgraft.features.sheets import (
    attention_sections,
    cam_sections,
    filter_sections,
    map_sections,
    statistics_sections,
)
from torchgraft.features.show import Shown, written
from torchgraft.preprocess import Preprocess
from torchgraft.view.canvas import flat

GOLDEN = Path(__file__).parent / "golden" / "sheet.png"
"""Written anew by `WRITE_GOLDEN=1 pytest tests/features/test_pictures.py`; look at it then."""


class Net(nn.Module):
    """A convolution with chosen filters: edges, blurs; then a vector."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1, bias=False)
        kernels = [[[-1, 0, 1]] * 3, [[-1] * 3, [0] * 3, [1] * 3], [[1] * 3] * 3, [[0, 1, 0]] * 3]
        self.conv.weight.data = torch.tensor(kernels, dtype=torch.float32)[:, None] / 4
        self.fc = nn.Linear(4, 3)
        self.fc.weight.data, self.fc.bias.data = torch.eye(3, 4), torch.tensor([0.0, 0.5, -0.5])

    def forward(self, x):
        return self.fc(self.conv(x).relu().mean((2, 3)))


@pytest.fixture
def net():
    return tg.load(Net(), input=(1, 12, 18))


@pytest.fixture
def images():
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, 12), torch.linspace(-1.5, 1.5, 18), indexing="ij")
    ring = (-8 * (torch.hypot(rows, columns) - 0.7).square()).exp()
    return images_of(
        ring[None, None], Preprocess(size=(12, 18), channels=1, mean=(0.0,), std=(1.0,)), names=["ring"]
    )


def whole(net, images):
    """Everything that a sheet can hold, on one."""
    x = images.tensor
    sections = [
        *map_sections(feature_maps(net, x, "conv", "fc"), images),
        *map_sections(feature_maps(net, x, "conv"), images, over=True),
        *cam_sections(grad_cam(net, x, at="conv", target=0, classes=["left", "top", "blur"]), images),
        *filter_sections(first_filters(net)),
        *statistics_sections(layer_statistics(net, x)),
    ]
    return sheet("Net: everything at once", sections, note="chosen weights, not trained ones")


def test_the_sheet_looks_as_it_should(net, images):
    made = whole(net, images)
    made = made.resize((made.width // 2, made.height // 2))
    if os.environ.get("WRITE_GOLDEN"):
        flat(made).save(GOLDEN, optimize=True)
    wanted = Image.open(GOLDEN).convert("RGB")
    assert made.size == wanted.size
    apart = np.abs(np.asarray(made, dtype=float) - np.asarray(wanted, dtype=float))
    assert apart.mean() < 2
    assert (apart.max(2) > 60).mean() < 0.01


def test_anything_found_is_drawn_in_python(net, images):
    x = images.tensor
    for found in (feature_maps(net, x), grad_cam(net, x), first_filters(net), layer_statistics(net, x)):
        assert 600 < drawn(found, x, title="Net").width <= 2000
    with pytest.raises(DataError, match=r"drawn\(found, images\)"):
        drawn(grad_cam(net, x))


def test_each_map_is_drawn_in_the_colours_of_its_values():
    from matplotlib import colormaps

    values = np.array([[-1.0, 0.0], [0.5, 1.0]])
    made = np.asarray(sheet("x", [Section("t", tiles=(Tile(values, "tile"),), unit="value", columns=4)]))
    for value in values.ravel():
        colour = np.array(colormaps["RdBu_r"]((value + 1) / 2)[:3]) * 255
        assert (np.abs(made - colour).max(2) < 4).sum() > 5000


def test_values_on_one_side_of_zero_have_another_scale():
    values = np.array([[0.0, 1.0], [2.0, 4.0]])
    made = np.asarray(sheet("x", [Section("t", tiles=(Tile(values),), unit="value", columns=4)]))
    assert (made.max(2) < 12).sum() > 5000, "the least is black"


def test_a_map_lies_over_its_image(images, net):
    plain = np.asarray(sheet("x", map_sections(feature_maps(net, images.tensor, "conv"), images)))
    over = np.asarray(sheet("x", map_sections(feature_maps(net, images.tensor, "conv"), images, over=True)))
    assert plain.shape == over.shape
    assert (plain != over).any(2).mean() > 0.05


@pytest.mark.parametrize("dark", [False, True])
def test_on_a_light_and_on_a_dark_ground(dark):
    made = sheet("title", [Section("t", tiles=(Tile(np.eye(3)),))], dark=dark)
    assert (made.getpixel((1, 1)) == (255, 255, 255)) is not dark


def test_maps_that_are_the_same_everywhere_or_broken_are_drawn():
    for values in (np.zeros((2, 2)), np.full((2, 2), np.nan), np.array([[np.inf, 1.0]])):
        sheet("x", [Section("t", tiles=(Tile(values),), unit="value")])


def test_attention_of_tokens_and_of_windows():
    g = tg.load("torchvision:swin_t@none", input=(3, 64, 64))
    images = images_of(torch.randn(1, 3, 64, 64))
    sections = attention_sections(attention_maps(g, images.tensor, at="features.1"), images, Grids((64, 64)))
    assert [one.title for one in sections] == ["features.1.0.attn", "features.1.1.attn"]
    assert "on the mean of 9 windows" in sections[0].detail
    assert len(sections[0].tiles) == 3


def test_colour_filters_are_grey_where_they_are_zero():
    layer = nn.Sequential(nn.Conv2d(3, 2, 3, bias=False))
    layer[0].weight.data = torch.zeros(2, 3, 3, 3)
    layer[0].weight.data[1, 0] = 2.0
    (section,) = filter_sections(first_filters(tg.load(layer, input=(3, 8, 8))))
    assert section.tiles[0].caption == "filter 1"
    assert np.allclose(section.tiles[0].values, [1.0, 0.5, 0.5])
    assert np.allclose(section.tiles[1].values, 0.5)


def test_a_sheet_of_a_mile_is_refused():
    tiles = tuple(Tile(np.eye(2)) for _ in range(8 * 200))
    with pytest.raises(DataError, match="cm long"):
        sheet("x", [Section("t", tiles=tiles)])


def test_images_are_shown_as_the_model_gets_them(tmp_path):
    path = tmp_path / "grey.png"
    Image.new("RGB", (40, 20), (255, 0, 0)).save(path)
    found = read_images([path], Preprocess(size=(8, 8), resize=8))
    assert found.tensor.shape == (1, 3, 8, 8)
    assert np.allclose(found.shown[0, 4, 4], [1, 0, 0], atol=1e-5)
    assert found.names == ("grey.png",)


@pytest.mark.parametrize(
    ("name", "what"), [("none.png", "no such image"), (".", "a folder"), ("text.png", "can't be")]
)
def test_images_that_cannot_be_read_are_told(tmp_path, name, what):
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(DataError, match=what):
        read_images([tmp_path / name], Preprocess(size=(8, 8)))


def test_nothing_but_a_picture_is_overwritten(tmp_path):
    found = Shown("x", (Section("t", tiles=(Tile(np.eye(2)),)),), "", {})
    path = written(found, tmp_path / "new" / "sheet.png")
    assert Image.open(path).format == "PNG"
    written(found, path)
    assert [one.name for one in path.parent.iterdir()] == ["sheet.png"]
    (tmp_path / "mine.png").write_text("mine")
    with pytest.raises(StoreError, match="no PNG of torchgraft's"):
        written(found, tmp_path / "mine.png")
    with pytest.raises(StoreError, match=r"--to sheet\.png"):
        written(found, tmp_path / "sheet.svg")
    assert (tmp_path / "mine.png").read_text() == "mine"


def test_a_sheet_is_as_wide_as_what_is_on_it(net, images):
    found = grad_cam(net, images.tensor, at="conv", target=0, classes=["3", "7"])
    one = sheet("Net", cam_sections(found, images))
    assert 1000 < one.width < 1500
    told = cam_sections(found, images)[0].tiles[1].caption
    assert told.startswith("class 3 · ")
    long = sheet("a long title of a model " * 3, cam_sections(found, images))
    assert one.width < long.width < 2000
    assert (np.asarray(long)[:, -40:] == 255).all(), "nothing runs into the edge"
