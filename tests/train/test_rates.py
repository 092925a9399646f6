from __future__ import annotations

import pytest
import torch
from torch import nn

import torchgraft as tg
from torchgraft.errors import RecipeError, TrainError
from torchgraft.preprocess import Preprocess
from torchgraft.recipe import Recipe, TrainPlan
from torchgraft.train.rates import groups_of, unfreezing
from torchgraft.train.watch import Watch

from .test_loop import DATA


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.middle = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.fc = nn.Linear(8 * 64, 3)

    def forward(self, x):
        return self.fc(self.middle(self.stem(x)).flatten(1))


def graft():
    torch.manual_seed(0)
    g = tg.load(Tiny(), input=(1, 8, 8))
    update = {"preprocess": Preprocess(size=(8, 8), channels=1, mean=(0.5,), std=(0.5,))}
    g.recipe = g.recipe.model_copy(update=update)
    return g


def followed(g, **settings):
    """Train, and say after each epoch which tensors moved in it."""
    before = {name: tensor.clone() for name, tensor in g.module.state_dict().items()}
    moved = []

    def look(_):
        state = g.module.state_dict()
        moved.append({n.partition(".")[0] for n, t in state.items() if not torch.equal(t, before[n])})
        before.update({n: t.clone() for n, t in state.items()})

    g.train(
        DATA, watch=Watch(epoch=look), keep="last", batch=16, **{"optimizer": {"adamw": {"lr": 1e-2}}, **settings}
    )
    return moved


STEPS = [{"epoch": 2, "at": "middle", "lr": 1e-3}, {"epoch": 4, "at": "**"}]


def test_each_part_moves_from_its_epoch_on_and_its_batchnorm_too():
    g = graft().freeze(all_but="fc")
    assert followed(g, epochs=5, unfreeze=STEPS) == [
        {"fc"},
        {"fc", "middle"},
        {"fc", "middle"},
        {"fc", "middle", "stem"},
        {"fc", "middle", "stem"},
    ]
    assert int(g.module.stem[1].num_batches_tracked) == 2 * 6
    assert int(g.module.middle[1].num_batches_tracked) == 4 * 6


def test_layer_by_layer_starts_with_the_head_alone_and_needs_no_freeze():
    moved = followed(graft(), epochs=3, unfreeze={"every": 1, "from": "head"})
    assert moved == [{"fc"}, {"fc", "middle"}, {"fc", "middle", "stem"}]


def test_afterwards_the_flags_are_as_the_edits_left_them():
    g = graft().freeze(all_but="fc")
    followed(g, epochs=5, unfreeze=STEPS)
    assert [name for name, one in g.module.named_parameters() if one.requires_grad] == ["fc.weight", "fc.bias"]
    free = graft()
    followed(free, epochs=2, unfreeze={"every": 1})
    assert all(one.requires_grad for one in free.module.parameters())


def test_the_same_recipe_gives_the_same_weights_bit_for_bit():
    first, again = graft().freeze(all_but="fc"), graft().freeze(all_but="fc")
    for g in (first, again):
        followed(g, epochs=4, unfreeze=STEPS, layer_decay=0.8)
    ours, theirs = first.module.state_dict(), again.module.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_unfreezing_makes_a_difference_only_from_its_epoch_on():
    frozen, later = graft().freeze(all_but="fc"), graft().freeze(all_but="fc")
    weights = {}
    for name, g, steps in (("frozen", frozen, []), ("later", later, STEPS)):
        weights[name] = []
        watch = Watch(epoch=lambda _, of=g, into=weights[name]: into.append(of.module.fc.weight.detach().clone()))
        g.train(DATA, watch=watch, keep="last", epochs=4, batch=16, unfreeze=steps)
    assert torch.equal(weights["frozen"][0], weights["later"][0])
    assert not torch.equal(weights["frozen"][-1], weights["later"][-1])


def test_the_new_groups_have_their_own_rate_on_the_schedule_of_all():
    g = graft().freeze(all_but="fc")
    rates = []
    plan = TrainPlan(data="x", unfreeze=STEPS, optimizer={"adamw": {"lr": 1e-2, "weight_decay": 0.1}}, epochs=5)
    steps = unfreezing(g, plan)
    assert [(step.epoch, step.lr) for step in steps] == [(2, 1e-3), (4, None)]
    g.unfreeze("middle")
    for group in groups_of(g, plan, steps[:1]):
        rates += [(name, group["lr"], group["weight_decay"]) for name in group["names"]]
    assert sorted(rates) == [
        ("fc.bias", 1e-2, 0),
        ("fc.weight", 1e-2, 0.1),
        ("middle.0.bias", 1e-3, 0),
        ("middle.0.weight", 1e-3, 0.1),
        ("middle.1.bias", 1e-3, 0),
        ("middle.1.weight", 1e-3, 0),
    ]


@pytest.mark.parametrize(
    ("steps", "match"),
    [
        ([{"epoch": 9, "at": "stem"}], "epoch 9 is never reached: the training has 5"),
        ([{"epoch": 2, "at": "fc"}], "fc is trainable before epoch 2 already"),
        ([{"epoch": 2, "at": "stem"}, {"every": 1}], "'every' stands alone"),
        ([{"epoch": 2, "at": "stem"}, {"epoch": 2, "at": "middle"}], "two steps name one epoch"),
    ],
)
def test_steps_that_can_not_be_are_told_before_training(steps, match):
    g = graft().freeze(all_but="fc")
    with pytest.raises(TrainError, match=match):
        g.train(DATA, epochs=5, unfreeze=steps)


@pytest.mark.parametrize(
    "step", [{}, {"epoch": 2}, {"at": "fc"}, {"epoch": 2, "at": "fc", "every": 1}, {"epoch": 1, "at": "x"}]
)
def test_a_step_without_an_epoch_or_a_place_is_no_step(step):
    with pytest.raises(RecipeError):
        graft().train(DATA, epochs=5, unfreeze=[step])


def test_the_plan_is_read_from_yaml_and_written_again():
    text = (
        "base: resnet18@none\n"
        "train:\n"
        "  data: folder:x\n"
        "  layer_decay: 0.75\n"
        "  no_decay: [biases]\n"
        "  groups: [{at: [layer4, not norms], lr: 0.01, betas: [0.8, 0.9]}]\n"
        "  unfreeze: {every: 2, from: [head, layer4]}\n"
    )
    plan = Recipe.from_yaml(text).train
    assert plan.groups[0].settings() == {"lr": 0.01, "betas": (0.8, 0.9)}
    assert plan.unfreeze[0].sentence() == (
        "head, layer4 alone at first, then one more layer every 2 epochs, the last first"
    )
    assert Recipe.from_yaml(Recipe.from_yaml(text).to_yaml()).train == plan


def test_a_misspelt_setting_of_a_group_is_told_with_its_line():
    text = "base: resnet18\ntrain:\n  data: x\n  groups:\n  - {at: head, bettas: [0.9, 0.9]}\n"
    with pytest.raises(RecipeError, match="did you mean betas") as refused:
        Recipe.from_yaml(text, name="r.yaml")
    assert refused.value.where == "r.yaml:5"


def test_the_decay_that_an_optimizer_has_by_itself_spares_norms_too():
    g = graft()
    found = {
        name: group["weight_decay"]
        for group in groups_of(g, TrainPlan(data="x", optimizer={"adamw": {"lr": 1e-3}}))
        for name in group["names"]
    }
    assert {name for name, decay in found.items() if decay} == {"stem.0.weight", "middle.0.weight", "fc.weight"}
    spared = groups_of(g, TrainPlan(data="x", optimizer={"adamw": {"lr": 1e-3}}, no_decay=[]))
    assert [group["weight_decay"] for group in spared] == [0.01]


def test_an_optimizer_without_a_decay_gets_none():
    (group,) = groups_of(graft(), TrainPlan(data="x", optimizer={"rprop": {"lr": 1e-3}}))
    assert "weight_decay" not in group


def test_the_plan_says_in_words_what_is_unfrozen_and_how_rates_fall():
    from torchgraft.plan import Talk, plan

    heard = []
    plan(
        "bundled:glyphs",
        "sklearn:digits",
        settings={"train.unfreeze": {"every": 1, "from": "head"}, "train.layer_decay": 0.75, "train.epochs": 3},
        talk=Talk(say=lambda *words: heard.append(words)),
    )
    assert ("rates", "fall by 0.75 from each layer to the one before it") in heard
    assert ("unfreeze", "head alone at first, then one more layer every epoch, the last first") in heard


def test_where_steps_say_how_long_it_is_they_say_which_epoch_is_reached():
    g = graft()
    g.freeze(all_but="fc")
    plan = {"batch": 32, "steps": 36, "unfreeze": {"epoch": 11, "at": "middle"}}  # 3 batches an epoch
    assert len(g.train(DATA, **plan).epochs) == 12
    with pytest.raises(TrainError, match="epoch 11 is never reached: the training has 4"):
        g.train(DATA, **{**plan, "steps": 12})
