"""Edits that do not fit, mended: the share that ends with the right output and a finite real backward pass.

Each trial edits one place of one model and asks for one way to make it fit. It counts as mended where the
outputs have the shapes they had, and one real forward and backward pass on two random images leaves only finite
gradients. What is refused must be refused by torchgraft's own error with findings; anything else is foreign.

    PLACES=4      places in each model (10)
    MODELS=8      every 8th model only (1)
    FROM=3        and of these the ones from the 3rd on (0)
    WAYS=adapt    one way only
    PROVE=0       no real passes: everything is traced only
    KEPT=file     outcomes by model, one JSON line each: a run that was broken off goes on where it was
"""

from __future__ import annotations

import json
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import timm
import torch
from torch import nn
from torchvision import models

import torchgraft as tg
from benchmarks.measure import table
from torchgraft.edits.base import Edit
from torchgraft.edits.insert import Insert
from torchgraft.errors import EditError, TorchgraftError
from torchgraft.sources.torchvision import _random
from torchgraft.trace import Trace, trace

TITLE = "Wrong edits mended: output shape right and a finite real backward pass"

TIMM = (
    "beit_base_patch16_224", "botnet26t_256", "caformer_s18", "cait_xxs24_224", "coat_tiny", "coatnet_pico_rw_224",
    "convit_tiny", "convmixer_768_32", "convnext_atto", "convnextv2_atto", "cpubone_nano", "crossvit_tiny_240",
    "cs3darknet_focus_s", "csatv2", "cspnext_tiny", "cspresnet50", "davit_tiny", "deit_tiny_patch16_224",
    "densenet121", "dla46x_c", "dpn48b", "eca_nfnet_l0", "ecaresnext26t_32x4d", "edgenext_xx_small",
    "efficientformer_l1", "efficientformerv2_s0", "efficientnet_b0", "efficientvim_m1", "efficientvit_b0",
    "efficientvit_m0", "ese_vovnet19b_slim_dw", "eva02_tiny_patch14_224", "fasternet_t0", "fastvit_s12",
    "flexivit_small", "focalnet_tiny_srf", "gcvit_xxtiny", "gernet_s", "ghostnet_050",
    "gmlp_ti16_224", "halonet_h1", "hardcorenas_b", "hgnetv2_b0", "hiera_tiny_224", "hrnet_w18_small", "iformer_t",
    "inception_next_atto", "inception_resnet_v2", "inception_v3", "inception_v4", "lambda_resnet26t", "lcnet_035",
    "lcnetv2_small", "legacy_seresnet18", "legacy_xception", "levit_384_s8", "lowformer_b0", "mambaout_femto",
    "maxvit_pico_rw_256", "mixer_s16_224", "mixnet_s", "mobilenetv2_035", "mobilenetv3_small_050",
    "mobilenetv5_base", "mobileone_s1", "mobilevit_xxs", "mobilevitv2_050", "mvitv2_tiny",
    "naflexvit_base_patch16_siglip", "nasnetalarge", "nest_tiny", "nextvit_small", "nf_resnet26", "pit_xs_224",
    "pnasnet5large", "poolformer_s12", "poolformerv2_s12", "pvt_v2_b0", "qwen3_vit_88m", "rdnet_tiny",
    "regnetx_002", "regnety_002", "regnetz_005", "regnetz_b16", "repghostnet_050", "repvgg_a0", "repvit_m1",
    "res2net50_14w_8s", "resmlp_12_224", "resnest14d", "resnet18d", "resnetaa34d", "resnetv2_18", "resnext26ts",
    "rexnet_100", "sam2_hiera_tiny", "samvit_base_patch16_224", "selecsls42", "sequencer2d_s", "shvit_s1",
    "skresnet18", "starnet_s1", "swiftformer_xs", "swin_tiny_patch4_window7_224", "swinv2_cr_tiny_224",
    "swinv2_tiny_window8_256", "tiny_vit_5m_224", "tnt_s_legacy_patch16_224", "tresnet_m", "twins_pcpvt_small",
    "twins_svt_small", "vgg11", "visformer_tiny", "vit_relpos_small_patch16_rpn_224", "vit_tiny_patch16_224",
    "vit_tiny_r_s16_p8_224", "vitamin_small_224", "volo_d1_224",
    "xception41p", "xcit_nano_12_p8_224",
)  # fmt: skip
"""One small model of each of timm's modules, and of the architectures that share one."""

HUGE = 150_000_000
"""From so many parameters on a trial is traced only: no real pass is made, and it is counted apart."""

PLACES = int(os.environ.get("PLACES", "10"))
EVERY, FROM = int(os.environ.get("MODELS", "1")), int(os.environ.get("FROM", "0"))
WAYS = tuple(os.environ.get("WAYS", "adapt,propagate").split(","))
PROVE = os.environ.get("PROVE", "1") == "1"
KEPT = os.environ.get("KEPT")


class Stride(nn.Module):
    """Every other place of a map or token sequence whose channels come last."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Keep every other place: `[N, L, C]` -> `[N, L/2, C]`, `[N, H, W, C]` -> `[N, H/2, W/2, C]`."""
        return x[:, ::2] if x.dim() == 3 else x[:, ::2, ::2]


def zoo() -> Iterator[tuple[str, str]]:
    """Give source and name of every model."""
    names = [("torchvision", name) for name in models.list_models(module=models)]
    yield from ([*names, *(("timm", name) for name in TIMM)])[FROM::EVERY]


def _last(run: Trace, path: str) -> bool:
    """Tell whether the channels of what a place gives come last: vectors, tokens, maps made by linear layers."""
    (call,) = run.calls_of(path)
    rank = len(run.values[call.gave[0]].shape)
    if rank != 4:
        return True
    makers = ("conv2d", "batch_norm", "linear", "layer_norm", "rms_norm")
    for number in call.gave:
        for op in run.upstream(number):
            if op.name in makers and op.params:
                return op.name not in ("conv2d", "batch_norm")
    return False


def _sizes(run: Trace, path: str) -> tuple[bool, int, int]:
    """Say whether channels come last, and give the channels that arrive and leave."""
    (given, *_), (gave,) = run.given(path), run.gave(path)
    last = _last(run, path) or len(given.shape) != 4
    return last, given.shape[-1 if last else 1], gave.shape[-1 if last else 1]


def _layer(last: bool, given: int, out: int) -> nn.Module:
    return nn.Linear(given, out) if last else nn.Conv2d(given, out, 3, padding=1)


def wrong_channels(run: Trace, path: str) -> Edit:
    """Replace a module by one with wrong input and output channels."""
    last, given, out = _sizes(run, path)
    return tg.edits.kinds()["replace"].of(path, _layer(last, given + 3, out + 5))


def half_resolution(run: Trace, path: str) -> Edit:
    """Replace a module by one that halves the map or the sequence; a vector is left as long as it is."""
    last, given, out = _sizes(run, path)
    halve = nn.MaxPool2d(2) if not last else Stride() if len(run.given(path)[0].shape) > 2 else nn.Identity()
    return tg.edits.kinds()["replace"].of(path, nn.Sequential(_layer(last, given, out), halve))


def doubled_channels(run: Trace, path: str) -> Edit:
    """Insert a block that doubles the channels."""
    last, _, out = _sizes(run, path)
    if len(run.gave(path)[0].shape) == 4:
        last = _last(run, path)
    return tg.edits.kinds()["insert"].of(_layer(last, out, 2 * out), after=path)


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


def mended(g: tg.Graft, edit: Edit, way: str, image: torch.Tensor | None) -> str:
    """Try one edit: 'mended', 'traced only', 'refused' with a finding, or the name of a foreign exception."""
    count, expected = len(g.recipe.edits), g.trace().output_shapes()
    try:
        g.apply(edit, fix=way)
        if g.trace().output_shapes() != expected:
            return "wrong shape"
        outcome = "traced only" if image is None else _real(g.module, image)
        return f"{outcome}{PROJECTED}" if any(_projects(step) for step in g.recipe.edits[count + 1 :]) else outcome
    except EditError as error:
        return "refused" if error.findings else f"refused without a finding: {error.what}"
    except TorchgraftError as error:
        return f"refused without a finding: {error.what}"
    except Exception as error:
        return f"foreign: {type(error).__name__}: {str(error)[:200]}"
    finally:
        g.module.zero_grad()
        while len(g.recipe.edits) > count:
            g.undo()


def _projects(step: Edit) -> bool:
    return isinstance(step, Insert) and step.module.of == "block.Projection"


def _real(model: nn.Module, image: torch.Tensor) -> str:
    """Make one real forward and backward pass."""
    model.train().eval()  # LeViT and its kin keep their position biases, graph and all, until they are trained
    out = model(image)
    out.float().mean().backward()
    finite = all(p.grad is None or bool(torch.isfinite(p.grad).all()) for p in model.parameters())
    return "mended" if finite and bool(torch.isfinite(out).all()) else "not finite"


def built(source: str, name: str) -> tuple[tg.Graft, torch.Tensor | None]:
    """Build a model with random weights, and an image of the smallest size from 128 on that it takes."""
    torch.manual_seed(0)
    model, huge = _model(source, name)
    shape = getattr(model, "pretrained_cfg", {}).get("input_size") or (3, 224, 224)
    for size in (128, shape[-1], 299):
        image = torch.randn(2, shape[0], size, size)
        if not any(trace(model, image, train=train).mismatch for train in (False, True)):
            break
    return tg.load(model, input=tuple(image.shape[1:])), image if PROVE and not huge else None


def _model(source: str, name: str) -> tuple[nn.Module, bool]:
    """Build a model, a huge one without memory for its weights; say whether it is huge."""

    def build() -> nn.Module:
        made: nn.Module = _random(name) if source == "torchvision" else timm.create_model(name)
        return made.eval()

    try:
        with torch.device("meta"):
            bare = build()
    except (RuntimeError, NotImplementedError):  # some read values while they are built
        bare = build()
    huge = sum(p.numel() for p in bare.parameters()) > HUGE
    return bare if huge else build(), huge


PROJECTED = ", projected"
"""Marks what took a projection: adapt nearly always, propagate where something can't be resized."""

Outcome = tuple[str, str, str, str]
"""Way, kind of edit, place, what came out."""


def tried(source: str, name: str) -> list[Outcome]:
    """Try every way, kind and place of one model."""
    g, image = built(source, name)
    drawn = places(g, seed=1)
    found = []
    for way in WAYS:
        for kind, make in KINDS.items():
            for path in drawn:
                outcome = mended(g, make(g.trace(), path), way, image)
                found.append((way, kind, path, outcome))
                if outcome.removesuffix(PROJECTED) not in ("mended", "traced only"):
                    print(f"  {name} {path} ({g.trace().kinds[path]}) {way} {kind}: {outcome}", flush=True)
    return found


def _outcomes() -> Iterator[list[Outcome]]:
    """Give the outcomes of every model, kept ones first."""
    known: dict[str, list[Outcome]] = {}
    if KEPT and Path(KEPT).exists():
        known = dict(map(json.loads, Path(KEPT).read_text().splitlines()))
    for source, name in zoo():
        key, began = f"{source}:{name}", time.perf_counter()
        if key not in known:
            known[key] = tried(source, name)
            print(f"{key} {len(known[key])} trials in {time.perf_counter() - began:.0f} s", flush=True)
            if KEPT:
                with Path(KEPT).open("a") as file:
                    file.write(json.dumps([key, known[key]]) + "\n")
        yield known[key]


def run() -> str:
    """Count over all models and places."""
    counts = Counter((way, kind, outcome) for rows in _outcomes() for way, kind, _, outcome in rows)
    return table(
        ["way", "edit", "mended", "share", "by a projection", "traced only", "the rest"], list(_rows(counts))
    )


def _rows(counts: Counter[tuple[str, str, str]]) -> Iterator[tuple[str, ...]]:
    for way in WAYS:
        for kind in KINDS:
            mine = [(outcome, n) for (asked, edit, outcome), n in counts.items() if (asked, edit) == (way, kind)]
            projected = sum(n for outcome, n in mine if outcome.endswith(PROJECTED))
            some: Counter[str] = Counter()
            for outcome, n in mine:
                some[outcome.removesuffix(PROJECTED)[:40]] += n
            unproved = some.pop("traced only", 0)
            total, good = sum(some.values()), some.pop("mended", 0)
            share = f"{good / total:.1%}" if total else "–"
            rest = ", ".join(f"{outcome} {n}" for outcome, n in some.items())
            yield way, kind, f"{good} of {total}", share, str(projected), str(unproved), rest
