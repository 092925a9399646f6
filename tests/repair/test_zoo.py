"""Both ways over real models of different build; the whole zoo is in benchmarks/resilience.py."""

from __future__ import annotations

import random

import pytest
import timm
import torch
from torch import nn
from torchvision import models

import torchgraft as tg
from torchgraft.errors import EditError

MODELS = {
    "resnet18": lambda: models.resnet18(weights=None),
    "mobilenet_v3_small": lambda: models.mobilenet_v3_small(weights=None),
    "shufflenet_v2_x0_5": lambda: models.shufflenet_v2_x0_5(weights=None),
    "squeezenet1_1": lambda: models.squeezenet1_1(weights=None),
    "convnext_atto": lambda: timm.create_model("convnext_atto"),
    "dla46x_c": lambda: timm.create_model("dla46x_c"),
}


@pytest.mark.slow
@pytest.mark.parametrize("way", ["adapt", "propagate"])
@pytest.mark.parametrize("name", MODELS)
def test_edits_that_do_not_fit_are_mended_and_taken_back_exactly(name, way, snapshot):
    torch.manual_seed(0)
    g = tg.load(MODELS[name]().eval(), input=(3, 64, 64))
    before, shapes, image = snapshot(g.module), g.trace().output_shapes(), torch.randn(2, 3, 64, 64)
    run = g.trace()
    maps = [
        path
        for path in run.called
        if path
        and len(run.calls_of(path)) == 1
        and [len(value.shape) for value in (*run.given(path), *run.gave(path))] == [4, 4]
    ]
    for path in random.Random(1).sample(sorted(maps), 4):
        given, gave = run.given(path)[0].shape, run.gave(path)[0].shape
        new = nn.Conv2d(given[1] + 3, gave[1] + 5, 3, padding=1)
        g.replace(path, new, fix=way)
        assert g.trace().output_shapes() == shapes
        out = g.module(image)
        out.mean().backward()
        assert all(p.grad is None or torch.isfinite(p.grad).all() for p in g.module.parameters())
        g.module.zero_grad()
        while g.recipe.edits:
            g.undo()
        assert snapshot(g.module) == before


def test_what_neither_way_mends_ends_with_a_finding(snapshot):
    class Strange(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.reshape(7, -1)

    g = tg.load(models.resnet18(weights=None), input=(3, 64, 64))
    before = snapshot(g.module)
    for way in ("adapt", "propagate"):
        with pytest.raises(EditError) as refused:
            g.replace("layer2", Strange(), fix=way)
        assert refused.value.findings
        assert snapshot(g.module) == before
