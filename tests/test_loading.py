from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision import models

import torchgraft as tg
from torchgraft.errors import RecipeError, SourceError, TorchgraftWarning


class Both(nn.Module):
    """Takes a picture's features and a row of a table."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 3), nn.Linear(5, 3)

    def forward(self, image, table):
        return self.a(image) + self.b(table)


class ByName(Both):
    def forward(self, image, *, table):
        return super().forward(image, table)


class Open(Both):
    def forward(self, **given):
        return super().forward(given["image"], given["table"])


class Whole(Both):
    def forward(self, batch):
        return super().forward(batch["image"], batch["table"])


GIVEN = {"table": torch.randn(8, 5), "image": torch.randn(8, 4)}
CLASSES = torch.arange(8) % 3


@pytest.mark.parametrize("model", [Both(), ByName(), Open(), Whole()])
def test_a_dict_is_given_by_name_wherever_the_forward_takes_such_names(model):
    assert tg.check(model, GIVEN) == ()
    assert tg.check(model, GIVEN, data=(GIVEN, CLASSES)) == ()
    assert tg.check(model, data=(GIVEN, CLASSES)) == ()
    graft = tg.load(model, input=GIVEN)
    assert graft.trace(cached=False).output_shapes() == graft.trace().output_shapes() == [(8, 3)]


def test_a_dict_of_which_one_entry_does_not_fit_is_told_at_the_layer():
    (found,) = tg.check(ByName(), {**GIVEN, "table": torch.randn(8, 6)})
    assert (found.code, found.where) == ("S002", "ByName / b")


def test_an_entry_that_no_argument_is_named_after_is_refused():
    with pytest.raises(RecipeError, match=r"names table, picture; the forward takes image, table"):
        tg.load(Both(), input={"table": GIVEN["table"], "picture": GIVEN["image"]})


def test_defaults_between_named_arguments_stay():
    class Gap(Both):
        def forward(self, image, mask=None, table=None):
            assert mask is None
            return super().forward(image, table)

    assert tg.check(Gap(), GIVEN) == ()


@pytest.mark.parametrize("given", ["abc", ("a", 3), (3.5,), 5, b"x", {"x": "y"}])
def test_an_input_without_a_tensor_is_refused(given):
    with pytest.raises(RecipeError, match="holds no tensor"):
        tg.load(nn.Linear(4, 3), input=given)


@pytest.mark.parametrize("given", [np.zeros((2, 4)), (np.zeros((2, 4)),), {"input": np.zeros((2, 4))}])
def test_an_array_is_refused_with_what_makes_it_a_tensor(given):
    with pytest.raises(RecipeError, match=r"torch\.from_numpy"):
        tg.load(nn.Linear(4, 3), input=given)


def test_sizes_may_be_numbers_of_numpy():
    assert tg.load(nn.Linear(4, 3), input=(np.int64(4),)).input_shape == (4,)


# without memory for the parameters


def test_a_model_on_meta_takes_edits_is_checked_and_filled_later(tmp_path):
    g = tg.load("shufflenet_v2_x0_5", input=(3, 64, 64), meta=True)
    assert g.recipe.base == "torchvision:shufflenet_v2_x0_5"
    assert all(one.is_meta for one in g.module.parameters())
    assert not any(one.is_meta for one in g.module.buffers())
    g.head(3)
    assert g.check() == ()
    trained = models.shufflenet_v2_x0_5(weights=None)
    save_file(trained.state_dict(), tmp_path / "w.safetensors")
    assert g.load_weights(tmp_path / "w.safetensors").expected
    assert torch.equal(g.module.conv1[0].weight, trained.conv1[0].weight)
    assert not any(one.is_meta for one in g.module.parameters())


def test_a_huge_model_is_checked_in_little_memory():
    code = (
        "import torchgraft as tg\n"
        "g = tg.load('vit_h_14', meta=True, input=(3, 224, 224))\n"
        "assert sum(one.numel() for one in g.module.parameters()) > 600e6\n"
        "assert g.check() == ()\n"
        "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 1_500_000  # kB; its weights alone are 2.5 GB


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read off /proc")
def test_loading_takes_the_memory_of_the_weights_once(tmp_path):
    save_file(models.vit_b_16(weights=None).state_dict(), tmp_path / "w.safetensors")
    code = (
        "import sys, torchgraft as tg\n"
        "from torchgraft.sources import parse_source\n"
        "parse_source('torchvision:alexnet').bare.skeleton()\n"
        "peak = lambda: next(int(x.split()[1]) for x in open('/proc/self/status') if x.startswith('VmHWM'))\n"
        "before = peak()\n"
        "m = parse_source(f'file:{sys.argv[1]}@vit_b_16').load().module\n"
        "total = sum(float(one.sum()) for one in m.parameters())\n"
        "print((peak() - before) * 1024)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "w.safetensors")], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 1.15 * (tmp_path / "w.safetensors").stat().st_size


@pytest.mark.parametrize(
    ("weights", "base"), [(None, "torchvision:resnet18@none"), ("none", "torchvision:resnet18@none")]
)
def test_weights_as_torchvision_writes_them_are_understood_and_explained(weights, base):
    with pytest.warns(TorchgraftWarning, match="is written 'torchvision:resnet18@none'"):
        assert tg.load("resnet18", weights=weights).recipe.base == base


def test_weights_that_a_source_names_already_are_not_named_twice():
    with pytest.raises(SourceError, match="can't be said of 'resnet18@none'"):
        tg.load("resnet18@none", weights="DEFAULT")
