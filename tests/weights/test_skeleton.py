"""Models without memory for their parameters, and tensors that go straight into their places."""

from __future__ import annotations

import copy
import threading
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision import models

from torchgraft.weights.skeleton import emptied, on_meta, parameters_on_meta, place, placing, straight


class Tied(nn.Module):
    """Ties of every sort, a table that is computed, a frozen parameter, a recurrent layer with its own list."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.out = nn.Embedding(5, 4), nn.Linear(4, 5, bias=False)
        self.out.weight = self.words.weight
        shared = nn.Parameter(torch.ones(3))
        self.one, self.two = nn.Module(), nn.Module()
        self.one.scale, self.two.scale = shared, shared
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)
        self.recurrent, self.norm = nn.LSTM(4, 4), nn.BatchNorm1d(3)
        self.register_buffer("table", torch.arange(3.0), persistent=False)


def same(one: nn.Module, other: nn.Module) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return list(ours) == list(theirs) and all(torch.equal(ours[name], theirs[name]) for name in ours)


def skeleton(build):
    with parameters_on_meta():
        return build()


def test_parameters_lie_on_meta_and_buffers_are_real():
    made = skeleton(Tied)
    assert all(one.is_meta for one in made.parameters())
    assert torch.equal(made.table, torch.arange(3.0))
    assert torch.equal(made.norm.running_var, torch.ones(3))


def test_what_is_tied_stays_tied_before_and_after_its_weights_come():
    made = skeleton(Tied)
    for _ in range(2):
        assert made.out.weight is made.words.weight
        assert made.one.scale is made.two.scale
        place(made, Tied().state_dict(), copy=True)
    assert not on_meta(made)


def test_flags_types_and_lists_of_layers_are_those_of_the_model():
    made, given = skeleton(Tied), Tied()
    place(
        made, {name: one.half() for name, one in given.state_dict().items() if one.is_floating_point()}, copy=True
    )
    assert not made.frozen.requires_grad
    assert made.words.weight.requires_grad
    assert {one.dtype for one in made.parameters()} == {torch.float32}
    assert made.recurrent._flat_weights[0] is made.recurrent.weight_ih_l0
    assert made.recurrent(torch.zeros(2, 1, 4))[0].shape == (2, 1, 4)


def test_attributes_of_a_parameter_stay():
    made = skeleton(lambda: nn.Linear(2, 2))
    made.weight.no_decay = True
    place(made, nn.Linear(2, 2).state_dict(), copy=True)
    assert made.weight.no_decay


def test_nothing_of_a_skeleton_is_left_in_other_modules_or_threads():
    usual, draw = nn.Module.register_parameter, nn.init.kaiming_uniform_
    elsewhere = []
    with parameters_on_meta():
        thread = threading.Thread(target=lambda: elsewhere.append(nn.Linear(2, 2)))
        thread.start()
        thread.join()
    assert not on_meta(elsewhere[0])
    assert elsewhere[0].weight.std() > 0
    assert (nn.Module.register_parameter, nn.init.kaiming_uniform_) == (usual, draw)
    assert not on_meta(nn.Linear(2, 2))


def test_a_failure_while_building_leaves_no_trace():
    usual = nn.Module.register_parameter
    with pytest.raises(ZeroDivisionError), parameters_on_meta():
        nn.Linear(1 // 0, 2)
    assert nn.Module.register_parameter is usual


def test_training_in_place_does_not_reach_the_file(tmp_path: Path):
    path = tmp_path / "w.safetensors"
    given = nn.Linear(64, 64)
    save_file(given.state_dict(), path)
    before = path.read_bytes()
    made = skeleton(lambda: nn.Linear(64, 64))
    place(made, load_file(path))
    made(torch.randn(3, 64)).sum().backward()
    torch.optim.SGD(made.parameters(), lr=0.5).step()
    assert not torch.equal(made.weight, given.weight)
    assert path.read_bytes() == before


def test_tensors_of_a_file_that_share_memory_do_not_share_it_in_the_model(tmp_path: Path):
    one = torch.ones(3, 3)
    torch.save(
        {"0.weight": one, "1.weight": one, "0.bias": torch.zeros(100)[:3], "1.bias": torch.zeros(3)},
        tmp_path / "w.pt",
    )
    state = torch.load(tmp_path / "w.pt", mmap=True, weights_only=True)
    made = skeleton(lambda: nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)))
    place(made, state)
    made[0].weight.data.add_(1)
    assert torch.equal(made[1].weight, torch.ones(3, 3))
    assert made[0].bias.untyped_storage().nbytes() == 12


def test_the_order_in_memory_is_that_of_the_model():
    made = skeleton(lambda: nn.Conv2d(3, 8, 3))
    place(
        made,
        {
            name: one.to(memory_format=torch.channels_last) if one.dim() == 4 else one
            for name, one in nn.Conv2d(3, 8, 3).state_dict().items()
        },
    )
    assert made.weight.is_contiguous()
    wide = nn.Conv2d(3, 8, 3).to(memory_format=torch.channels_last)
    place(emptied(wide), nn.Conv2d(3, 8, 3).state_dict(), copy=True)
    assert wide.weight.is_contiguous(memory_format=torch.channels_last)


def test_what_belongs_to_another_model_is_copied_when_asked():
    other = nn.Linear(3, 3)
    made = skeleton(lambda: nn.Linear(3, 3))
    place(made, other.state_dict(), copy=True)
    made.weight.data.zero_()
    assert other.weight.abs().sum() > 0


def test_a_placed_model_can_be_copied_and_saved(tmp_path: Path):
    made = skeleton(Tied)
    place(made, Tied().state_dict(), copy=True)
    again = copy.deepcopy(made)
    assert again.out.weight is again.words.weight
    torch.save(made.state_dict(), tmp_path / "w.pt")
    assert set(torch.load(tmp_path / "w.pt")) == set(made.state_dict())
    assert not [key for one in made.parameters() for key in vars(one)]


@pytest.mark.parametrize(
    "name", ["regnet_y_400mf", "swin_t", "googlenet", "densenet121", "ssdlite320_mobilenet_v3_large", "raft_small"]
)
def test_torchvisions_own_way_of_loading_fills_a_skeleton(name: str):
    extra = {"weights_backbone": None} if name.startswith("ssd") else {}
    trained = models.get_model(name, weights=None, **extra)

    def build() -> nn.Module:
        made = models.get_model(name, weights=None, **extra)
        made.load_state_dict(trained.state_dict())
        return made

    made = straight(build)
    assert not on_meta(made)
    assert same(made, trained)


@pytest.mark.parametrize("name", ["swinv2_cr_tiny_224", "test_vit", "test_resnet", "vit_base_mci_224"])
def test_timms_models_are_built_so_or_the_usual_way_where_they_read_values(name: str):
    built = []

    def build() -> nn.Module:
        made = timm.create_model(name)
        built.append(made)
        made.load_state_dict({key: torch.ones_like(one, device="cpu") for key, one in made.state_dict().items()})
        return made

    made = straight(build)
    assert not on_meta(made)
    assert all(bool((one == 1).all()) for one in made.parameters())


def test_weights_that_are_copied_by_hand_are_noticed():
    def build() -> nn.Module:
        made = nn.Linear(2, 2)
        with torch.no_grad():
            made.weight.copy_(torch.eye(2))
        return made

    assert torch.equal(straight(build).weight, torch.eye(2))


def test_without_meta_load_state_dict_is_the_usual_one():
    model, given = nn.Linear(2, 2), nn.Linear(2, 2).state_dict()
    kept = model.weight
    with placing():
        model.load_state_dict(given)
    assert model.weight is kept
    assert torch.equal(kept, given["weight"])
