"""What is predicted on fake tensors is what real ones take."""

from __future__ import annotations

import pytest
import torch
from tests.memory.models import ADAMW, BLOCKS, MAKERS, SGD, batch, made, plan
from tests.net import Net
from tests.train.stripes import DATA
from tests.train.stripes import graft as striped
from torch import nn

import torchgraft as tg
from torchgraft.errors import EditError, SelectionError, TrainError
from torchgraft.memory.counter import Counter
from torchgraft.memory.course import summed
from torchgraft.memory.measure import measured
from torchgraft.memory.predict import Case, predicted, predicted_peak

WAYS = {
    "sgd": {"optimizer": SGD},
    "adamw": {"optimizer": ADAMW},
    "bf16": {"optimizer": ADAMW, "precision": "bf16"},
    "accumulated": {"optimizer": SGD, "accumulate": 3},
    "checkpointed": {"optimizer": SGD},
}


def near(ours, theirs, share=0.1):
    return abs(ours - theirs) <= share * theirs


CASES = [
    *[("resnet", way, False) for way in ("sgd", "adamw", "accumulated", "checkpointed")],
    *[("vit", way, False) for way in ("sgd", "bf16")],
    *[("bert", way, False) for way in ("adamw", "checkpointed")],
    *[("decoder", way, False) for way in ("bf16", "accumulated")],
    *[("resnet", "sgd", True), ("vit", "adamw", True), ("decoder", "checkpointed", True)],
]


@pytest.mark.parametrize(("name", "way", "frozen"), CASES)
def test_the_prediction_is_within_a_tenth_of_the_measurement(name, way, frozen):
    graft = made(name, frozen=frozen)
    settings = WAYS[way] | ({"checkpointing": BLOCKS[name]} if way == "checkpointed" else {})
    asked = plan(**settings)
    ours, theirs = predicted(graft, Case(asked)), measured(graft, asked, batch(name, 4))
    assert near(ours.peak(), theirs.peak())
    assert near(ours.peak(1), theirs.peak(1))
    assert ours.moment().phase == theirs.moment().phase
    for kind, size in summed(theirs.at_peak(), "what").items():
        assert abs(summed(ours.at_peak(), "what").get(kind, 0) - size) <= 0.1 * theirs.peak()


def test_the_training_loop_itself_takes_what_is_predicted():
    settings = {"batch": 32, "optimizer": ADAMW, "epochs": 2}
    ours = predicted(striped(), Case(plan(**settings))).peak()
    trained, counter = striped(), Counter()
    counter.name(trained.module.parameters(), "weights")
    with counter:
        trained.train(DATA, keep="last", **settings)
    counter.stop()
    now, most = 0, 0
    for event in counter.events:
        now += event.sign * event.block.size
        most = max(most, now)
    assert near(ours, most, 0.15)  # the loop also holds images that are read, and judges the validation set


@pytest.mark.parametrize(("name", "accumulate"), [("resnet", 1), ("decoder", 2)])
def test_a_second_prediction_that_knows_the_optimizer_gives_the_same_peak(name, accumulate):
    graft = made(name)
    known = predicted(graft, Case(plan(optimizer=ADAMW)))
    asked = Case(plan(optimizer=ADAMW, batch=64, accumulate=accumulate))
    assert near(predicted_peak(graft, asked, known), predicted(graft, asked).peak(), 0.01)


def test_the_model_is_as_it_was(snapshot):
    graft = made("resnet")
    graft.module.train()
    before, state = snapshot(graft.module), torch.get_rng_state()
    predicted(graft, Case(plan(checkpointing=BLOCKS["resnet"], augment="light")))
    assert snapshot(graft.module) == before
    assert torch.equal(torch.get_rng_state(), state)
    assert all(one.grad is None for one in graft.module.parameters())


def test_the_model_is_as_it_was_after_a_step_that_breaks_off(snapshot):
    graft = made("resnet")
    before = snapshot(graft.module)

    def loss(output):
        raise ValueError("no such loss")

    with pytest.raises(TrainError, match="loss pass breaks off: ValueError: no such loss"):
        predicted(graft, Case(plan(), loss=loss))
    assert snapshot(graft.module) == before


def test_a_frozen_base_keeps_no_activations():
    whole, head = (
        summed(predicted(made("vit", frozen=one), Case(plan())).kept(), "path") for one in (False, True)
    )
    assert any(path.startswith("encoder.layers") for path in whole)
    assert sum(head.values()) < 0.05 * sum(whole.values())


def test_what_is_checkpointed_keeps_its_inputs_alone():
    plain = sum(one.size for one in predicted(made("decoder"), Case(plan())).kept())
    again = predicted(made("decoder"), Case(plan(checkpointing="transformer.h.*")))
    assert sum(one.size for one in again.kept()) < 0.6 * plain
    assert any(one.again for one in (event.block for event in again.events))


def test_the_batch_costs_the_same_to_predict_however_large():
    graft = made("vit")
    small, large = (predicted(graft, Case(plan(batch=size))) for size in (4, 10_000))
    assert len(large.events) == len(small.events)
    assert 2000 < sum(b.size for b in large.kept()) / sum(b.size for b in small.kept()) < 2600


def test_a_model_on_meta_is_predicted_as_one_with_weights():
    with torch.device("meta"):
        bare = MAKERS["resnet"]()
    ours = predicted(tg.load(bare, input=(3, 32, 32)), Case(plan())).peak()
    assert ours == predicted(made("resnet"), Case(plan())).peak()


def test_tied_weights_count_once():
    graft = made("decoder")
    course = predicted(graft, Case(plan()))
    real = sum(one.numel() * 4 for one in graft.module.parameters())
    assert summed(course.at_peak(), "what")["weights"] == real


def test_what_is_unfrozen_on_the_way_is_counted():
    graft = made("resnet", frozen=True)
    later = plan(unfreeze={"epoch": 2, "at": "layer4"}, epochs=3, optimizer=ADAMW)
    assert predicted(graft, Case(later)).peak() > predicted(graft, Case(plan(optimizer=ADAMW))).peak()


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (nn.Sequential(nn.Conv2d(3, 5, 3, padding=1)), "cross-entropy of pixels"),
        (nn.Sequential(nn.Flatten(), nn.Linear(192, 5)), "cross-entropy of classes"),
        (nn.Sequential(nn.Flatten(), nn.Linear(192, 1)), "mean of squares"),
        (Net(lambda net, x: {"loss": net.a(x).sum()}, a=nn.Conv2d(3, 1, 1)), "the model's own loss"),
    ],
)
def test_the_loss_is_chosen_by_the_output(module, words):
    case = Case(plan())
    predicted(tg.load(module, input=(3, 8, 8)), case)
    assert words in case.words[0]


def test_every_output_takes_part_in_the_loss():
    module = Net(
        lambda net, x: {"boxes": net.box(x.flatten(1)), "logits": net.names(x.flatten(1))},
        names=nn.Linear(192, 3),
        box=nn.Linear(192, 4),
    )
    found = tg.load(module, input=(3, 8, 8)).memory(help=False, optimizer={"adamw": {"lr": 0.1}})
    for one in found.modules:
        assert one.gradients == one.weights
        assert one.optimizer >= 2 * one.weights
    said = dict(found.facts)["loss:"]
    assert said == "the sum over the outputs: the mean of squares (boxes), cross-entropy of classes (logits)"


def test_boxes_and_hidden_states_are_no_scores_whatever_their_shape():
    module = Net(
        lambda net, x: {"last_hidden": net.a(x.flatten(1)), "logits": net.b(x.flatten(1))},
        a=nn.Linear(192, 4),
        b=nn.Linear(192, 4),
    )
    said = dict(tg.load(module, input=(3, 8, 8)).memory(help=False).facts)["loss:"]
    assert "the mean of squares (last_hidden), cross-entropy of classes (logits)" in said


def test_a_loss_of_ones_own_is_given_targets_of_the_batch():
    seen = []

    def loss(output, targets):
        seen.append(targets.shape)
        return nn.functional.mse_loss(output, targets)

    module = nn.Sequential(nn.Flatten(), nn.Linear(192, 5))
    predicted(tg.load(module, input=(3, 8, 8)), Case(plan(batch=9), loss=loss, targets=torch.zeros(2, 5)))
    assert set(seen) == {(9, 5)}


def test_on_a_gpu_dropout_keeps_bytes():
    module = nn.Sequential(nn.Flatten(), nn.Linear(192, 4096), nn.Dropout(0.5), nn.Linear(4096, 5))
    graft = tg.load(module, input=(3, 8, 8))
    sizes = [sum(b.size for b in predicted(graft, Case(plan(), accelerated=one)).kept()) for one in (False, True)]
    assert sizes[0] - sizes[1] == pytest.approx(4 * 4096 * 3, rel=0.1)  # fp32 against bytes, 4 samples


def test_what_is_checkpointed_finds_the_kernels_of_a_gpu_again():
    graft = made("decoder")  # with dropout, in attention too
    plain, again = (
        predicted(graft, Case(plan(checkpointing=one), accelerated=True)) for one in ((), BLOCKS["decoder"])
    )
    assert sum(one.size for one in again.kept()) < 0.7 * sum(one.size for one in plain.kept())


# what can't be predicted


def test_a_model_that_does_not_run_gives_its_finding():
    graft = tg.load(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(5, 6, 3)), input=(3, 9, 9))
    with pytest.raises(EditError, match="S001") as refused:
        predicted(graft, Case(plan()))
    assert refused.value.findings


def test_where_all_is_frozen_nothing_is_trained():
    graft = made("resnet")
    graft.module.requires_grad_(False)
    with pytest.raises(TrainError, match="every parameter is frozen"):
        predicted(graft, Case(plan()))


def test_a_flow_that_depends_on_values_is_told():
    module = Net(lambda net, x: net.a(x) if x.sum().item() > 0 else -net.a(x), a=nn.Linear(4, 2))
    with pytest.raises((TrainError, EditError), match=r"value|run"):
        predicted(tg.load(module, input=(4,)), Case(plan()))


def test_a_selector_of_checkpointing_that_matches_nothing_is_told():
    with pytest.raises(SelectionError, match="layerr"):
        predicted(made("resnet"), Case(plan(checkpointing="layerr")))
