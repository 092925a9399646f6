from __future__ import annotations

import torch
from torch import nn
from torchvision import models

from torchgraft.probes.roundtrip import roundtrip


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("measured", torch.ones(2), persistent=False)


class Forgetful(nn.Linear):
    """Drops its bias on the way out, and does not miss it on the way in."""

    def state_dict(self, *args, **kwargs):
        return {name: one for name, one in super().state_dict(*args, **kwargs).items() if "bias" not in name}

    def load_state_dict(self, state, strict=True, assign=False):
        return super().load_state_dict(state, strict=False)


class Stateful(nn.Linear):
    def get_extra_state(self):
        return Tied()

    def set_extra_state(self, state):
        pass


def test_a_plain_model_comes_back_and_is_not_touched(snapshot):
    model = models.resnet18(weights=None)
    before, random = snapshot(model), torch.get_rng_state()
    trip = roundtrip(model)
    assert (trip.ran, trip.changed, trip.failure) == (True, (), "")
    assert snapshot(model) == before
    assert torch.equal(torch.get_rng_state(), random)


def test_ties_survive_and_what_no_file_holds_is_named():
    trip = roundtrip(Tied())
    assert (trip.shared, trip.parted) == ((("embed.weight", "head.weight"),), ())
    assert trip.lost == ("measured",)


def test_what_a_state_dict_leaves_out_is_seen():
    assert roundtrip(Forgetful(2, 2)).changed == ("bias",)


def test_objects_that_are_no_data_stop_the_trip():
    trip = roundtrip(Stateful(2, 2))
    assert trip.objects == ("_extra_state",)
    assert "no plain data" in trip.failure


def test_without_a_real_trip_nothing_is_saved():
    assert roundtrip(Stateful(2, 2), real=False).failure == ""


def test_values_that_are_not_numbers_come_back():
    model = nn.Linear(2, 2)
    with torch.no_grad():
        model.weight[0, 0] = float("nan")
    assert roundtrip(model).changed == ()
