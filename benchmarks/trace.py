"""A trace beside a summary of torchinfo, on the meta device and on real tensors."""

from __future__ import annotations

import torch
import torchinfo
from torchvision import models

from benchmarks.measure import alternate, table
from torchgraft.trace import trace

TITLE = "One trace of the whole model: CPU / wall seconds, medians of 5 alternating runs, 224×224 images"
MODELS = ("resnet18", "resnet152", "swin_b", "convnext_large", "vit_l_16")


def run() -> str:
    """Measure a trace and its peers on the same models."""
    rows = []
    for name in MODELS:
        with torch.device("meta"):
            model = models.get_model(name, weights=None).eval()
        meta = torch.empty(1, 3, 224, 224, device="meta")
        costs = alternate(
            {
                "torchgraft": lambda model=model, meta=meta: trace(model, meta),
                "torchinfo, meta": lambda model=model: torchinfo.summary(
                    model, (1, 3, 224, 224), device="meta", verbose=0
                ),
            }
        )
        del model
        if name in ("resnet18", "resnet152", "swin_b"):
            real = models.get_model(name, weights=None).eval()
            costs |= alternate(
                {"real": lambda real=real: torchinfo.summary(real, (1, 3, 224, 224), verbose=0)}, runs=3
            )
        rows.append((name, costs["torchgraft"], costs["torchinfo, meta"], costs.get("real", "–")))
    return table(["model", "torchgraft", "torchinfo, meta", "torchinfo, real"], rows)
