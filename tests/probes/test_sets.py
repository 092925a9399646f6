from __future__ import annotations

import copy
import time

import torch
from torch import nn
from torchvision import models

from torchgraft.probes.sets import sets


def body_and_head() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))


def test_parameters_are_sorted_by_their_flag():
    model = body_and_head()
    model[0].requires_grad_(False)
    found = sets(model)
    assert (found.trainable, found.frozen) == (("1.weight", "1.bias"), ("0.weight", "0.bias"))


def test_an_optimizer_is_compared_by_identity_and_not_by_size():
    model = body_and_head()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    assert sets(model, optimizer).held.absent == ()
    other = sets(copy.deepcopy(model), optimizer).held
    assert (len(other.stale), len(other.absent)) == (4, 4)


def test_several_optimizers_count_together():
    model = body_and_head()
    both = [torch.optim.SGD(layer.parameters(), lr=0.1) for layer in model]
    held = sets(model, both).held
    assert (held.absent, held.twice, len(held.groups)) == ((), (), 2)


def test_a_parameter_that_two_optimizers_hold_is_there_twice():
    model = body_and_head()
    both = [torch.optim.SGD(model.parameters(), lr=0.1), torch.optim.Adam(model[1].parameters())]
    assert sets(model, both).held.twice == ("1.weight", "1.bias")


def test_a_state_of_another_size_is_noted():
    model = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.randn(3, 4)).sum().backward()
    optimizer.step()
    model.weight.data = torch.zeros(5, 4)
    assert sets(model, optimizer).held.misshapen == ("weight",)


def test_tied_parameters_have_all_their_names():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    assert sets(model).tied == (("0.weight", "1.weight"),)


class Holder:
    def __init__(self) -> None:
        self.layer = nn.Linear(2, 2)


class Hiding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.known = nn.Linear(2, 2)
        self.again = [self.known]
        self.layers = {"a": (nn.Linear(2, 2),)}
        self.weights = [nn.Parameter(torch.ones(2))]
        self.holder = Holder()
        self.call = nn.Linear(2, 2).forward
        self.scale = torch.ones(2)
        self.acts = [nn.ReLU()]
        self.sizes = (1, 2)
        self.mask = torch.ones(2, dtype=torch.bool)
        layer = nn.Linear(2, 2)
        self.later = lambda x: layer(x)


def test_what_a_model_hides_is_found_in_containers_objects_and_functions():
    found = {one.place: (one.what, one.count) for one in sets(Hiding()).hidden}
    assert found == {
        "layers['a'][0]": ("module", 6),
        "weights[0]": ("parameter", 2),
        "holder.layer": ("module", 6),
        "call": ("module", 6),
        "scale": ("tensor", 2),
        "later": ("module", 6),
    }


def test_weights_that_are_computed_from_registered_ones_are_not_hidden():
    assert sets(nn.Sequential(nn.utils.weight_norm(nn.Linear(2, 2)))).hidden == ()
    assert sets(nn.utils.spectral_norm(nn.Linear(2, 2))).hidden == ()
    assert sets(nn.LSTM(2, 2)).hidden == ()


def test_things_that_hold_each_other_end():
    model = nn.Linear(2, 2)
    one: list[object] = []
    one.append(one)
    model.loop = {"self": one, "model": model}
    assert sets(model).hidden == ()


def test_nothing_is_changed(snapshot):
    model = models.resnet18(weights=None)
    optimizer = torch.optim.AdamW(model.parameters())
    before, state = snapshot(model), copy.deepcopy(optimizer.state_dict())
    random = torch.get_rng_state()
    sets(model, optimizer)
    assert snapshot(model) == before
    assert optimizer.state_dict() == state
    assert torch.equal(torch.get_rng_state(), random)


def test_it_takes_milliseconds():
    model = models.resnet152(weights=None)
    times = []
    for _ in range(5):
        start = time.process_time()
        sets(model)
        times.append(time.process_time() - start)
    assert min(times) < 0.03  # about 5 ms on a quiet machine
