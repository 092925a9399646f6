"""The memory of training: predicted on fake tensors beside measured with real ones, and what predicting costs."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

import torchgraft as tg
from benchmarks.measure import table
from torchgraft.memory.measure import allocated, measured
from torchgraft.memory.predict import Case, predicted
from torchgraft.recipe import TrainPlan

TITLE = "Peak memory of training, predicted and measured: MiB of tensors alive; 224×224 images, 128 tokens"

SGD = {"sgd": {"lr": 0.1, "momentum": 0.9}}
ADAMW = {"adamw": {"lr": 1e-3}}
BATCH = 2


def _bert() -> nn.Module:
    from transformers import BertConfig, BertForSequenceClassification

    return BertForSequenceClassification(BertConfig())


def _decoder() -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(vocab_size=8000, n_positions=256, n_embd=384, n_layer=6, n_head=6))


def _tokens(words: int, *, mask: bool) -> dict[str, torch.Tensor]:
    ids = torch.randint(0, words, (BATCH, 128))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)} if mask else {"input_ids": ids}


def _images() -> tuple[torch.Tensor]:
    return (torch.randn(BATCH, 3, 224, 224),)


MODELS: dict[str, tuple[Any, Callable[[], Any], str]] = {
    "resnet50": ("torchvision:resnet50@none", _images, "layer[1234].*"),
    "vit_b_16": ("torchvision:vit_b_16@none", _images, "encoder.layers.*"),
    "swin_t": ("torchvision:swin_t@none", _images, "features[1::2].*"),
    "convnext_tiny": ("torchvision:convnext_tiny@none", _images, "features[1::2].*"),
    "BERT-base": (_bert, lambda: _tokens(30000, mask=True), "bert.encoder.layer.*"),
    "decoder, 6 layers": (_decoder, lambda: _tokens(8000, mask=False), "transformer.h.*"),
}
"""Where each comes from, its batch, and its blocks."""

WAYS: dict[str, tuple[dict[str, Any], bool]] = {
    "SGD": ({"optimizer": SGD}, False),
    "AdamW": ({"optimizer": ADAMW}, False),
    "AdamW, bf16": ({"optimizer": ADAMW, "precision": "bf16"}, False),
    "SGD, 2 batches a step": ({"optimizer": SGD, "accumulate": 2}, False),
    "SGD, checkpointing": ({"optimizer": SGD}, False),
    "SGD, head alone": ({"optimizer": SGD}, True),
    "AdamW, bf16, head alone": ({"optimizer": ADAMW, "precision": "bf16"}, True),
}
"""Settings of the plan, and whether all but the head is frozen."""


def run() -> str:
    """Predict and measure every model in every way, one after the other."""
    return table(
        ["model", "way", "predicted", "measured", "error", "CPU s to predict", "CPU s to measure"], list(_rows())
    ) + (_cuda() if torch.cuda.is_available() else "")


def _rows() -> Iterator[tuple[str, ...]]:
    for name in MODELS:
        for way, (settings, frozen) in WAYS.items():
            graft, batch, plan = _set_up(name, settings, way, frozen=frozen)
            ours, quick = _timed(lambda graft=graft, plan=plan: predicted(graft, Case(plan)).peak())
            theirs, slow = _timed(lambda g=graft, p=plan, b=batch: measured(g, p, b).peak())
            error = f"{(ours - theirs) / theirs:+.2%}"
            yield (name, way, _mib(ours), _mib(theirs), error, f"{quick:.2f}", f"{slow:.2f}")
            gc.collect()


def _set_up(name: str, settings: dict[str, Any], way: str, *, frozen: bool) -> tuple[tg.Graft, Any, TrainPlan]:
    source, batches, blocks = MODELS[name]
    batch = batches()
    torch.manual_seed(0)
    graft = tg.load(source) if isinstance(source, str) else tg.load(source(), input=batch)
    if frozen:
        graft.freeze(all_but=["head"])
    again = {"checkpointing": blocks} if "checkpointing" in way else {}
    return graft, batch, TrainPlan.model_validate({"data": "none", "batch": BATCH, **settings, **again})


def _timed(job: Callable[[], int]) -> tuple[int, float]:
    start = time.process_time()
    return job(), time.process_time() - start


def _mib(size: int) -> str:
    return f"{size / 2**20:,.1f}"


def allocator() -> str:
    """Hold the counter's measurement against torch's own record of what its CPU allocator gave out.

    That record sees workspaces inside of kernels too, which no counter of tensors does.
    """
    rows = []
    for name in MODELS:
        graft, batch, plan = _set_up(name, {"optimizer": SGD}, "SGD", frozen=False)
        standing = sum(one.nbytes for one in (*graft.module.parameters(), *graft.module.buffers()))
        ours = measured(graft, plan, batch).peak()
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
            measured(graft, plan, batch)
        rows.append((name, _mib(ours), _mib(_peak_of(seen)), f"of which {_mib(standing)} weights"))
    return table(["model", "counter", "allocator", ""], rows)


def _peak_of(seen: Any) -> int:
    now = most = 0
    for event in seen.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return int(most)


def _cuda() -> str:
    """Hold predictions against `torch.cuda.max_memory_allocated` on the first CUDA device.

    The model is predicted as it stands on the device, so that kernels are chosen as they are there.
    """
    rows = []
    device = torch.device("cuda:0")
    for name in MODELS:
        for way, (settings, frozen) in WAYS.items():
            graft, batch, plan = _set_up(name, settings, way, frozen=frozen)
            ours = predicted(graft, Case(plan, accelerated=True)).peak()
            theirs = allocated(graft, plan, batch, device)
            rows.append((name, way, _mib(ours), _mib(theirs), f"{(ours - theirs) / theirs:+.1%}"))
            gc.collect()
            torch.cuda.empty_cache()
    return "\n\n" + table(["model", "way", "predicted", "max_memory_allocated", "error"], rows)
