"""Whole trainings on feeds of every kind, stopped and gone on with."""

from __future__ import annotations

import signal
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from torchgraft.data import Stream
from torchgraft.plan import prepared
from torchgraft.train.draws import generator
from torchgraft.train.loop import fit
from torchgraft.train.saving import Saver
from torchgraft.train.watch import Watch

from .resuming import figures, same
from .stripes import DATA, SETTINGS, graft


class Varied(Dataset):
    """The stripes as a user's own data set of tensors, which brightens them at random."""

    def __init__(self, samples):
        self.samples = samples

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        image = torch.from_numpy(self.samples.images[index])[None].float() / 255
        return image * (0.8 + 0.4 * torch.rand(())), self.samples.labels[index]


class Streamed(Stream):
    """The stripes one after the other, in another order each epoch."""

    def __init__(self, samples):
        self.inner, self.length = samples, len(samples)

    def pending(self, epoch, seed, *, start=0):
        for place in torch.randperm(self.length, generator=generator("here", seed, epoch)).tolist()[start:]:
            yield partial(self.inner.__getitem__, place)


def loaders():
    return DataLoader(Varied(DATA.train), 16, shuffle=True), DataLoader(Varied(DATA.val), 16)


KINDS = {
    "a loader of one's own": (loaders, {}),
    "a set that varies itself": (lambda: (Varied(DATA.train), Varied(DATA.val)), {"workers": 1}),
    "a stream": (lambda: replace(DATA, train=Streamed(DATA.train)), {"augment": "light", "workers": 1}),
    "views": (lambda: DATA, {"views": 2, "augment": [{"RandomRotation": {"degrees": 5}}]}),
}


def trained(kind, folder, *, stop=None, resume=False):
    made, settings = KINDS[kind]
    job = prepared(graft(), made(), {**SETTINGS, "epochs": 2, **settings})
    seen = []

    def step(moment):
        seen.append(moment)
        if len(seen) == stop:
            signal.raise_signal(signal.SIGINT)

    saver = Saver(folder, 1e9)
    history = fit(job.graft, job.data, job.train, job.preprocess, Watch(step=step), saver=saver, resume=resume)
    return job.graft, history


@pytest.mark.parametrize("kind", KINDS)
def test_stopped_in_the_second_epoch_it_goes_on_exactly(kind, tmp_path):
    whole, told = trained(kind, tmp_path / "a")
    _, broken = trained(kind, tmp_path / "b", stop=8)
    assert broken.ended == "interrupted"
    rest, history = trained(kind, tmp_path / "b", resume=True)
    assert same(rest, whole)
    assert figures(history) == figures(told)
