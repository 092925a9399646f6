"""What the processes of a test do: trainings one after the other, each from one line of JSON.

    python runs.py FOLDER JOBS.json          alone
    torchrun --nproc-per-node 2 runs.py …    as one of two
    python runs.py FOLDER JOBS.json 4        as four, forked: torch is imported once

Each job leaves NAME.json (figures) and NAME.safetensors (the final tensors) in the folder.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from tests.train.stripes import stripes
from torch import nn

import torchgraft as tg
from torchgraft.data.base import DataSet
from torchgraft.errors import TorchgraftError
from torchgraft.preprocess import Preprocess
from torchgraft.train.loop import fit
from torchgraft.train.many.joining import joined
from torchgraft.train.many.speaking import is_first, recorded
from torchgraft.train.saving import Saver
from torchgraft.train.watch import Watch
from torchgraft.trainplan import TrainPlan

DATA = DataSet(stripes(50, 0), stripes(13, 1), ("across", "down", "disc"), 1, (8, 8), "made for the test")
"""50 samples in batches of 16: the last has 2, so that of four processes two have none."""

PLAN = {
    "data": "stripes", "epochs": 2, "batch": 16, "keep": "last", "optimizer": {"sgd": {"lr": 0.05, "momentum": 0.9}}
}  # fmt: skip


class Block(nn.Module):
    def __init__(self, drop):
        super().__init__()
        self.norm, self.lin, self.drop = nn.LayerNorm(24), nn.Linear(24, 24), nn.Dropout(drop)

    def forward(self, x):
        return x + self.drop(torch.relu(self.lin(self.norm(x))))


class Net(nn.Module):
    def __init__(self, drop):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU())
        self.into = nn.Linear(36, 24)
        self.blocks = nn.ModuleList(Block(drop) for _ in range(3))
        self.fc = nn.Linear(24, 3)

    def forward(self, x):
        x = self.into(self.stem(x).flatten(1))
        for block in self.blocks:
            x = block(x)
        return self.fc(x)


def graft(kind):
    """Make a model: `still` has frozen BatchNorm, `moving` trains it and drops units."""
    torch.manual_seed(0)
    g = tg.load(Net(0.2 if kind == "moving" else 0.0), input=(1, 8, 8), seed=0)
    if kind == "still":
        g.freeze(at="stem")
    g.recipe = g.recipe.model_copy(
        update={"preprocess": Preprocess(size=(8, 8), channels=1, mean=(0.5,), std=(0.5,))}
    )
    return g


def run(job, folder, world):
    g = graft(job["kind"])
    plan = TrainPlan.model_validate({**PLAN, **job.get("plan", {})})
    losses, norms = [], []

    def step(now):
        losses.append(now.loss)
        norms.append(now.norm)
        if job.get("slow"):
            time.sleep(job["slow"])
        if [now.epoch, now.step] == job.get("stop"):
            signal.raise_signal(signal.SIGINT)

    states = job.get("states")
    saver = (
        Saver(folder / states, job.get("every", 1e9), world=world, shares=plan.parallel == "fsdp")
        if states
        else None
    )
    tell = Watch(step=step, begin=lambda _: print("began", os.getpid(), flush=True))
    history = fit(
        g,
        DATA,
        plan,
        g.recipe.preprocess,
        tell,
        saver=saver,
        resume=job.get("resume", False),
        world=world,
    )
    if world.writes:
        state = {name: one.detach().clone().contiguous() for name, one in g.module.state_dict().items()}
        save_file(state, folder / f"{job['name']}.safetensors")
        figures = {
            "losses": losses,
            "norms": norms,
            "ended": history.ended,
            "epochs": [e.model_dump(exclude={"seconds"}) for e in history.epochs],
        }
        (folder / f"{job['name']}.json").write_text(json.dumps(figures))


def main(folder, jobs):
    plan = TrainPlan(data="x", **json.loads(os.environ.get("PLAN", "{}")))
    try:
        with joined(plan) as world:
            (folder / f"pid-{world.rank}").write_text(str(os.getpid()))
            for job in jobs:
                run(job, folder, world)
    except TorchgraftError as error:
        recorded(error)
        if is_first(str(error)):
            print(f"TOLD {error}", file=sys.stderr, flush=True)
        sys.exit(2)


def forked(processes, *given):
    """Be several processes, set up as a launcher without a table of its own does it."""
    import torchgraft.train.many.shards
    import torchgraft.train.many.spread  # noqa: F401 - before the fork, so that it is done once

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(processes):
        child = os.fork()
        if child:
            children.append(child)
            continue
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(processes))
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        main(*given)
        return
    sys.exit(max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children))


if __name__ == "__main__":
    given = Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text())
    if len(sys.argv) > 3:
        forked(int(sys.argv[3]), *given)
    else:
        main(*given)
