"""A training in a loop of one's own, watched."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from tests.integrations.nets import Net, WithOrphan, frozen_body, images, is_finite, same, statistics
from torch import Tensor, nn

import torchgraft as tg
from torchgraft.errors import DataError, RecipeError, TorchgraftWarning, TrainError
from torchgraft.rules.finding import Finding


def batch(*, bad: bool = False) -> tuple[Tensor, Tensor]:
    return images(8, bad=3 if bad else None)[:]


def step(model: nn.Module, optimizer: torch.optim.Optimizer, given: tuple[Tensor, Tensor] | None = None) -> float:
    x, y = given or batch()
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
    return float(loss.detach())


def sgd(model: nn.Module, **settings: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD([one for one in model.parameters() if one.requires_grad], lr=0.1, **settings)


class Told(list[Finding]):
    """What was told, by code."""

    def __call__(self, found: Finding) -> None:
        self.append(found)

    @property
    def codes(self) -> list[str]:
        return [one.code for one in self]


def test_a_sound_training_is_told_nothing_and_goes_as_it_would_unwatched() -> None:
    one, other = Net(), Net()
    plain, seen = sgd(one, momentum=0.9), sgd(other, momentum=0.9)
    told = Told()
    with tg.watch(other, seen, tell=told) as watched:
        for _ in range(6):
            torch.manual_seed(3)
            expected = step(one, plain)
            torch.manual_seed(3)
            assert step(other, seen) == expected
    assert told == []
    assert watched.steps == 6
    assert watched.norm > 0
    assert same(dict(one.state_dict()), dict(other.state_dict()))


def test_no_hook_is_left_behind_and_none_is_on_the_model_meanwhile() -> None:
    model = Net()
    optimizer = sgd(model)
    watched = tg.watch(model, optimizer)
    assert not any(one._forward_hooks or one._forward_pre_hooks for one in model.modules())
    watched.close()
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks


def test_a_bad_batch_stops_before_weights_or_statistics_are_spoilt() -> None:
    model = Net()
    optimizer = sgd(model, momentum=0.9)
    told = Told()
    tg.watch(model, optimizer, tell=told)
    step(model, optimizer)
    before = {name: one.clone() for name, one in model.state_dict().items() if "tracked" not in name}
    with pytest.raises(TrainError, match="step 2: all 10 gradients are NaN") as error:
        step(model, optimizer, batch(bad=True))
    assert "body.1.running_mean is the first that is not finite" in error.value.where
    assert same({name: one for name, one in model.state_dict().items() if name in before}, before)
    assert step(model, optimizer) < 10, "training can go on"


def test_a_plain_loop_ends_with_nan_weights() -> None:
    model = Net()
    step(model, sgd(model), batch(bad=True))
    assert not is_finite(model)


def test_steps_can_be_left_out_up_to_ten_in_a_row() -> None:
    model = Net()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=0.01)
    told = Told()
    watched = tg.watch(model, optimizer, on_nan="skip", tell=told)
    step(model, optimizer)
    before = model.head.weight.detach().clone()
    for _ in range(9):
        step(model, optimizer, batch(bad=True))
    assert torch.equal(model.head.weight, before), "decay and averages did not move it either"
    assert watched.skipped == 9
    assert told.codes == ["T020"], "told once"
    with pytest.raises(TrainError):
        step(model, optimizer, batch(bad=True))


def test_a_loss_that_is_not_finite_is_seen_before_its_backward_pass() -> None:
    model = Net()
    optimizer = sgd(model)
    watched = tg.watch(model, optimizer, on_nan="skip", tell=Told())
    x, y = batch(bad=True)
    assert watched.loss(nn.functional.cross_entropy(model(x), y)) is False
    assert is_finite(model)
    assert watched.loss(torch.tensor(0.5)) is True
    assert watched.skipped == 1
    step(model, optimizer)
    assert watched.steps == 1


def test_the_module_that_got_it_first_is_named_where_later_ones_are_finite() -> None:
    model = Net()
    optimizer = sgd(model)
    tg.watch(model, optimizer, tell=Told())
    model.head.weight.register_hook(lambda grad: grad * float("inf"))
    with pytest.raises(TrainError) as error:
        step(model, optimizer)
    assert "head" in str(error.value)


class Root(nn.Module):
    """Takes a root of what can be negative."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.middle, self.last = (
            nn.Linear(4, 4),
            nn.Sequential(nn.Linear(4, 4), Half()),
            nn.Linear(4, 2),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.middle(self.first(x)))


class Half(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x - 100).sqrt()


def test_a_replay_finds_the_operation_that_made_nan() -> None:
    model = Root()
    optimizer = sgd(model)
    told = Told()
    tg.watch(model, optimizer, replay=True, tell=told)
    with pytest.raises(TrainError):
        step(model, optimizer, (torch.randn(3, 4), torch.tensor([0, 1, 0])))
    assert told[0].where.endswith("middle.1")
    assert "sqrt in middle.1" in "\n".join(told[0].facts)


def test_clipping_by_the_watch_gives_the_numbers_of_torch() -> None:
    one, other = Net(), Net()
    one.body[3].p = other.body[3].p = 0.0
    plain, seen = sgd(one), sgd(other)
    watched = tg.watch(other, seen)
    x, y = batch()
    for most in (100.0, 0.01, 0.3):
        for model, optimizer in ((one, plain), (other, seen)):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            norm = watched.clip(most) if model is other else nn.utils.clip_grad_norm_(one.parameters(), most)
            optimizer.step()
            assert float(norm) == pytest.approx(watched.norm, abs=1) or model is one
    assert same(dict(one.state_dict()), dict(other.state_dict()))
    assert watched.steps == 3


def test_clipping_by_the_watch_names_the_gradient_that_torch_would_spread() -> None:
    model = Net()
    optimizer = sgd(model)
    watched = tg.watch(model, optimizer, tell=Told())
    nn.functional.cross_entropy(model(batch()[0]), batch()[1]).backward()
    assert model.head.bias.grad is not None
    model.head.bias.grad[0] = float("nan")
    watched.clip(1.0)
    with pytest.raises(TrainError, match=r"the gradient of head\.bias is NaN"):
        optimizer.step()


def test_a_closure_is_judged_after_it_made_the_gradients() -> None:
    model = Net()
    optimizer = sgd(model)
    tg.watch(model, optimizer, tell=Told())
    x, y = batch(bad=True)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        return loss

    with pytest.raises(TrainError):
        optimizer.step(closure)
    assert is_finite(model)


def test_a_scaler_of_mixed_precision_judges_its_own_steps() -> None:
    model = Net()
    optimizer = sgd(model)
    watched = tg.watch(model, optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**120)
    for _ in range(3):
        optimizer.zero_grad()
        scaler.scale(nn.functional.cross_entropy(model(batch()[0]), batch()[1])).backward()
        scaler.step(optimizer)
        scaler.update()
    assert watched.findings == ()
    assert is_finite(model)


# what is told


def found(model: nn.Module, optimizer: torch.optim.Optimizer, *, steps: int = 3) -> dict[str, Finding]:
    told = Told()
    with tg.watch(model, optimizer, tell=told):
        for _ in range(steps):
            step(model, optimizer)
    assert len(told) == len({(one.code, one.where) for one in told}), "each once"
    return {one.code: one for one in told}


def test_a_parameter_that_never_gets_a_gradient() -> None:
    model = WithOrphan()
    told = found(model, sgd(model))
    assert list(told) == ["T021"]
    assert told["T021"].where == "WithOrphan / forgotten"


def test_a_step_before_the_backward_pass() -> None:
    model = Net()
    optimizer = sgd(model)
    told = Told()
    tg.watch(model, optimizer, tell=told)
    optimizer.step()
    optimizer.step()
    assert "not one parameter has a gradient" in "\n".join(told[0].facts)


def test_a_trainable_parameter_in_no_group() -> None:
    model = Net()
    assert list(found(model, torch.optim.SGD(model.head.parameters(), lr=0.1))) == ["P010"]


def test_a_gradient_that_is_always_zero() -> None:
    model = Net()
    with torch.no_grad():
        model.body[5].bias.fill_(-100.0)  # no ReLU after it is ever positive
    assert found(model, sgd(model))["T008"].where.startswith("Net / body")


def test_frozen_norms_and_dropout_in_training_mode() -> None:
    model = frozen_body(Net())
    assert list(found(model, sgd(model))) == ["P018", "P020"]


def test_nothing_where_the_loop_keeps_them_still() -> None:
    model = frozen_body(Net())
    tg.train_mode(model)
    assert found(model, sgd(model)) == {}


def test_a_frozen_norm_that_a_later_epoch_wakes_is_told_at_once() -> None:
    model = frozen_body(Net())
    optimizer = sgd(model)
    told = Told()
    tg.watch(model, optimizer, tell=told)
    tg.train_mode(model)
    for _ in range(5):
        step(model, optimizer)
    assert told.codes == []
    model.train()
    step(model, optimizer)
    assert told.codes == ["P018", "P020"]


def test_a_frozen_parameter_that_momentum_still_moves() -> None:
    model = Net()
    optimizer = sgd(model, momentum=0.9)
    told = Told()
    tg.watch(model, optimizer, tell=told)
    step(model, optimizer)
    model.head.weight.requires_grad_(False)
    assert model.head.weight.grad is not None
    model.head.weight.grad.zero_()
    for number in range(2):
        for one in model.parameters():
            if one is not model.head.weight:
                one.grad = None
        nn.functional.cross_entropy(model(batch()[0]), batch()[1]).backward()
        optimizer.step()
        assert number >= 0
    assert {"P013", "P036"} <= set(told.codes)
    assert "head.weight" in next(str(one) for one in told if one.code == "P036")


def test_a_body_that_a_resume_left_frozen() -> None:
    model = Net()
    optimizer = sgd(model, momentum=0.9)
    step(model, optimizer)
    resumed = frozen_body(Net())
    resumed.load_state_dict(model.state_dict())
    again = torch.optim.SGD(resumed.parameters(), lr=0.1, momentum=0.9)
    again.load_state_dict(optimizer.state_dict())
    tg.train_mode(resumed)
    told = found(resumed, again)
    assert list(told) == ["P037"]
    assert "was the training resumed?" in told["P037"].facts[1]


def test_the_flags_of_a_training_are_part_of_its_state() -> None:
    model = frozen_body(Net())
    state = tg.watch(model, sgd(model)).state_dict()
    resumed = Net()
    tg.watch(resumed, sgd(resumed)).load_state_dict(state)
    assert [one.requires_grad for one in resumed.parameters()] == [one.requires_grad for one in model.parameters()]


def test_the_whole_model_in_evaluation_mode() -> None:
    model = Net().eval()
    assert list(found(model, sgd(model))) == ["P021"]


def test_what_was_unfrozen_in_mid_training_is_looked_at_again() -> None:
    model = frozen_body(Net())
    optimizer = sgd(model)
    told = Told()
    watched = tg.watch(model, optimizer, tell=told)
    for _ in range(4):
        tg.train_mode(model)
        step(model, optimizer)
    tg.unfreeze(model, "body")
    assert [one.code for one in watched.look()] == ["P010"]


def test_data_are_judged_before_the_first_step() -> None:
    model = Net()
    told = Told()
    tg.watch(model, sgd(model), data=(batch()[0], batch()[1] + 7), tell=told)
    assert [one.code for one in told if one.is_error] == ["D002"]


def test_two_optimizers_are_watched_together() -> None:
    model = Net()
    one, other = torch.optim.SGD(model.body.parameters(), lr=0.1), torch.optim.Adam(model.head.parameters())
    told = Told()
    watched = tg.watch(model, [one, other], tell=told)
    for _ in range(3):
        nn.functional.cross_entropy(model(batch()[0]), batch()[1]).backward()
        for optimizer in (one, other):
            optimizer.step()
            optimizer.zero_grad()
    assert watched.steps == 6
    assert told == []


def test_two_networks_that_rest_by_turns_are_not_taken_for_frozen_ones() -> None:
    """A GAN freezes its generator while the discriminator is trained, and the other way round."""
    model = nn.ModuleList([Net(), Net()])
    optimizers = [torch.optim.Adam(one.parameters()) for one in model]
    told = Told()
    tg.watch(model, optimizers, tell=told)
    for number in (0, 1, 0, 1):
        for place, one in enumerate(model):
            one.requires_grad_(place == number)
        step(model[number], optimizers[number])
    assert told == []


def test_a_finding_is_a_warning_where_nobody_takes_it() -> None:
    model = WithOrphan()
    optimizer = sgd(model)
    tg.watch(model, optimizer)
    step(model, optimizer)
    with pytest.warns(TorchgraftWarning, match="forgotten"):
        step(model, optimizer)


@pytest.mark.parametrize("odd", ["raise", "", None])
def test_an_answer_that_there_is_not(odd: Any) -> None:
    model = Net()
    with pytest.raises(RecipeError, match="on_nan"):
        tg.watch(model, sgd(model), on_nan=odd)


def test_an_optimizer_that_is_none() -> None:
    with pytest.raises(RecipeError, match="no optimizer of torch"):
        tg.watch(Net(), "sgd")  # type: ignore[arg-type]


def test_data_that_are_none() -> None:
    model = Net()
    with pytest.raises((DataError, RecipeError)):
        tg.watch(model, sgd(model), data=7)


# in the trainers that leave the loop to their user


@pytest.mark.filterwarnings("ignore::torchgraft.errors.TorchgraftWarning")
def test_it_works_inside_of_accelerate() -> None:
    from accelerate import Accelerator

    model = Net()
    own = Accelerator(cpu=True)
    net, optimizer = own.prepare(model, sgd(model))
    watched = tg.watch(net, optimizer, on_nan="skip")
    for bad in (False, True, False):
        x, y = batch(bad=bad)
        optimizer.zero_grad()
        own.backward(nn.functional.cross_entropy(net(x), y))
        optimizer.step()
    assert (watched.steps, watched.skipped) == (3, 1)
    assert is_finite(model)


@pytest.mark.filterwarnings("ignore::torchgraft.errors.TorchgraftWarning")
def test_it_works_inside_of_fabric() -> None:
    from lightning.fabric import Fabric

    own = Fabric(accelerator="cpu", devices=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        own.launch()
    model = frozen_body(Net())
    net, optimizer = own.setup(model, sgd(model))
    watched = tg.watch(net, optimizer, on_nan="skip")
    before = statistics(model)
    with tg.still(model):
        for bad in (False, True, False):
            net.train()
            x, y = batch(bad=bad)
            optimizer.zero_grad()
            own.backward(nn.functional.cross_entropy(net(x), y))
            optimizer.step()
    assert (watched.steps, watched.skipped) == (3, 1)
    assert is_finite(model)
    assert same(statistics(model), before)
    assert watched.findings[0].where.startswith("Net")
