"""Losses that fit the head, and figures that are scikit-learn's."""

from __future__ import annotations

import math
import threading

import numpy as np
import pytest
import sklearn.metrics as sk
import torch
from torch.nn import functional as F

from torchgraft.errors import TrainError
from torchgraft.probes.loss import AUXILIARY
from torchgraft.recipe import TrainPlan
from torchgraft.train.tasks import task_of
from torchgraft.train.world import World

KINDS = ("classes", "labels", "regression", "mask")


def plan(**settings):
    return TrainPlan.model_validate({"data": "sklearn:digits", **settings})


def drawn(kind, *, samples=60, count=4, seed=0):
    """Outputs and targets of one kind, with ties among the scores and a class that never occurs."""
    random = torch.Generator().manual_seed(seed)
    scores = torch.randn(samples, count, generator=random).mul(4).round().div(4)
    if kind == "classes":
        return scores, torch.randint(0, count - 1, (samples,), generator=random)
    if kind == "labels":
        return scores, (torch.rand(samples, count, generator=random) < 0.4).float()
    if kind == "regression":
        return scores * 30 + 100, torch.randn(samples, count, generator=random) * 40 + 90
    maps = torch.randn(samples, count, 6, 5, generator=random)
    masks = torch.randint(0, count, (samples, 6, 5), generator=random)
    masks[torch.rand(masks.shape, generator=random) < 0.2] = 255
    return maps, masks


def made(kind, *, count=4, **settings):
    return task_of(plan(**settings), {}, count, kind=kind)


def measured(task, outputs, targets, *, size=7, train=False):
    """Figures of a task, batch by batch."""
    meter = task.meter(train=train)
    for begin in range(0, len(targets), size):
        meter.add(outputs[begin : begin + size], targets[begin : begin + size])
    return meter.figures()


def expected(kind, outputs, targets):
    """The same by scikit-learn."""
    y = targets.numpy()
    if kind == "classes":
        guess = outputs.argmax(1).numpy()
        return {"accuracy": sk.accuracy_score(y, guess), "f1": sk.f1_score(y, guess, average="macro")}
    if kind == "labels":
        guess = (outputs > 0).numpy()
        return {
            "average_precision": sk.average_precision_score(y, outputs.numpy(), average="macro"),
            "f1": sk.f1_score(y, guess, average="macro"),
            "exact_match": sk.accuracy_score(y, guess),
        }
    if kind == "regression":
        guess = outputs.numpy().astype(np.float64)
        return {
            "rmse": sk.root_mean_squared_error(y, guess),
            "mae": sk.mean_absolute_error(y, guess),
            "r2": sk.r2_score(y, guess),
        }
    judged = y != 255
    truth, guess = y[judged], outputs.argmax(1).numpy()[judged]
    return {
        "mean_iou": sk.jaccard_score(truth, guess, average="macro"),
        "pixel_accuracy": sk.accuracy_score(truth, guess),
    }


@pytest.mark.parametrize("kind", KINDS)
def test_figures_are_scikit_learns(kind):
    outputs, targets = drawn(kind)
    assert measured(made(kind), outputs, targets) == pytest.approx(expected(kind, outputs, targets), rel=1e-6)


def test_the_five_likeliest_count_where_there_are_many_classes():
    scores = torch.randn(80, 20, generator=torch.Generator().manual_seed(1))
    targets = torch.arange(80) % 20
    figures = measured(made("classes", count=20), scores, targets)
    assert figures["top5"] == pytest.approx(sk.top_k_accuracy_score(targets, scores, k=5))
    assert "top5" not in made("classes", count=10).names


@pytest.mark.parametrize("kind", KINDS)
def test_a_task_has_the_figures_that_it_names_and_is_judged_by_the_first(kind):
    task = made(kind)
    figures = measured(task, *drawn(kind))
    assert (*figures, "loss") == task.names
    assert task.metric == next(iter(figures))
    assert task.judged(0.5, figures) == figures[task.metric]


@pytest.mark.parametrize("kind", KINDS)
def test_cheap_figures_are_among_the_others(kind):
    outputs, targets = drawn(kind)
    cheap, whole = measured(made(kind), outputs, targets, train=True), measured(made(kind), outputs, targets)
    assert cheap
    assert cheap.items() <= whole.items()


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_sums_of_a_meter_can_be_put_back_in_the_middle(kind, train):
    outputs, targets = drawn(kind)
    task = made(kind)
    half = task.meter(train=train)
    half.add(outputs[:31], targets[:31])
    again = task.meter(train=train)
    if not train and kind == "labels":
        return  # an evaluation is never interrupted in its middle
    for name, one in again.sums().items():
        one.copy_(half.sums()[name])
    again.add(outputs[31:], targets[31:])
    assert again.figures() == pytest.approx(measured(task, outputs, targets, train=train))


class Two(World):
    """Two processes, played one after the other: the sums of the first are added to those of the second."""

    def total(self, values):
        if self.rank == 0:
            TOTALS.append(values.clone())
            return values
        return values.add_(TOTALS.pop(0))


TOTALS: list[torch.Tensor] = []


@pytest.mark.parametrize("kind", ["classes", "regression", "mask"])
def test_processes_together_have_the_figures_of_one(kind):
    outputs, targets = drawn(kind)
    task = made(kind)
    for rank, part in enumerate((slice(0, 20), slice(20, None))):
        meter = task.meter()
        meter.add(outputs[part], targets[part])
        meter.gather(Two(rank, 2))
    assert meter.figures() == pytest.approx(measured(task, outputs, targets))


# losses


def test_the_loss_of_classes_is_smoothed_cross_entropy_in_full_precision():
    scores, targets = drawn("classes")
    loss = made("classes", label_smoothing=0.1).loss(scores.to(torch.bfloat16), targets)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, F.cross_entropy(scores.to(torch.bfloat16).float(), targets, label_smoothing=0.1))


def test_blended_targets_are_shares():
    scores, targets = drawn("classes")
    blended = 0.7 * F.one_hot(targets, 4).float() + 0.3 * F.one_hot(targets.flip(0), 4).float()
    task = made("classes")
    assert torch.equal(task.loss(scores, blended), F.cross_entropy(scores, blended))
    assert measured(task, scores, blended, train=True) == measured(task, scores, targets, train=True)


def test_auxiliary_outputs_count_with_their_weight():
    scores, targets = drawn("classes")
    other = scores.flip(1)
    task = made("classes")
    alone, aside = task.loss(scores, targets), task.loss(other, targets)
    for output in ((scores, other), {"out": scores, "aux": other}):
        torch.testing.assert_close(task.loss(output, targets), alone + AUXILIARY * aside)


def test_hidden_states_beside_scores_are_no_auxiliary_outputs():
    from transformers.modeling_outputs import SequenceClassifierOutput

    scores, targets = drawn("classes")
    output = SequenceClassifierOutput(logits=scores, hidden_states=(scores.flip(1),))
    assert torch.equal(made("classes").loss(output, targets), F.cross_entropy(scores, targets))
    assert torch.equal(made("classes").loss({"logits": scores, "seen": scores.flip(1)}, targets),
                       F.cross_entropy(scores, targets))  # fmt: skip


def weighed(kind, balance, **settings):
    return task_of(plan(class_weights="balanced", **settings), {}, len(balance), kind=kind, balance=balance)


def test_balanced_classes_weigh_as_scikit_learn_weighs_them():
    from sklearn.utils.class_weight import compute_class_weight

    targets = torch.tensor([0] * 6 + [1] * 3 + [2])
    scores = torch.randn(10, 3, generator=torch.Generator().manual_seed(2))
    weights = torch.tensor(compute_class_weight("balanced", classes=np.arange(3), y=targets.numpy()))
    each = F.cross_entropy(scores, targets, reduction="none")
    torch.testing.assert_close(
        weighed("classes", [6, 3, 1]).loss(scores, targets), (each * weights[targets]).mean().float()
    )


def test_outputs_that_no_class_has_weigh_one():
    scores = torch.randn(4, 5, generator=torch.Generator().manual_seed(2))
    loss = weighed("classes", [6, 3, 1]).loss(scores, torch.tensor([0, 1, 2, 2]))
    assert torch.isfinite(loss)


@pytest.mark.parametrize("kind", ["classes", "mask"])
def test_weighted_losses_of_parts_add_up_to_the_whole(kind):
    outputs, targets = drawn(kind)
    task = weighed(kind, [6, 3, 1, 2])
    parts = [task.loss(outputs[part], targets[part]) * share
             for part, share in ((slice(0, 20), 1 / 3), (slice(20, None), 2 / 3))]  # fmt: skip
    torch.testing.assert_close(sum(parts), task.loss(outputs, targets))


def test_balanced_labels_weigh_their_yes():
    scores, targets = drawn("labels")
    loss = weighed("labels", [0.5, 0.25, 0.1, 0.0]).loss(scores, targets)
    weights = torch.tensor([1.0, 3.0, 9.0, 1.0])
    torch.testing.assert_close(loss, F.binary_cross_entropy_with_logits(scores, targets, pos_weight=weights))


@pytest.mark.parametrize("shape", [(60,), (60, 1)])
def test_one_quantity_is_not_spread_over_the_batch(shape):
    scores, targets = drawn("regression", count=1)
    loss = made("regression", count=1).loss(scores.reshape(60, 1), targets.reshape(shape))
    torch.testing.assert_close(loss, F.mse_loss(scores, targets))


def test_quantities_of_other_units_count_alike():
    _, targets = drawn("regression", count=2)
    targets[:, 1] *= 1000
    spread = targets.std(0, unbiased=False)
    task = task_of(plan(), {}, 2, kind="regression", spread=spread.tolist())
    assert float(task.loss(targets.mean(0).expand(60, 2), targets)) == pytest.approx(1.0, rel=1e-5)


def test_pixels_of_255_are_in_no_loss():
    maps, masks = drawn("mask")
    changed = maps.masked_fill((masks == 255)[:, None], 7.0)
    task = made("mask")
    assert torch.equal(task.loss(maps, masks), task.loss(changed, masks))
    every = torch.where(masks == 255, 0, masks)
    torch.testing.assert_close(task.loss(maps, every), F.cross_entropy(maps, every))


def test_an_image_without_a_judged_pixel_costs_nothing():
    maps, masks = drawn("mask", samples=2)
    assert float(made("mask").loss(maps, torch.full_like(masks, 255))) == 0.0


def test_small_maps_are_brought_to_the_size_of_the_masks():
    maps, masks = drawn("mask")
    task = made("mask")
    large = F.interpolate(maps, (12, 10), mode="bilinear", align_corners=False)
    many = masks.repeat_interleave(2, 1).repeat_interleave(2, 2)
    assert torch.equal(task.loss(maps, many), task.loss(large, many))
    assert measured(task, maps, many) == measured(task, large, many)


def test_outputs_by_name_have_losses_and_figures_by_name():
    colour, size = drawn("classes"), drawn("regression", count=1)
    task = task_of(plan(), {"colour": "classes", "size": "regression"}, {"colour": 4, "size": 1})
    output = {"colour": colour[0], "size": size[0]}
    targets = {"colour": colour[1], "size": size[1]}
    whole = F.cross_entropy(*colour) + F.mse_loss(*size)
    torch.testing.assert_close(task.loss(output, targets), whole)
    meter = task.meter()
    meter.add(output, targets)
    assert meter.figures()["colour.accuracy"] == pytest.approx(expected("classes", *colour)["accuracy"])
    assert (task.metric, task.higher) == ("loss", False)
    assert {"loss", "colour.f1", "size.r2"} <= set(task.names)


# losses of another's


@pytest.mark.parametrize(
    ("kind", "name", "same"),
    [
        ("regression", "SmoothL1Loss", F.smooth_l1_loss),
        ("regression", "HuberLoss(delta=0.5)", lambda a, b: F.huber_loss(a, b, delta=0.5)),
        ("classes", "MultiMarginLoss", F.multi_margin_loss),
        ("classes", "MSELoss", lambda a, b: F.mse_loss(a, F.one_hot(b, 4).float())),
        ("classes", "BCEWithLogitsLoss",
         lambda a, b: F.binary_cross_entropy_with_logits(a, F.one_hot(b, 4).float())),
        ("labels", "MultiLabelSoftMarginLoss", F.multilabel_soft_margin_loss),
        ("mask", "CrossEntropyLoss(ignore_index=255)", lambda a, b: F.cross_entropy(a, b, ignore_index=255)),
    ],
)  # fmt: skip
def test_a_loss_of_torch_takes_the_place_of_the_tasks_own(kind, name, same):
    outputs, targets = drawn(kind)
    torch.testing.assert_close(made(kind, loss=name).loss(outputs, targets), same(outputs, targets))


def test_a_function_of_pythons_takes_it_too():
    scores, targets = drawn("classes")
    task = task_of(plan(loss="object:half"), {}, 4, loss=lambda out, y: F.cross_entropy(out, y) / 2)
    assert torch.equal(task.loss(scores, targets), F.cross_entropy(scores, targets) / 2)


@pytest.fixture
def mine(tmp_path, monkeypatch):
    (tmp_path / "mylosses.py").write_text(
        "from torch import nn\n"
        "def tenfold(scores, targets):\n    return 10 * nn.functional.cross_entropy(scores, targets)\n"
        "class Margin(nn.MultiMarginLoss):\n    pass\nanswer = 42\n"
    )
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("mine")
def test_a_function_of_ones_own_runs_where_it_is_trusted():
    scores, targets = drawn("classes")
    own = plan(loss="python:mylosses:tenfold")
    torch.testing.assert_close(
        task_of(own, {}, 4, trust=True).loss(scores, targets), 10 * F.cross_entropy(scores, targets)
    )
    with pytest.raises(TrainError, match=r"runs code of your own(.|\n)*--trust"):
        task_of(own, {}, 4)
    task_of(plan(loss="python:mylosses:Margin"), {}, 4, trust=True).loss(scores, targets)


@pytest.mark.usefixtures("mine")
@pytest.mark.parametrize(
    ("loss", "match"),
    [
        ("SmoothLoss", r"torch.nn has no loss 'SmoothLoss'(.|\n)*SmoothL1Loss"),
        ("HuberLoss(dleta=1)", r"HuberLoss does not take these settings"),
        ("CTCLoss", r"can't train by CTCLoss: it takes lengths as well"),
        ("__import__('os')", r"names no loss"),
        ("HuberLoss(delta=open)", r"names no loss"),
        ("object:fn", r"was an object of Python's"),
        ("python:mylosses:tenfodl", r"has no 'tenfodl'(.|\n)*tenfold"),
        ("python:nowhere:tenfold", r"can't be imported"),
        ("python:mylosses:answer", r"is a int, no function"),
    ],
)
def test_a_loss_that_is_none_is_told(loss, match):
    with pytest.raises(TrainError, match=match):
        task_of(plan(loss=loss), {}, 4, trust=True)


@pytest.mark.parametrize(
    ("loss", "match"),
    [
        ("MSELoss", r"MSELoss can't take outputs \[60, 4\] with targets \[60, 3\]"),
        (lambda out, y: out - y.sum(), r"gives a tensor \[60, 4\]"),
        (lambda out, y: 1.0, r"gives a float"),
        (lambda out, y: 1 / 0, r"can't take outputs \[60, 4\] with targets \[60, 3\]: division by zero"),
    ],
)
def test_a_loss_that_does_not_fit_says_so(loss, match):
    own = None if isinstance(loss, str) else loss
    task = task_of(plan(loss=loss if own is None else "object:fn"), {}, 4, kind="regression", loss=own)
    with pytest.raises(TrainError, match=match):
        task.loss(torch.randn(60, 4), torch.randn(60, 3))


# what states are judged by


def test_states_are_judged_by_the_figure_that_the_plan_names():
    task = made("classes", metric="f1")
    assert (task.metric, task.higher, task.judged(0.5, {"accuracy": 0.1, "f1": 0.2})) == ("f1", True, 0.2)
    task = made("labels", metric="loss")
    assert (task.metric, task.higher, task.judged(0.5, {})) == ("loss", False, 0.5)
    assert made("regression", metric="mae").higher is False
    assert made("regression", metric="r2").higher is True


def test_a_figure_that_there_is_not_names_those_that_there_are():
    with pytest.raises(TrainError, match=r"no figure 'acuracy'(.|\n)*accuracy, f1, loss"):
        made("classes", metric="acuracy")
    with pytest.raises(TrainError, match=r"no figure 'accuracy'(.|\n)*one of rmse, mae, r2, loss"):
        made("regression", metric="accuracy")


@pytest.mark.parametrize("weights", [(1.0, 2.0), "balanced"])
def test_weights_that_no_class_has_are_told(weights):
    with pytest.raises(TrainError, match=r"weights are given, and there are 4|how often each class occurs"):
        made("classes", class_weights=weights)


def test_answers_are_plain_lists():
    outputs, _ = drawn("classes", samples=2)
    assert sum(made("classes").answers(outputs)["probabilities"][0]) == pytest.approx(1.0)
    said = made("labels").answers(torch.tensor([[2.0, -2.0]]))
    assert said["labels"] == [[True, False]]
    assert made("regression", count=1).answers(torch.tensor([3.5, 1.0])) == {"values": [[3.5], [1.0]]}
    assert made("mask").answers({"out": torch.eye(2)[None, :, None]}) == {
        "mask": [[[0, 1]]], "areas": [[0.5, 0.5]],
    }  # fmt: skip


def test_nothing_seen_has_no_figures():
    for kind in KINDS:
        assert all(math.isnan(one) for one in made(kind).meter().figures().values())


def test_counting_in_training_takes_few_calls_and_reads_nothing():
    import sys

    scores, targets = drawn("classes")
    task = made("classes")
    meter = task.meter(train=True)
    calls = 0

    def count(frame, event, argument):
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    task.loss(scores, targets)
    meter.add(scores, targets)
    sys.setprofile(None)
    assert calls < 25


# figures of torchmetrics


@pytest.mark.parametrize(
    ("kind", "name", "figure", "same"),
    [
        ("classes", "CohenKappa", "cohen_kappa", lambda out, y: sk.cohen_kappa_score(y, out.argmax(1))),
        ("labels", "AUROC", "auroc", lambda out, y: sk.roc_auc_score(y, out)),
        ("regression", "ExplainedVariance", "explained_variance",
         lambda out, y: sk.explained_variance_score(y.double(), out.double())),
        ("mask", "JaccardIndex", "jaccard_index", lambda out, y: expected("mask", out, y)["mean_iou"]),
    ],
)  # fmt: skip
def test_states_may_be_judged_by_a_figure_of_torchmetrics(kind, name, figure, same):
    outputs, targets = drawn(kind)
    task = made(kind, metric=f"torchmetrics:{name}")
    figures = measured(task, outputs, targets)
    assert (task.metric, task.names[0], task.higher) == (figure, figure, True)
    assert figures[figure] == pytest.approx(float(same(outputs, targets)), rel=1e-5)
    assert figures.keys() == {figure, *made(kind).names} - {"loss"}
    assert torch.equal(task.loss(outputs, targets), made(kind).loss(outputs, targets))


def test_of_errors_of_torchmetrics_less_is_better():
    assert made("regression", metric="torchmetrics:MeanAbsolutePercentageError").higher is False


@pytest.mark.parametrize(
    ("kind", "metric", "match"),
    [
        ("classes", "torchmetrics:CohenKapa", r"torchmetrics has no 'CohenKapa'(.|\n)*CohenKappa"),
        ("regression", "torchmetrics:CohenKappa", r"CohenKappa is no figure of regression"),
        ("classes", "torchmetrics:MeanSquaredError", r"MeanSquaredError is no figure of classes"),
    ],
)
def test_a_figure_of_torchmetrics_that_does_not_fit_is_told(kind, metric, match):
    with pytest.raises(TrainError, match=match):
        made(kind, metric=metric)


class Linked(World):
    """A process played by a thread: sums wait for each other, as those of torch.distributed do."""

    def total(self, values):
        MET.wait()
        SHARED[self.rank] = values.clone()
        MET.wait()
        return values.copy_(sum(SHARED.values()))


MET, SHARED = threading.Barrier(2), {}


def test_processes_lay_the_scores_of_labels_together():
    outputs, targets = drawn("labels")
    task, found = made("labels"), {}

    def process(rank, part):
        meter = task.meter()
        meter.add(outputs[part], targets[part])
        meter.gather(Linked(rank, 2))
        found[rank] = meter.figures()

    threads = [threading.Thread(target=process, args=(rank, part))
               for rank, part in enumerate((slice(0, 23), slice(23, None)))]  # fmt: skip
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert found[0] == found[1] == pytest.approx(measured(task, outputs, targets))
