from __future__ import annotations

import copy

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision import models
from torchvision.models.vision_transformer import VisionTransformer

import torchgraft as tg

TINY = {"patch_size": 8, "num_layers": 1, "num_heads": 2, "hidden_dim": 32, "mlp_dim": 64, "num_classes": 10}


class Net(nn.Module):
    """A small network with a stem, a norm and a head."""

    def __init__(self, channels: int = 3, classes: int = 5) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.body = nn.Conv2d(8, 16, 3)
        self.fc = nn.Linear(16, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.body(self.norm(self.stem(x)).relu()).mean((2, 3)))


@pytest.fixture
def net() -> Net:
    return Net()


def checked(model, weights, example=(3, 16, 16)):
    return tg.check(model, example, weights=weights)


def told(model, weights, example=(3, 16, 16)):
    return {finding.code: finding for finding in checked(model, weights, example)}


def kept(net, prefix=""):
    return {f"{prefix}{name}": one.clone() for name, one in net.state_dict().items()}


def test_a_model_that_holds_the_weights_gives_no_finding(net):
    assert checked(net, kept(net)) == ()


def test_the_tensors_of_the_model_itself_are_no_copy_of_them(net):
    assert [(one.code, one.severity) for one in checked(net, net.state_dict())] == [("W020", "note")]
    assert checked(net, copy.deepcopy(net.state_dict())) == ()


def test_a_norm_as_it_was_made_is_told_where_the_weights_were_trained(net):
    given = kept(net) | {"norm.running_mean": torch.randn(8), "norm.running_var": torch.rand(8) + 0.5}
    found = told(net, given)["W010"]
    assert "2 vectors are as they were made, all 0 or all 1: norm.running_mean, norm.running_var" in found.facts
    net.load_state_dict(given)
    assert checked(net, given) == ()


def test_a_norm_that_an_edit_put_in_is_meant_to_begin(net):
    given = kept(net) | {"norm.running_mean": torch.randn(8), "norm.running_var": torch.rand(8) + 0.5}
    net.load_state_dict(given)
    g = tg.load(net, input=(3, 16, 16)).replace("norm", nn.BatchNorm2d(8))
    assert "W010" not in {finding.code for finding in g.check(weights=given)}


def test_variances_below_zero_are_told(net):
    found = told(net, kept(net) | {"norm.running_var": -torch.ones(8)})["W011"]
    assert "1 variances are below zero" in found.facts[0]


def test_one_part_of_a_sharded_model_is_told_as_such(net):
    found = told(net, {name: one.chunk(2)[0] if one.dim() else one for name, one in kept(net).items()})["W009"]
    assert "8 of them have 1/2 of the rows: they are one process's part of a sharded model" in found.facts


def test_flattened_weights_are_told_with_what_to_save_instead(net):
    found = told(net, {"_fsdp_wrapped_module._flat_param": torch.randn(99)})["W009"]
    assert "save a full state dict" in found.hint


def test_a_prefixed_checkpoint_that_loads_nothing_is_told(net):
    found = told(Net(), nn.DataParallel(net).state_dict())
    assert found["W003"].is_error
    assert "as they are 0 of 11 tensors have their place, without the prefix 11" in found["W003"].facts
    assert found["W010"].facts[0].startswith("3 of 3 weights have other values")


def test_a_prefix_that_was_seen_to_is_a_note(net):
    found = told(net, kept(net, "module."))
    assert [one.severity for one in found.values()] == ["note"]


def test_a_whole_checkpoint_is_told_with_the_key_that_holds_the_weights(net):
    found = told(Net(), {"epoch": 3, "state_dict": net.state_dict(), "optimizer": {}})["W002"]
    assert found.is_error
    assert found.facts == ('the weights (11 tensors) lie in ["state_dict"]', "beside them: epoch, optimizer")
    assert 'checkpoint["state_dict"]' in found.hint


def test_an_average_beside_the_weights_is_mentioned(net):
    found = told(net, {"model": net.state_dict(), "ema": Net().state_dict()})["W002"]
    assert 'weights lie in ["ema"] too' in found.facts


def test_other_names_in_the_same_order_are_told(net):
    renamed = {f"t{number}.{name[-4:]}": one for number, (name, one) in enumerate(net.state_dict().items())}
    assert "11 names" in told(Net(), renamed)["W004"].facts[0]


def test_another_head_is_told_as_a_head(net):
    found = told(Net(classes=9), net.state_dict())["W008"]
    assert (found.severity, found.where) == ("warning", "Net / fc")
    assert found.title == "the output layer has another number of classes than the weights"
    assert "fc.weight is [9, 16], [5, 16] is given" in found.facts


def test_more_input_channels_are_told_as_channels(net):
    found = told(Net(channels=4), net.state_dict(), (4, 16, 16))["W008"]
    assert found.title.startswith("the first convolution takes another number of channels")


def test_position_embeddings_of_another_size_are_told_as_such():
    state = VisionTransformer(image_size=32, **TINY).state_dict()
    found = told(VisionTransformer(image_size=64, **TINY), state, (3, 64, 64))["W008"]
    assert found.title == "position embeddings are those of another image size"


def test_other_widths_are_an_error(net):
    state = net.state_dict() | {"body.weight": torch.zeros(16, 7, 3, 3)}
    assert told(net, state)["W008"].is_error


def test_missing_layers_are_named(net):
    state = {name: one for name, one in net.state_dict().items() if not name.startswith("fc")}
    assert "2 of 11 tensors: fc.weight, fc.bias" in told(net, state)["W005"].facts


def test_layers_that_an_edit_put_in_are_not_missed(net):
    g = tg.load(net, input=(3, 16, 16))
    state = {name: one.clone() for name, one in net.state_dict().items()}
    g.head(7)
    assert [finding.code for finding in g.check(weights=state)] == ["W008"]


def test_missing_statistics_are_told(net):
    found = told(net, {name: one.detach().clone() for name, one in net.named_parameters()})
    assert list(found) == ["W006"]
    assert "1 norms: norm" in found["W006"].facts


def test_what_has_no_place_is_told(net):
    found = told(net, net.state_dict() | {"decoder.weight": torch.zeros(3)})
    assert "1 tensors: decoder.weight" in found["W007"].facts


def test_weights_of_another_model_are_told_once(net):
    found = told(net, models.mobilenet_v3_small(weights=None).state_dict())
    assert list(found) == ["W009"]


def test_an_adapter_alone_is_told_as_an_adapter(net):
    state = {f"base_model.model.fc.lora_{one}.weight": torch.zeros(2, 2) for one in "AB"}
    assert any("adapter" in fact for fact in told(net, state)["W009"].facts)


def test_an_initialisation_after_loading_is_told_with_the_modules_that_it_hit(net):
    model = copy.deepcopy(net)
    nn.init.kaiming_normal_(model.body.weight)
    found = told(model, net.state_dict())["W010"]
    assert found.facts == ("1 of 3 weights have other values: body.weight",)


def test_a_fine_tuned_model_still_holds_its_base(net):
    model = copy.deepcopy(net)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.01 * torch.randn_like(parameter)
    assert checked(model, net.state_dict()) == ()


def test_values_that_are_not_finite_are_told(net):
    state = {name: one.clone() for name, one in net.state_dict().items()}
    state["body.weight"][0] = float("inf")
    found = told(net, state)["W011"]
    assert "body.weight has 72 values that are NaN or infinite" in found.facts


def test_a_file_of_zeros_is_told_and_one_zero_layer_is_not(net):
    zeros = {name: torch.zeros_like(one) for name, one in net.state_dict().items()}
    assert told(net, zeros)["W012"].is_error
    assert "W012" not in told(net, net.state_dict() | {"fc.weight": torch.zeros(5, 16)})


def test_halves_are_a_note_and_codes_an_error(net):
    half = {name: one.half() if one.is_floating_point() else one for name, one in net.state_dict().items()}
    codes = {name: one.to(torch.int8) for name, one in net.state_dict().items()}
    assert told(net, half)["W013"].severity == "note"
    assert told(net, codes)["W013"].is_error


class Tied(nn.Module):
    def __init__(self, tied: bool = True) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 4)
        self.head = nn.Linear(4, 10, bias=False)
        if tied:
            self.head.weight = self.embed.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.embed(x))


WORDS = torch.zeros(2, 3, dtype=torch.long)


def test_a_tie_that_the_model_lost_is_told():
    found = told(Tied(tied=False), Tied().state_dict(), WORDS)["W014"]
    assert found.facts == ("embed.weight and head.weight are one tensor in the weights, and two in the model",)


def test_two_values_for_one_parameter_are_told():
    found = told(Tied(), Tied(tied=False).state_dict(), WORDS)["W014"]
    assert "the weights give each another value" in found.facts[0]


def test_ties_that_agree_are_only_noted_for_what_files_do_with_them():
    model = Tied()
    assert [finding.code for finding in checked(model, copy.deepcopy(model.state_dict()), WORDS)] == ["W016"]
    one = {"embed.weight": model.embed.weight.detach().clone()}
    assert [finding.severity for finding in checked(model, one, WORDS)] == ["note"]


def test_a_file_that_can_not_be_read_is_a_finding(net, tmp_path):
    torch.save(net, tmp_path / "whole.pt")
    (found,) = checked(net, tmp_path / "whole.pt")
    assert (found.code, found.is_error) == ("W001", True)
    assert "code from files is never run" in found.facts[0]


def test_files_of_every_kind_are_compared(net, tmp_path):
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    torch.save({"net": net.state_dict()}, tmp_path / "w.pt")
    assert checked(net, str(tmp_path / "w.safetensors")) == ()
    assert [finding.severity for finding in checked(net, tmp_path / "w.pt")] == ["note"]


def test_a_file_with_a_wrong_hash_in_its_name_is_told(net, tmp_path):
    torch.save(net.state_dict(), tmp_path / "net-abcdef12.pth")
    assert list(told(net, tmp_path / "net-abcdef12.pth")) == ["W015"]


class Measuring(Net):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("measured", torch.ones(2), persistent=False)


def test_a_buffer_that_no_file_holds_is_told():
    assert told(Measuring(), None)["W017"].facts == ("1 buffers: measured",)


class Forgetful(Net):
    def state_dict(self, *args, **kwargs):
        return {name: one for name, one in super().state_dict(*args, **kwargs).items() if "fc" not in name}

    def load_state_dict(self, state, strict=True, assign=False):
        return super().load_state_dict(state, strict=False)


def test_a_model_that_does_not_come_back_from_its_file_is_told():
    batch = (torch.randn(4, 3, 16, 16), torch.tensor([0, 1, 2, 3]))
    found = {one.code: one for one in tg.check(Forgetful(), (3, 16, 16), data=batch)}
    assert found["W018"].is_error
    assert "2 tensors come back changed: fc.weight, fc.bias" in found["W018"].facts
