"""Trainings killed outright at random moments and gone on with: is a state lost or torn, are the ends equal?"""

from __future__ import annotations

import importlib
import os
import random
import signal
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

import torch

import torchgraft as tg
from torchgraft.errors import TorchgraftError
from torchgraft.plan import Planned, planned
from torchgraft.recipe import Recipe
from torchgraft.train.loop import fit
from torchgraft.train.saving import Saver
from torchgraft.train.watch import Watch

TITLE = "Soak: SIGKILL at random moments of training and saving"

KILLS = int(os.environ.get("KILLS", "200"))

RECIPE = """
base: bundled:glyphs
edits: [{head: {classes: 10}}]
train:
  data: sklearn:digits
  epochs: 6
  batch: 32
  per_class: 20
  augment: light
  ema: 0.95
  optimizer: {adamw: {lr: 1.0e-3, weight_decay: 0.01}}
"""


def run() -> str:
    torch.set_num_threads(1)
    names = ("kills", "while saving", "torn", "lost", "trainings", "unequal")
    rng, tally = random.Random(0), dict.fromkeys(names, 0)
    _job()
    importlib.import_module("torch._dynamo")  # torchvision's transforms load it: not anew in every process
    with tempfile.TemporaryDirectory() as place:
        straight = _undisturbed(Path(place) / "straight")
        while tally["kills"] < KILLS:
            tally["trainings"] += 1
            end = _survive(Path(place) / str(tally["trainings"]), rng, tally)
            tally["unequal"] += not all(torch.equal(end[name], one) for name, one in straight.items())
    return (
        f"One training of {Recipe.from_yaml(RECIPE).train.epochs} epochs on digits (AdamW, moving average, light "
        "augmentation), a state saved after every step, the process killed after a random time, gone on with "
        "until it ends, again and again. `while saving`: kills that found a file half written.\n\n"
        "| kills | while saving | torn states | lost states | trainings ended | of them not bit-equal |\n"
        "| --- | --- | --- | --- | --- | --- |\n"
        f"| {' | '.join(str(tally[name]) for name in names)} |\n"
    )


@cache
def _job() -> Planned:
    """Plan once, before the processes fork: each finds the model as it was then."""
    return planned(tg.Recipe.from_yaml(RECIPE))


def _train(folder: Path, *, every: float) -> dict[str, torch.Tensor]:
    """Train to the end, from the state that there is."""
    job = _job()
    saver = Saver(folder, every)
    resume = saver.state.exists()
    watch = Watch(begin=lambda _: folder.with_suffix(".begun").touch())
    fit(job.graft, job.data, job.train, job.preprocess, watch, saver=saver, resume=resume)
    return {name: one.clone() for name, one in job.graft.module.state_dict().items()}


def _undisturbed(folder: Path) -> dict[str, torch.Tensor]:
    """Train in a process of its own: one that has run a backward pass can't be forked any more."""
    child = os.fork()
    if child == 0:
        _in_child(folder, folder.with_suffix(".pt"), every=1e9)
    os.waitpid(child, 0)
    return torch.load(folder.with_suffix(".pt"), weights_only=True)


def _survive(folder: Path, rng: random.Random, tally: dict[str, int]) -> dict[str, torch.Tensor]:
    """Train in processes that are killed until one gets to the end; forked, so that none imports torch anew."""
    had, end, begun = False, folder.with_suffix(".pt"), folder.with_suffix(".begun")
    while not end.exists():
        begun.unlink(missing_ok=True)
        child = os.fork()
        if child == 0:
            _in_child(folder, end)
        while not begun.exists() and not end.exists():
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 1.5))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            tally["kills"] += 1
        elif os.WEXITSTATUS(status):
            raise RuntimeError("a training failed: see above")
        tally["while saving"] += any(folder.glob(".*.tmp"))
        found = _whole(folder)
        tally["torn"] += found is False
        tally["lost"] += had and found is None
        print(tally, file=sys.stderr)
        had = had or found is True
    return torch.load(end, weights_only=True)


def _in_child(folder: Path, end: Path, *, every: float = 0.0) -> None:
    try:
        state = _train(folder, every=every)
        torch.save(state, end.with_suffix(".part"))
        end.with_suffix(".part").replace(end)
        os._exit(0)
    except BaseException as error:
        print(repr(error), file=sys.stderr)
        os._exit(1)


def _whole(folder: Path) -> bool | None:
    """Tell whether the state on the disk is whole; None where there is none."""
    saver = Saver(folder, 0.0)
    if not saver.state.exists():
        return None
    try:
        snapshot, best = saver.load()
    except TorchgraftError:
        return False
    return bool(best) == bool(snapshot.notes["best"])
