"""Edits that do not fit, mended: the share that ends with the right output and a finite real backward pass."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable

import timm
import torch
from torch import nn
from torchvision import models

import torchgraft as tg
from benchmarks.measure import table
from torchgraft.edits.base import Edit
from torchgraft.errors import TorchgraftError
from torchgraft.sources.torchvision import _random
from torchgraft.trace import Trace

TITLE = "Wrong edits mended: output shape right and a finite real backward pass"

TORCHVISION = (
    "alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "googlenet", "mnasnet0_5", "mobilenet_v2",
    "mobilenet_v3_small", "regnet_y_400mf", "resnet18", "resnet50", "shufflenet_v2_x0_5", "swin_t",
    "squeezenet1_1", "vgg11_bn", "vit_b_16",
)  # fmt: skip
TIMM = (
    "resnet18d", "convnext_atto", "swin_tiny_patch4_window7_224", "mobilenetv4_conv_small", "efficientnet_b0",
    "regnety_002", "mixer_s32_224", "vit_tiny_patch16_224", "ghostnet_100", "hrnet_w18_small", "res2net50_14w_8s",
    "cspresnet50",
)  # fmt: skip
PLACES = int(os.environ.get("PLACES", "10"))
"""So many random places in each model."""


def _layer(rank: int, given: int, out: int) -> nn.Module:
    return nn.Conv2d(given, out, 3, padding=1) if rank == 4 else nn.Linear(given, out)


def _sizes(run: Trace, path: str) -> tuple[int, int, int]:
    """Give the rank, what arrives, and what leaves; channels are taken to be last below rank 4."""
    (given, *_), (gave,) = run.given(path), run.gave(path)
    rank = min(len(given.shape), len(gave.shape))
    place = 1 if rank == 4 else -1
    return rank, given.shape[place], gave.shape[place]


def wrong_channels(run: Trace, path: str) -> Edit:
    """Replace a module by one with wrong input and output channels."""
    rank, given, out = _sizes(run, path)
    return tg.edits.kinds()["replace"].of(path, _layer(rank, given + 3, out + 5))


def half_resolution(run: Trace, path: str) -> Edit:
    """Replace a module by one that halves the map."""
    rank, given, out = _sizes(run, path)
    pool = nn.MaxPool2d(2) if rank == 4 else nn.Identity()
    return tg.edits.kinds()["replace"].of(path, nn.Sequential(_layer(rank, given, out), pool))


def doubled_channels(run: Trace, path: str) -> Edit:
    """Insert a block that doubles the channels."""
    rank, _, out = _sizes(run, path)
    return tg.edits.kinds()["insert"].of(_layer(rank, out, 2 * out), after=path)


KINDS: dict[str, Callable[[Trace, str], Edit]] = {
    "wrong channels": wrong_channels,
    "half resolution": half_resolution,
    "doubled channels": doubled_channels,
}


def places(g: tg.Graft, seed: int) -> list[str]:
    """Draw places that are called once and give one map, sequence or vector."""
    run = g.trace()
    outputs = {run.values[number] for number in run.outputs}
    fit = [
        path
        for path in g.trace().called
        if path and len(run.given(path)) >= 1 and len(run.gave(path)) == 1 and len(run.calls_of(path)) == 1
        and all(2 <= len(v.shape) <= 4 for v in [run.given(path)[0], *run.gave(path)])
        and run.gave(path)[0] not in outputs
    ]  # fmt: skip
    return random.Random(seed).sample(sorted(fit), min(PLACES, len(fit)))


def mended(g: tg.Graft, edit: Edit, way: str, image: torch.Tensor) -> str:
    """Try one edit: 'mended', 'refused' with a finding, or the name of a foreign exception."""
    count, expected = len(g.recipe.edits), g.trace().output_shapes()
    try:
        g.apply(edit, fix=way)
        out = g.module(image)
        right = g.trace().output_shapes() == expected
        out.float().sum().backward()
        finite = all(p.grad is None or bool(torch.isfinite(p.grad).all()) for p in g.module.parameters())
        return "mended" if right and finite else "wrong"
    except TorchgraftError:
        return "refused"
    except Exception as error:
        return f"foreign: {type(error).__name__}"
    finally:
        g.module.zero_grad()
        while len(g.recipe.edits) > count:
            g.undo()


def _built(source: str, name: str) -> tuple[tg.Graft, torch.Tensor]:
    torch.manual_seed(0)
    model = _random(name) if source == "torchvision" else timm.create_model(name)
    fixed = any(word in name for word in ("vit", "swin", "mixer"))
    size = 224 if fixed else 128
    return tg.load(model.eval(), input=(3, size, size)), torch.randn(2, 3, size, size)


def run() -> str:
    """Count over all models and places."""
    counts: Counter[tuple[str, str, str]] = Counter()
    known = set(models.list_models(module=models))
    for name in (*TORCHVISION, *TIMM):
        source = "torchvision" if name in known and name in TORCHVISION else "timm"
        g, image = _built(source, name)
        for way in ("adapt", "propagate"):
            for kind, make in KINDS.items():
                for path in places(g, seed=1):
                    outcome = mended(g, make(g.trace(), path), way, image)
                    counts[way, kind, outcome] += 1
                    if outcome not in ("mended",) and (way == "adapt" or outcome.startswith(("foreign", "wrong"))):
                        print(f"  {name} {path} ({g.trace().kinds[path]}) {way} {kind}: {outcome}", flush=True)
    rows = []
    for way in ("adapt", "propagate"):
        for kind in KINDS:
            some = {outcome: n for (w, k, outcome), n in counts.items() if (w, k) == (way, kind)}
            total = sum(some.values())
            good = some.pop("mended", 0)
            rest = ", ".join(f"{outcome} {n}" for outcome, n in some.items())
            rows.append((way, kind, f"{good} of {total}", f"{good / total:.1%}", rest))
    return table(["way", "edit", "mended", "share", "the rest"], rows)
