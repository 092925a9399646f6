from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torchvision import models

from torchgraft.weights.plan import plan

MODEL = models.resnet18(weights=None)
STATE = MODEL.state_dict()


class Around(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = models.resnet18(weights=None)
        self.extra = nn.Linear(3, 3)


@given(
    st.lists(
        st.sampled_from(["module", "_orig_mod", "model", "backbone", "encoder", "net"]), min_size=1, max_size=4
    )
)
def test_any_nest_of_prefixes_is_taken_off(parts):
    prefix = "".join(f"{part}." for part in parts)
    found = plan(MODEL, {prefix + name: one for name, one in STATE.items()})
    assert found.taken == {name: prefix + name for name in STATE}
    assert (found.direct, found.complete) == (0, True)


@pytest.mark.parametrize(
    ("rename", "said"),
    [
        (lambda name: name.replace("layer1.", "layer1._orig_mod."), "24 names with '_orig_mod.' too much"),
        (lambda name: f"backbone.{name}" if "layer" in name else name, "114 names with 'backbone.' too much"),
        (lambda name: name.replace("fc.", "classifier."), "2 names by order and size"),
        (lambda name: f"tensor{list(STATE).index(name)}", "122 names by order and size"),
    ],
)
def test_names_that_differ_in_part_or_altogether_find_their_place(rename, said):
    found = plan(MODEL, {rename(name): one for name, one in STATE.items()})
    assert found.taken == {name: rename(name) for name in STATE}
    assert found.changes()[0].startswith(said)


@pytest.mark.parametrize("prefix", ["", "encoder.", "module."])
def test_a_backbone_goes_into_a_larger_model(prefix):
    found = plan(Around(), {prefix + name: one for name, one in STATE.items()})
    assert (len(found.taken), found.missing) == (122, ("extra.weight", "extra.bias"))


def test_a_sequential_of_the_children_takes_what_the_network_calls_otherwise():
    children = nn.Sequential(*list(models.resnet18(weights=None).children())[:-1])
    found = plan(children, STATE)
    assert found.needed == ()
    assert found.taken["0.weight"] == "conv1.weight"
    assert found.taken["7.1.bn2.running_var"] == "layer4.1.bn2.running_var"
    assert found.surplus == ("fc.weight", "fc.bias")


def test_transposed_weights_are_told():
    (misfit,) = plan(nn.Linear(4, 6), {"weight": torch.zeros(4, 6), "bias": torch.zeros(6)}).misfits
    assert misfit.kind == "transposed"


def test_weights_go_into_a_model_that_is_wrapped():
    assert plan(nn.DataParallel(MODEL), STATE).complete


def test_a_single_layer_is_found_too():
    layer = nn.Linear(2, 2)
    assert plan(layer, {f"module.{name}": one for name, one in layer.state_dict().items()}).complete


def test_weights_of_another_model_are_known_as_such():
    assert plan(MODEL, models.densenet121(weights=None).state_dict()).is_other
    assert not plan(MODEL, {name: STATE[name] for name in ("fc.weight", "fc.bias")}).is_other


def test_deeper_models_leave_tensors_over_and_shallower_ones_lack_some():
    deeper = models.resnet34(weights=None)
    assert len(plan(MODEL, deeper.state_dict()).surplus) == 80
    assert len(plan(deeper, STATE).missing) == 96


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda model: setattr(model, "fc", nn.Linear(512, 10)), "rows"),
        (lambda model: setattr(model, "conv1", nn.Conv2d(4, 64, 7, bias=False)), "channels"),
        (lambda model: setattr(model.layer2[0], "conv1", nn.Conv2d(64, 128, 5, bias=False)), "other"),
    ],
)
def test_misfits_are_told_apart_by_their_sizes(change, kind):
    model = models.resnet18(weights=None)
    change(model)
    assert {one.kind for one in plan(model, STATE).misfits} == {kind}


def test_one_name_of_a_tied_parameter_is_enough():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    state = {name: one for name, one in model.state_dict().items() if name != "1.weight"}
    assert plan(model, state).missing == ()


def test_a_counter_of_batches_is_not_missed():
    state = {name: one for name, one in STATE.items() if "num_batches" not in name}
    assert plan(MODEL, state).complete


def test_a_layer_whose_sizes_are_open_takes_any():
    state = nn.Linear(7, 2).state_dict()
    assert set(plan(nn.LazyLinear(2), state).taken) == {"weight", "bias"}


def test_no_prefix_is_made_up_where_few_names_agree():
    found = plan(nn.Sequential(nn.Linear(3, 3)), {"a.b.weight": torch.zeros(9, 9), "c.bias": torch.zeros(4)})
    assert found.taken == {}
