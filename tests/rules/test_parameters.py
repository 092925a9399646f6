from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torchvision import models

import torchgraft as tg
from torchgraft.errors import EditError

IMAGE = (3, 16, 16)


def small(classes: int = 4) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, classes),
    )


def told(model, optimizer=None, example=IMAGE):
    return {finding.code: finding for finding in tg.check(model, example, optimizer=optimizer)}


def test_a_model_and_its_optimizer_give_no_finding():
    model = small()
    assert told(model, torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)) == {}


def test_everything_frozen_offers_the_head():
    found = told(small().requires_grad_(False))["P001"]
    assert [fix.sentence for fix in found.fixes] == ["5 can be trained again"]


def test_the_fixes_of_a_frozen_model_leave_nothing_to_find():
    g = tg.load(small().requires_grad_(False), input=IMAGE)
    g.apply_all([edit for finding in g.check() for fix in finding.fixes for edit in fix.edits])
    assert g.check() == ()
    assert [name for name, p in g.module.named_parameters() if p.requires_grad] == ["5.weight", "5.bias"]


# hidden


class Listed(nn.Module):
    def __init__(self, registered: bool = False) -> None:
        super().__init__()
        if registered:
            self.first = nn.Linear(4, 4)
        self.layers = [nn.Linear(4, 4) for _ in range(3)]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.first(x) if hasattr(self, "first") else x


def test_layers_in_a_list_are_an_error_where_nothing_else_is_trained():
    found = told(Listed(), example=(4,))["P003"]
    assert found.is_error
    assert "layers[0] (Linear, 20 values)" in found.facts[0]
    assert told(Listed(registered=True), example=(4,))["P003"].severity == "warning"


def test_a_frozen_teacher_may_hide():
    model = small()
    model.teacher = [small().requires_grad_(False)]
    assert told(model) == {}


class Constants(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.mean = torch.ones(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x - self.mean)


def test_a_constant_that_is_no_buffer_is_a_note():
    found = told(Constants(), example=(4,))["P004"]
    assert (found.severity, found.facts) == ("note", ("mean (4 values)",))


class Moved(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4)) * 0.1
        self.layer = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.last = self.layer(x * self.scale)
        return self.last


def test_a_parameter_that_was_computed_is_told_and_what_a_pass_left_is_a_note():
    model = Moved()
    assert "scale (Tensor, 4 values)" in told(model, example=(4,))["P003"].facts[0]
    plain = nn.Linear(4, 4)
    plain.last = plain(torch.ones(1, 4))
    assert "P003" not in told(plain, example=(4,))


# flags


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("make", [torch.jit.script, lambda model: torch.jit.trace(model, torch.randn(2, 4))])
def test_what_a_compiled_module_uses_is_not_told_to_be_unused(make):
    made = make(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3)))
    assert told(made, example=(4,)) == {}
    whole = nn.Sequential(made, nn.Linear(3, 2))
    whole.spare = nn.Linear(2, 2)
    whole.forward = lambda x: whole[1](whole[0](x))
    assert told(whole, example=(4,))["P002"].where.endswith("spare")


def test_what_was_left_on_meta_is_told():
    model = small()
    model[5].to("meta")
    found = told(model)["P023"]
    assert (found.is_error, found.facts[0]) == (True, "2 are on the meta device: 5.weight, 5.bias")
    assert "P023" not in told(small().to("meta"))


class Making(nn.Module):
    def __init__(self, last):
        super().__init__()
        self.body, self.last = nn.Linear(4, 6), last

    def forward(self, x):
        return self.last(self.body(x))


def test_a_layer_that_every_pass_makes_anew_is_told():
    found = told(Making(lambda h: nn.Linear(h.shape[1], 3)(h)), example=(4,))
    assert found["P024"].facts == ("the weight of linear, [3, 6], is made in the pass",)
    computed = Making(lambda h: nn.functional.linear(h, h.requires_grad_()[:1]))
    assert "P024" not in told(computed, example=(4,))
    assert "P024" not in told(Making(lambda h: nn.functional.linear(h, torch.ones(3, 6))), example=(4,))


def test_a_layer_that_is_frozen_by_half_is_told():
    model = small()
    model[5].bias.requires_grad = False
    assert told(model)["P005"].facts == ("its bias is frozen, the rest of it can be trained",)


def test_biases_that_are_trained_everywhere_are_meant():
    model = small()
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name.endswith("bias")
    assert "P005" not in told(model)


def test_a_tied_parameter_that_is_frozen_is_told_with_both_names():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    model[0].weight.requires_grad = False
    found = told(model, example=(4,))["P006"]
    assert found.facts == ("0.weight and 1.weight are one parameter, and it is frozen",)


@pytest.mark.parametrize("name", ["require_grad", "requires_gard", "requires_grads"])
def test_a_misspelt_freeze_is_told(name):
    model = small()
    for parameter in model[0].parameters():
        setattr(parameter, name, False)
    assert told(model)["P022"].facts == (f"'{name}' is set on 0.weight, 0.bias, where nothing reads it",)


def test_a_flag_on_a_module_is_told():
    model = small()
    model[0].requires_grad = False
    assert told(model)["P022"].where == "Sequential / 0"


# the optimizer


def test_layers_that_were_unfrozen_after_the_optimizer_was_built_are_told():
    model = small().requires_grad_(False)
    model[5].requires_grad_(True)
    optimizer = torch.optim.Adam(filter(lambda p: p.requires_grad, model.parameters()))
    model[0].requires_grad_(True)
    found = told(model, optimizer)["P010"]
    assert (found.where, found.facts) == ("Sequential / 0", ("2 parameters: 0.weight, 0.bias",))


def test_a_head_that_was_replaced_after_the_optimizer_was_built_is_told():
    model = small()
    optimizer = torch.optim.Adam(model.parameters())
    model[5] = nn.Linear(8, 7)
    found = told(model, optimizer)
    assert found["P011"].is_error
    assert "2 of its 6 parameters are not the model's (sizes [4, 8], [4])" in found["P011"].facts
    assert "the model's own 5.weight, 5.bias stand in no group" in found["P011"].facts


def test_the_optimizer_of_a_copy_is_told_once():
    model = small()
    found = told(copy.deepcopy(model), torch.optim.Adam(model.parameters()))
    assert list(found) == ["P011"]
    assert "made for another one, or for a copy" in found["P011"].facts[0]


def test_groups_of_a_graft_are_right():
    g = tg.load(small(), input=IMAGE).freeze(at="0")
    optimizer = torch.optim.AdamW(
        g.groups({"**.bias": {"weight_decay": 0.0}, "**:BatchNorm2d": {"weight_decay": 0.0}}, lr=1e-3)
    )
    assert g.check(optimizer=optimizer) == ()


def test_a_parameter_in_two_optimizers_is_told():
    model = small()
    both = [torch.optim.SGD(model.parameters(), lr=0.1), torch.optim.SGD(model[5].parameters(), lr=0.1)]
    assert "2 parameters: 5.weight, 5.bias" in told(model, both)["P012"].facts


def test_what_is_frozen_in_mid_training_is_a_warning_while_it_has_a_gradient():
    model = small()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.randn(2, *IMAGE)).sum().backward()
    optimizer.step()
    model[0].requires_grad_(False)
    found = told(model, optimizer)["P013"]
    assert found.severity == "warning"
    assert "2 of them have a gradient still: the next step moves them, driven by momentum" in found.facts
    optimizer.zero_grad()
    assert told(model, optimizer)["P013"].severity == "note"


def test_a_state_of_another_size_is_an_error():
    model = small()
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.randn(2, *IMAGE)).sum().backward()
    optimizer.step()
    model[5].weight.data, model[5].bias.data = torch.zeros(6, 8), torch.zeros(6)
    model[5].out_features = 6
    assert told(model, optimizer)["P014"].is_error


def test_an_empty_group_is_told():
    model = small()
    optimizer = torch.optim.SGD([{"params": model.parameters()}, {"params": [], "lr": 0.5}], lr=0.1)
    assert told(model, optimizer)["P015"].facts == ("group 1 (lr 0.5) has no parameter",)


@pytest.mark.parametrize(
    ("make", "is_told"),
    [
        (lambda p: torch.optim.SGD(p, lr=1.0, momentum=0.9), True),
        (lambda p: torch.optim.Adam(p, lr=0.5), True),
        (lambda p: torch.optim.SGD(p, lr=0.0), True),
        (lambda p: torch.optim.AdamW(p, lr=torch.tensor(2.0), weight_decay=0), True),
        (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), False),
        (lambda p: torch.optim.Adam(p), False),
        (lambda p: torch.optim.Adadelta(p), False),
        (lambda p: torch.optim.LBFGS(p), False),
    ],
)
def test_rates_that_can_not_be_meant_are_told(make, is_told):
    model = small()
    assert ("P016" in told(model, make(model.parameters()))) == is_told


def test_a_warm_up_may_start_at_zero():
    model = small()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: epoch / 5)
    assert told(model, optimizer) == {}


def test_decay_on_norms_is_a_note_and_a_strong_one_a_warning():
    model = small()
    mild = told(model, torch.optim.AdamW(model.parameters(), lr=1e-3))["P017"]
    strong = told(model, torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1))["P017"]
    assert (mild.severity, strong.severity) == ("note", "warning")
    assert "4 norm and bias parameters decay by 0.1: 0.bias, 1.weight, 1.bias, 5.bias" in strong.facts
    assert "AdamW(g.groups(lr=…, weight_decay=0.1))" in strong.hint
    followed = torch.optim.AdamW(tg.load(model, input=IMAGE).groups(lr=1e-2, weight_decay=0.1))
    assert "P017" not in told(model, followed)


# stillness


def test_frozen_norms_that_drift_are_told_and_the_fix_stops_them():
    model = small().requires_grad_(False)
    model[5].requires_grad_(True)
    g = tg.load(model, input=IMAGE)
    (found,) = g.check(optimizer=torch.optim.SGD(model[5].parameters(), lr=0.1))
    assert (found.code, found.severity) == ("P018", "warning")
    g.apply_all(found.fixes[0].edits)
    g.module.train()
    before = {name: one.clone() for name, one in g.module.state_dict().items()}
    g.module(torch.randn(4, *IMAGE) * 3 + 5)
    assert all(torch.equal(one, before[name]) for name, one in g.module.state_dict().items())


@pytest.mark.parametrize(
    ("layer", "norm", "shape"),
    [(nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4), (3, 8)), (nn.Conv3d(3, 4, 3), nn.BatchNorm3d(4), (3, 8, 8, 8))],
)
def test_norms_of_other_dimensions_are_stopped_as_well(layer, norm, shape):
    body = nn.Sequential(layer, norm).requires_grad_(False)
    model = nn.Sequential(body, nn.AdaptiveAvgPool1d(1) if len(shape) == 2 else nn.AdaptiveAvgPool3d(1))
    model.extend([nn.Flatten(), nn.Linear(4, 2)])
    g = tg.load(model, input=shape)
    (found,) = g.check()
    assert found.code == "P018"
    g.apply_all(found.fixes[0].edits)
    assert g.check() == ()


def test_a_norm_that_no_fix_can_stop_gets_no_hint_of_one():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4, affine=True, track_running_stats=True))
    model.requires_grad_(False).append(nn.Conv2d(4, 2, 1))
    found = told(model)["P018"]
    assert not found.fixes
    assert "eval_mode" not in found.hint


def test_a_norm_without_parameters_goes_with_the_layer_before_it():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False), nn.Conv2d(4, 2, 3))
    model[0].requires_grad_(False)
    assert told(model)["P018"].facts[0] == "1 BatchNorm2d: 1"


def test_norms_whose_mode_the_next_train_undoes_are_told():
    model = small()
    model[1].eval()
    assert told(model)["P019"].facts == ("1 BatchNorm2d: 1",)


class Dropping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.drop, self.neck, self.last, self.head = (
            nn.Linear(4, 4), nn.Dropout(0.5), nn.Linear(4, 4), nn.Dropout(0.5), nn.Linear(4, 2),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.last(self.neck(self.drop(self.body(x)).relu()).relu()))


def test_dropout_inside_a_frozen_body_is_told_apart_from_that_before_the_head():
    model = Dropping().requires_grad_(False)
    model.head.requires_grad_(True)
    optimizer = torch.optim.SGD(model.head.parameters(), lr=0.1)
    found = {one.where: one.severity for one in tg.check(model, (4,), optimizer=optimizer)}
    assert found == {"Dropping / drop": "warning", "Dropping / last": "note"}
    model.eval()
    assert told(model, optimizer, (4,)) == {}


def test_dropout_among_trained_layers_is_not_told():
    model = Dropping()
    model.neck.requires_grad_(False)
    assert told(model, example=(4,)) == {}


def test_a_model_that_was_left_in_evaluation_mode_is_told_where_an_optimizer_waits():
    model = small().eval()
    assert told(model) == {}
    found = told(model, torch.optim.SGD(model.parameters(), lr=0.1))
    assert list(found) == ["P021"]


def test_a_frozen_body_in_evaluation_mode_is_meant():
    model = models.mobilenet_v3_small(weights=None).requires_grad_(False).eval()
    model.classifier[3].requires_grad_(True).train()
    optimizer = torch.optim.SGD(model.classifier[3].parameters(), lr=0.1)
    assert told(model, optimizer, (3, 64, 64)) == {}


# hooks


def test_a_hook_that_was_registered_on_every_call_is_told():
    model = small()
    for _ in range(3):
        model[0].register_forward_hook(lambda module, given, gave: None)
    assert told(model)["P007"].facts == ("<lambda> is 3 times a hook of 0",)


class Hooking(nn.Module):
    def __init__(self, once):
        super().__init__()
        self.layer, self.once = nn.Linear(4, 3), once

    def forward(self, x):
        if not (self.once and self.layer._forward_hooks):
            self.layer.register_forward_hook(lambda module, given, gave: None)
        return self.layer(x)


def test_a_hook_that_every_pass_registers_is_told_before_it_is_there():
    data = (torch.randn(8, 4), torch.arange(8) % 3)
    told = {one.code: one for one in tg.check(Hooking(once=False), data=data)}
    assert told["P007"].facts == ("every pass registers <lambda> as a hook of layer once more",)
    assert "P007" not in {one.code for one in tg.check(Hooking(once=True), data=data)}


def test_a_hook_on_a_module_that_is_called_twice_is_told():
    shared = nn.ReLU()
    model = nn.Sequential(nn.Linear(4, 4), shared, nn.Linear(4, 4), shared, nn.Linear(4, 4))
    shared.register_forward_hook(lambda module, given, gave: None)
    assert "P008" in told(model, example=(4,))


def test_a_catch_that_is_overwritten_in_place_is_told():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True))
    model[0].register_forward_hook(lambda module, given, gave: None)
    assert told(model)["P009"].where == "Sequential / 0"


# the edit


def test_evaluation_mode_for_good_survives_train_and_is_undone_exactly(snapshot, resnet18):
    before = snapshot(resnet18.module)
    keys = set(resnet18.module.state_dict())
    image = torch.randn(2, 3, 64, 64)
    expected = resnet18.module.eval()(image)
    resnet18.module.train()
    resnet18.eval_mode(at="**:BatchNorm2d")
    assert torch.allclose(resnet18.module.train()(image), expected, atol=1e-5)
    assert torch.allclose(copy.deepcopy(resnet18.module)(image), expected, atol=1e-5)
    assert keys - set(resnet18.module.state_dict()) == {key for key in keys if "num_batches" in key}
    resnet18.undo()
    assert snapshot(resnet18.module) == before


def test_norms_with_an_activation_of_timm_are_made_still():
    g = tg.load("timm:mobilenetv3_small_100@none", input=(3, 64, 64))
    image = torch.randn(2, 3, 64, 64)
    expected = g.module.eval()(image)
    g.eval_mode(at=["conv_stem", "bn1", "blocks"])
    assert torch.allclose(g.module.train()(image), expected, atol=1e-4)


def test_dropout_is_switched_off_for_good():
    g = tg.load(Dropping(), input=(4,)).eval_mode(at="drop")
    assert isinstance(g.module.drop, nn.Identity)
    assert isinstance(g.module.last, nn.Dropout)


@pytest.mark.parametrize(
    ("model", "at", "match"),
    [
        (
            nn.Sequential(nn.Linear(4, 4), nn.InstanceNorm1d(4, track_running_stats=True)),
            "1",
            r"no frozen form of InstanceNorm1d(.|\n)*model\.1\.eval",
        ),
        (nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)), "0", "nothing in 0 differs"),
    ],
)
def test_what_can_not_stand_still_is_refused(model, at, match):
    with pytest.raises(EditError, match=match):
        tg.load(model, input=(4,)).eval_mode(at=at)


def test_hooks_that_differ_by_the_name_they_were_made_with_are_not_one_hook_twice():
    seen = {}

    def look(name):
        def hook(_module, _given, gave):
            seen[name] = gave.shape

        return hook

    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    model[0].register_forward_hook(look("a"))
    model[0].register_forward_hook(look("b"))
    assert "P007" not in told(model, example=(4,))


def test_many_dropouts_of_a_frozen_body_are_one_finding_whose_fix_stops_them_all():
    g = tg.load("torchvision:convnext_tiny@none", input=(3, 32, 32)).head(3).freeze(all_but="head")
    found = {one.code: one for one in g.check(optimizer=torch.optim.SGD(g.groups(lr=0.1)))}
    assert found["P020"].severity == "warning"
    assert found["P020"].facts[0] == "17 layers (features (17)) drop features that only frozen parameters made"
    g.apply_all(found["P020"].fixes[0].edits)
    assert "P020" not in {one.code for one in g.check()}


def test_dropout_that_an_adapter_in_a_frozen_layer_reads_is_no_more_than_a_note():
    g = tg.load(Dropping(), input=(4,)).freeze(all_but="head").adapter(at=["neck"], kind="lora", rank=2)
    found = {
        one.where: one.severity
        for one in g.check(optimizer=torch.optim.SGD(g.groups(lr=0.1)))
        if one.code == "P020"
    }
    assert found == {"Dropping / drop": "note"}
