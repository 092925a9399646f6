"""Train, be stopped, go on: what the tests of resuming have in common."""

from __future__ import annotations

import signal
from pathlib import Path

import torch

from torchgraft.plan import prepared
from torchgraft.train.loop import fit
from torchgraft.train.saving import Saver
from torchgraft.train.watch import Watch

from .stripes import DATA, SETTINGS, graft


def trained(folder: Path | None = None, *, stop=None, at="step", resume: bool = False, every=1e9, **settings):
    """Train the stripes, stopped after so many batches (or epochs) of this run where it is said.

    Gives the graft, the history, and what was told of each batch (or epoch).
    """
    g = graft()
    if "unfreeze" in settings:
        g.freeze(all_but="fc")
    job = prepared(g, DATA, {**SETTINGS, "epochs": 4, **settings})
    seen = []

    def heard(news):
        seen.append(news)
        if len(seen) == stop:
            signal.raise_signal(signal.SIGINT)

    saver = Saver(folder, every) if folder is not None else None
    history = fit(job.graft, job.data, job.train, job.preprocess, Watch(**{at: heard}), saver=saver, resume=resume)
    return g, history, seen


def same(one, other) -> bool:
    """Tell whether two grafts hold the same tensors, bit for bit."""
    ours, theirs = one.module.state_dict(), other.module.state_dict()
    return all(torch.equal(ours[name], theirs[name]) for name in theirs)


def figures(history) -> list:
    return [(epoch.train_loss, epoch.val_loss, epoch.train, epoch.val, epoch.lr) for epoch in history.epochs]
