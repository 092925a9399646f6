from __future__ import annotations

import copy
import signal
from dataclasses import replace

import pytest
import torch
from tests.train.stripes import DATA, SETTINGS, graft
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

import torchgraft as tg
from torchgraft.errors import EditError, RecipeError, TorchgraftWarning, TrainError
from torchgraft.preprocess import Preprocess
from torchgraft.train.watch import Watch


def test_training_learns_and_gives_a_figure_for_each_epoch():
    g = graft()
    seen = []
    history = g.train(DATA, watch=Watch(epoch=seen.append), **SETTINGS)
    assert list(history.epochs) == seen
    assert len(seen) == 6
    assert seen[-1].train_loss < seen[0].train_loss
    assert history.epochs[history.best - 1].val_accuracy > 0.9
    assert history.ended == "finished"


def test_the_same_seed_gives_the_same_weights_bit_for_bit():
    first, again, other = graft(), graft(), graft(seed=1)
    for g in (first, again, other):
        torch.rand(3)
        g.train(DATA, augment="light", **SETTINGS)
    ours, theirs = first.module.state_dict(), again.module.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert not torch.equal(ours["fc.weight"], other.module.state_dict()["fc.weight"])


def test_training_leaves_torchs_generator_alone():
    torch.manual_seed(0)
    g = graft()
    state = torch.get_rng_state()
    g.train(DATA, **SETTINGS)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_frozen_part_does_not_move_at_all():
    g = graft()
    g.freeze(all_but="fc")
    before = {name: tensor.clone() for name, tensor in g.module.stem.state_dict().items()}
    g.train(DATA, **SETTINGS)
    assert all(torch.equal(tensor, before[name]) for name, tensor in g.module.stem.state_dict().items())


def test_the_best_or_the_last_state_is_held_at_the_end():
    for keep in ("best", "last"):
        states = []
        g = graft()
        watch = Watch(epoch=lambda _, of=g, into=states: into.append(copy.deepcopy(of.module.state_dict())))
        history = g.train(DATA, watch=watch, keep=keep, **{**SETTINGS, "optimizer": {"sgd": {"lr": 0.5}}})
        wanted = states[history.best - 1 if keep == "best" else -1]
        ours = g.module.state_dict()
        assert all(torch.equal(ours[name], tensor) for name, tensor in wanted.items())


def test_ctrl_c_ends_training_with_the_state_reached():
    g = graft()
    watch = Watch(step=lambda now: signal.raise_signal(signal.SIGINT) if (now.epoch, now.step) == (3, 2) else None)
    history = g.train(DATA, watch=watch, **SETTINGS)
    assert history.ended == "interrupted"
    assert [epoch.number for epoch in history.epochs] == [1, 2]
    assert not g.module.training


def test_a_loss_that_is_not_finite_stops_training_and_says_where():
    g = graft()
    with pytest.raises(
        TrainError, match=r"is (nan|inf|not finite) at epoch \d+, step \d+(.|\n)*lower the learning"
    ):
        g.train(DATA, epochs=3, batch=16, clip=None, optimizer={"sgd": {"lr": 1e30}})


def test_everything_frozen_can_not_be_trained():
    g = graft()
    g.freeze("**")
    with pytest.raises(TrainError, match="every parameter is frozen"):
        g.train(DATA, **SETTINGS)


def test_a_head_with_too_few_classes_is_refused_before_training():
    g = graft()
    g.head(2)
    with pytest.raises(EditError, match=r"the output has 2 classes, the data have 3"):
        g.train(DATA, **SETTINGS)


@pytest.mark.parametrize(
    ("settings", "error", "match"),
    [
        ({"optimizer": "adamm"}, TrainError, "did you mean adam"),
        ({"optimizer": {"sgd": {"learning": 1}}}, TrainError, "does not take these settings"),
        ({"device": "cuda:99"}, TrainError, "no device 'cuda:99' here"),
        ({"epoch": 3}, RecipeError, "did you mean train.epochs"),
        ({"epochs": "three"}, RecipeError, "a whole number is needed"),
    ],
)
def test_wrong_settings_are_told(settings, error, match):
    with pytest.raises(error, match=match):
        graft().train(DATA, **settings)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precision_trains(precision):
    g = graft()
    history = g.train(DATA, precision=precision, **SETTINGS)
    assert history.epochs[-1].train_accuracy > 0.9
    assert {p.dtype for p in g.module.parameters()} == {torch.float32}


def test_batches_read_by_worker_processes_give_the_same_weights():
    alone, helped = graft(), graft()
    alone.train(DATA, **{**SETTINGS, "epochs": 1})
    helped.train(DATA, workers=2, **{**SETTINGS, "epochs": 1})
    assert torch.equal(alone.module.fc.weight, helped.module.fc.weight)


class Plain(nn.Module):
    """No BatchNorm and no dropout: what a batch gives is the sum of what its samples give."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.ReLU())
        self.fc = nn.Linear(8 * 64, 3)

    def forward(self, x):
        return self.fc(self.stem(x).flatten(1))


def plain(**settings):
    torch.manual_seed(0)
    g = tg.load(Plain(), input=(1, 8, 8), seed=0)
    g.recipe = g.recipe.model_copy(update={"preprocess": Preprocess(size=(8, 8), channels=1)})
    steps = []
    g.train(DATA, watch=Watch(step=steps.append), keep="last", **settings)
    return g.module.state_dict(), len(steps)


@pytest.mark.parametrize(("batch", "accumulate", "whole"), [(8, 4, 32), (10, 2, 20), (7, 3, 21)])
def test_accumulated_batches_train_as_one_of_all_their_samples(batch, accumulate, whole):
    settings = {"epochs": 3, "optimizer": {"sgd": {"lr": 0.1, "momentum": 0.9}}, "clip": 0.5}
    ours, steps = plain(batch=batch, accumulate=accumulate, **settings)
    theirs, fewer = plain(batch=whole, **settings)
    assert steps > fewer
    assert all(torch.allclose(ours[name], theirs[name], rtol=0, atol=1e-6) for name in theirs)


def test_the_rate_that_is_told_is_the_largest_and_that_of_the_batch():
    seen = []
    groups = [{"at": "stem", "lr": 1e-4}, {"at": "fc", "lr": 0.2}]
    watch = Watch(step=lambda moment: seen.append(moment.lr))
    plan = {"groups": groups, "schedule": {"step": {"every": 1}}, "warmup": 0.0, "epochs": 2, "batch": 48}
    graft().train(DATA, watch=watch, **{**SETTINGS, **plan})
    assert seen == pytest.approx([0.2, 0.2, 0.02, 0.02])


def test_an_epoch_that_could_not_be_judged_is_never_the_best():
    worth = iter([float("nan"), 3.0, 2.0, 4.0])

    def loss(outputs, targets):
        real = nn.functional.cross_entropy(outputs, targets)
        return real if outputs.requires_grad else real * 0 + next(worth)

    plan = {"loss": loss, "metric": "loss", "batch": 96, "epochs": 4}
    assert graft().train(replace(DATA, val=DATA.train), **{**SETTINGS, **plan}).best == 3


def test_samples_that_could_not_be_read_are_named_in_the_history():
    class Torn:
        labels = DATA.train.labels

        def __len__(self):
            return len(self.labels)

        def __getitem__(self, index):
            if index == 77:
                raise OSError("torn")
            return DATA.train[index]

    with pytest.warns(TorchgraftWarning, match="torn"):
        history = graft().train(replace(DATA, train=Torn()), **{**SETTINGS, "epochs": 2})
    assert len(history.skipped) == 1
    assert "torn" in history.skipped[0]


def test_a_loader_of_unknown_length_trains_with_groups_longer_than_its_epoch():
    class Endless(IterableDataset):
        def __iter__(self):
            for number in range(20):
                yield torch.randn(1, 8, 8), number % 3

    seen = []
    halves = (DataLoader(Endless(), batch_size=8), DataLoader(Endless(), batch_size=8))
    watch = Watch(step=lambda moment: seen.append(moment.number))
    history = graft().train(halves, steps=2, accumulate=4, watch=watch)
    assert seen == [0, 0, 1, 1, 1, 2]
    assert len(history.epochs) == 2


def test_of_two_epochs_that_are_alike_the_one_with_the_lower_loss_is_the_best():
    history = graft().train(DATA, **{**SETTINGS, "epochs": 8, "optimizer": {"adamw": {"lr": 3e-3}}})
    figures = [(epoch.val_accuracy, -epoch.val_loss) for epoch in history.epochs]
    assert len({accuracy for accuracy, _ in figures}) < len(figures)
    assert history.best == 1 + figures.index(max(figures))
