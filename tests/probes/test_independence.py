from __future__ import annotations

import torch
from torch import nn

from torchgraft.probes.batch import Batch
from torchgraft.probes.double import Double
from torchgraft.probes.evaluation import evaluation
from torchgraft.probes.independence import independence


def seen(model, *inputs):
    double, batch = Double(model), Batch(inputs)
    return independence(double, batch, evaluation(double, batch))


def test_a_plain_network_keeps_its_samples_apart():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten())
    assert seen(model, torch.randn(4, 3, 8, 8)).mixed == 0


def test_a_batch_of_one_tells_nothing():
    assert seen(nn.Linear(3, 2), torch.randn(1, 3)) is None


def test_samples_that_are_all_the_same_show_it_too():
    model = nn.Sequential(nn.BatchNorm1d(3, track_running_stats=False))
    assert seen(model, torch.ones(4, 3)).mixed > 0


def test_ids_are_exchanged_not_invented():
    model = nn.Sequential(nn.Embedding(7, 3), nn.Flatten())
    assert seen(model, torch.randint(0, 7, (4, 5))).mixed == 0


def test_a_module_deep_inside_is_named():
    class Mixes(nn.Module):
        def forward(self, x):
            return x - x.mean(0, keepdim=True)

    model = nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.ReLU(), Mixes()), nn.Linear(3, 2))
    shown = seen(model, torch.randn(4, 3))
    assert (shown.place.path, shown.place.op) == ("1.1", "sub")


def test_rows_that_are_not_samples_are_counted():
    class Folds(nn.Module):
        def forward(self, x):
            return x.view(-1, 2)

    assert seen(Folds(), torch.randn(4, 6)).rows == 12
