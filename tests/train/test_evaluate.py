"""What an evaluation says of each kind of task is what scikit-learn says of the same outputs."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics as sk
import torch
from torch import nn

from torchgraft.data.base import ListSamples
from torchgraft.errors import DataError, TorchgraftWarning
from torchgraft.history import Epoch, Evaluation
from torchgraft.recipe import TrainPlan
from torchgraft.train.evaluate import evaluate
from torchgraft.train.feed import feed_of
from torchgraft.train.tasks import task_of

PLAN = TrainPlan(data="sklearn:digits", batch=7)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def judged(kind, outputs, targets, names):
    """Judge a model that gives what it is given."""
    task = task_of(PLAN, {}, names, kind=kind)
    feed = feed_of(ListSamples(list(outputs), targets), PLAN, prepare=lambda one: one, train=False, seed=0)
    return evaluate(nn.Identity(), feed, task, names)


def test_classes_have_a_confusion_and_every_sample_its_confidence():
    scores = drawn(40, 3)
    targets = [number % 3 for number in range(40)]
    found = judged("classes", scores, targets, ("a", "b", "c"))
    guesses = scores.argmax(1).tolist()
    assert (found.task, found.count, found.indices) == ("classes", 40, tuple(range(40)))
    assert found.confusion == tuple(map(tuple, sk.confusion_matrix(targets, guesses).tolist()))
    assert found.predictions == tuple(guesses)
    assert found.targets == tuple(targets)
    assert found.confidence == pytest.approx(scores.softmax(1).amax(1).tolist(), abs=1e-6)
    assert found.figures["accuracy"] == found.accuracy == sk.accuracy_score(targets, guesses)
    assert found.loss == pytest.approx(sk.log_loss(targets, scores.double().softmax(1).numpy()), rel=1e-5)


def test_outputs_that_no_class_of_the_data_has_are_named_and_counted():
    found = judged("classes", torch.eye(4)[[0, 3, 1]], [0, 1, 1], ("a", "b"))
    assert found.classes == ("a", "b", "(class 2)", "(class 3)")
    assert found.confusion[1] == (0, 1, 0, 1)
    assert found.figures["f1"] == pytest.approx(sk.f1_score([0, 1, 1], [0, 3, 1], labels=[0, 1], average="macro"))


def test_each_label_has_its_figures():
    scores, truth = drawn(50, 3), (drawn(50, 3, seed=1) > 0.4).int()
    found = judged("labels", scores, [tuple(row) for row in truth.tolist()], ("x", "y", "z"))
    y, guess = truth.numpy(), (scores > 0).numpy()
    for name, values in {
        "average_precision": sk.average_precision_score(y, scores.numpy(), average=None),
        "precision": sk.precision_score(y, guess, average=None),
        "recall": sk.recall_score(y, guess, average=None),
        "f1": sk.f1_score(y, guess, average=None),
        "samples": y.sum(0),
    }.items():
        assert [one[name] for one in found.each] == pytest.approx(values)
    assert found.main == "average_precision"
    assert found.confusion == ()


def test_each_quantity_has_its_figures_and_every_sample_its_pair():
    outputs, truth = drawn(30, 2) * 5, drawn(30, 2, seed=1) * 5
    found = judged("regression", outputs, [tuple(row) for row in truth.tolist()], ("width", "height"))
    np.testing.assert_allclose(found.guesses, outputs.numpy(), rtol=1e-6)
    np.testing.assert_allclose(found.truths, truth.numpy(), rtol=1e-6)
    np.testing.assert_allclose(
        [one["r2"] for one in found.each], sk.r2_score(truth, outputs, multioutput="raw_values"), rtol=1e-5
    )
    assert found.each[1]["highest"] == pytest.approx(float(truth[:, 1].max()))


class Masked:
    labels = ()

    def __init__(self, maps, masks):
        self.maps, self.masks = maps, masks

    def __len__(self):
        return len(self.maps)

    def __getitem__(self, index):
        return self.maps[index], self.masks[index]


def test_masks_have_an_overlap_a_class_and_the_worst_are_kept():
    masks = torch.randint(0, 3, (12, 5, 4), generator=torch.Generator().manual_seed(3)).to(torch.uint8)
    maps = nn.functional.one_hot(masks.long(), 3).movedim(-1, 1).float()
    maps[5] = maps[5].roll(1, 0)  # nothing right
    maps[8, :, :2] = maps[8, :, :2].roll(1, 0)
    masks[0, 0] = 255
    task = task_of(PLAN, {}, ("ground", "ball", "box"), kind="mask")
    feed = feed_of(Masked(maps, masks), PLAN, prepare=lambda image, mask: (image, mask), train=False, seed=0,
                   paired=True)  # fmt: skip
    found = evaluate(nn.Identity(), feed, task, ("ground", "ball", "box"))
    judged_pixels = masks != 255
    truth, guess = masks[judged_pixels].numpy(), maps.argmax(1)[judged_pixels].numpy()
    assert [one["iou"] for one in found.each] == pytest.approx(sk.jaccard_score(truth, guess, average=None))
    assert sum(one["share"] for one in found.each) == pytest.approx(1.0)
    assert [one.index for one in found.masks][:2] == [5, 8]
    worst = found.masks[0]
    assert (worst.iou, worst.size) == (0.0, (5, 4))
    assert np.frombuffer(worst.truth, np.uint8).reshape(5, 4).tolist() == masks[5].tolist()


class Torn:
    """The third sample can't be read."""

    labels = (0, 1, 0, 1)

    def __len__(self):
        return 4

    def __getitem__(self, index):
        if index == 2:
            raise DataError("torn", where=str(index))
        return torch.eye(2)[self.labels[index]], self.labels[index]


def test_samples_that_can_not_be_read_are_not_judged_and_the_others_keep_their_numbers():
    feed = feed_of(Torn(), PLAN, prepare=lambda one: one, train=False, seed=0)
    with pytest.warns(TorchgraftWarning, match="torn"):
        found = evaluate(nn.Identity(), feed, task_of(PLAN, {}, 2), ("a", "b"))
    assert (found.count, found.indices, found.accuracy) == (3, (0, 1, 3), 1.0)


def test_outputs_by_name_have_figures_by_name():
    class Both(nn.Module):
        def forward(self, x):
            return {"kind": x[:, :3], "size": x[:, 3:]}

    class Pairs:
        labels = ()

        def __len__(self):
            return 10

        def __getitem__(self, index):
            return OUTPUTS[index], {"kind": index % 3, "size": float(index)}

    task = task_of(PLAN, {"kind": "classes", "size": "regression"}, {"kind": 3, "size": 1})
    collated = torch.utils.data.DataLoader(Pairs(), batch_size=4)
    found = evaluate(Both(), feed_of(collated, PLAN, prepare=lambda one: one, train=False, seed=0), task, ())
    assert found.task == "several"
    assert found.main == "kind.accuracy"
    assert found.figures["size.mae"] == pytest.approx(
        sk.mean_absolute_error(range(10), OUTPUTS[:, 3].numpy()), rel=1e-6
    )


OUTPUTS = drawn(10, 4)


def test_no_sample_at_all_is_told():
    feed = feed_of(ListSamples([], []), PLAN, prepare=lambda one: one, train=False, seed=0)
    with pytest.raises(DataError, match="no sample to judge by"):
        evaluate(nn.Identity(), feed, task_of(PLAN, {}, 2), ("a", "b"))


def test_what_was_written_when_there_was_accuracy_alone_is_still_read():
    old = {"number": 1, "train_loss": 1.0, "train_accuracy": 0.25, "val_loss": 2.0, "val_accuracy": 0.5, "lr": 0.1,
           "seconds": 1.0}  # fmt: skip
    epoch = Epoch.model_validate(old)
    assert (epoch.train, epoch.val, epoch.val_accuracy) == ({"accuracy": 0.25}, {"accuracy": 0.5}, 0.5)
    assert Epoch.model_validate(epoch.model_dump()) == epoch
    found = Evaluation(classes=("a",), accuracy=1.0, loss=0.1, confusion=((2,),), targets=(0, 0))
    assert (found.figures, found.count, found.main) == ({"accuracy": 1.0}, 2, "accuracy")
