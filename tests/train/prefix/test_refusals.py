"""Where there is no prefix, or it goes wrong on the way: it is said, and nothing is computed with wrong values."""

from __future__ import annotations

import copy

import pytest
import torch
from tests.train.prefix.nets import PLAN, Counted, Foreign, Mixing, Noisy, equal, frozen_but, small, trained
from torch import nn

from torchgraft.train.prefix import Cache, Drifted, Prefix, Refused, Set, prefix_of


def vectors(count=8):
    return torch.randn(count, 16, generator=torch.Generator().manual_seed(0))


def why(model, inputs=None, **settings):
    found = prefix_of(model, vectors() if inputs is None else inputs, **settings)
    assert isinstance(found, Refused)
    return found.why


def stack():
    return nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3))


def test_nothing_is_frozen():
    assert why(stack().train()) == "nothing is frozen"


def test_the_first_layer_is_trained():
    assert "linear in 0 reads what is trained" in why(frozen_but(stack(), "0"))


def test_nothing_is_trained():
    assert "nothing that is trained comes after" in why(frozen_but(stack()))


def test_random_numbers_are_drawn_first():
    assert "randn_like" in why(frozen_but(Noisy(), "head")) or "add in the model" in why(
        frozen_but(Noisy(), "head")
    )


def test_a_norm_over_the_batch_belongs_to_the_rest():
    found = prefix_of(frozen_but(Mixing(), "head"), vectors())
    assert [piece.after for piece in found.pieces] == ["body"]


def test_a_model_that_leaves_torch_on_its_way_does_so_with_real_values():
    model, data = frozen_but(Foreign(), "head"), vectors()
    found = prefix_of(model, data)
    output, rows = found.first(model, data)
    assert found.skipped == ("body",)
    assert torch.equal(found.rest(model, rows), output)


def test_tensors_that_nobody_sees_made():
    class Unseen(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = torch.jit.script(nn.Linear(16, 16)), nn.Linear(16, 3)

        def forward(self, x):
            return self.head(self.body(x) + 1)

    assert "outside of torch" in why(frozen_but(Unseen(), "head"))


def test_a_compiled_model():
    model = frozen_but(stack(), "2")
    assert "compiled" in why(torch.compile(model))
    model.compile()
    assert "compiled" in why(model)


def test_a_scripted_model():
    assert "scripted" in why(torch.jit.script(frozen_but(stack(), "2")))


def test_a_model_that_is_shared_out():
    import torch.distributed as dist
    from torch.distributed.fsdp import fully_shard

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        model = fully_shard(frozen_but(stack(), "2"), mesh=dist.init_device_mesh("cpu", (1,)))
        assert "FSDP" in why(model)
    finally:
        dist.destroy_process_group()


def test_ddp_is_looked_through():
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        model = DistributedDataParallel(frozen_but(stack(), "2"))
        found = prefix_of(model, vectors())
        output, rows = found.first(model, vectors())
        assert torch.equal(found.rest(model, rows), output)
        found.rest(model, rows).sum().backward()
        assert model.module[2].weight.grad is not None
    finally:
        dist.destroy_process_group()


def test_a_hook_that_would_see_nothing():
    model = frozen_but(stack(), "2")
    seen = []
    model[0].register_forward_hook(lambda *given: seen.append(given))
    assert "hook" in why(model)


def test_a_hook_behind_the_cut_is_called_each_time():
    model = frozen_but(stack(), "2")
    seen = []
    model[2].register_forward_hook(lambda module, given, output: seen.append(output.detach()))
    found = prefix_of(model, vectors())
    output, rows = found.first(model, vectors())
    assert torch.equal(found.rest(model, rows), output)
    assert torch.equal(seen[-1], output)


def test_one_sample_tells_nothing():
    assert "one sample" in why(frozen_but(stack(), "2"), vectors(1))


def test_python_draws_random_numbers():
    import random

    class Skips(nn.Sequential):
        def forward(self, x):
            return super().forward(x if random.random() < 2 else x + 1)

    assert "outside of torch" in why(frozen_but(Skips(*stack()), "2"))


@pytest.mark.parametrize("run", ["first", "rest"])
def test_the_model_is_as_it_was_also_after_an_error(run):
    model = frozen_but(small(), "fc")
    images = torch.randn(4, 3, 32, 32)
    before = {path: dict(vars(one)) for path, one in model.named_modules()}
    found = prefix_of(model, images)
    _, rows = found.first(model, images)
    weight, model.fc.weight = model.fc.weight, nn.Parameter(torch.randn(3, 7))
    with pytest.raises(RuntimeError, match="shapes"):
        found.first(model, images) if run == "first" else found.rest(model, rows)
    model.fc.weight = weight
    assert all(vars(one).keys() == before[path].keys() for path, one in model.named_modules())


def test_the_search_leaves_no_trace():
    model = frozen_but(small(), "fc", "layer4")
    state, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    assert isinstance(prefix_of(model, torch.randn(4, 3, 32, 32)), Prefix)
    assert equal(state, model.state_dict())
    assert all(one.grad is None for one in model.parameters())
    torch.randn(4, 3, 32, 32)
    assert not torch.equal(random, torch.get_rng_state())


def test_random_numbers_go_on_as_if_nothing_was_looked_for():
    model = frozen_but(small(), "fc")
    images = torch.randn(4, 3, 32, 32)
    random = torch.get_rng_state()
    prefix_of(model, images)
    assert torch.equal(random, torch.get_rng_state())


def test_a_model_that_changes_its_way_is_run_whole():
    torch.manual_seed(0)
    model, data = frozen_but(Counted(10**6), "norm", "head"), vectors(20)
    plain = copy.deepcopy(model)
    cache = Cache(PLAN, Set(20, sizes=[4], again=lambda places, view: data[places]), epochs=4)

    def change(epoch, net):
        net.limits.after = 10**6 if epoch < 2 else -1

    theirs = trained(plain, data, 20, epochs=4, between=change)
    ours = trained(model, data, 20, cache, epochs=4, between=change)
    assert equal(theirs, ours)
    assert cache.answered == 5
    assert cache.whole == 15


def test_a_drift_leaves_buffers_and_random_numbers():
    model, data = frozen_but(Counted(10**6), "norm", "head"), vectors(8)
    found = prefix_of(model, data)
    _, rows = found.first(model, data)
    model.limits.after = -1
    before, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    with pytest.raises(Drifted, match="mul"):
        found.rest(model, rows)
    assert equal(before, model.state_dict())
    assert torch.equal(random, torch.get_rng_state())


def test_samples_of_several_sizes_are_run_whole():
    model = frozen_but(small(), "fc")
    cache = Cache(PLAN, Set(8, sizes=[4]), epochs=3)
    cache.output(model, model, torch.randn(4, 3, 32, 32), [0, 1, 2, 3])
    cache.output(model, model, torch.randn(4, 3, 40, 40), [4, 5, 6, 7])
    assert "several sizes" in cache.why
    assert not cache.holds([0, 1, 2, 3])


def change_mode(model):
    model.layer1.train()


def change_weight(model):
    with torch.no_grad():
        model.conv1.weight.mul_(2)


def change_buffer(model):
    model.bn1.running_mean.add_(1)


def change_freezing(model):
    model.layer4.requires_grad_(True)


def change_data(model):
    model.layer2[0].conv1.weight.data.mul_(2)


def change_setting(model):
    model.bn1.eps = 0.1


def change_forward(model):
    model.layer1[0].forward = lambda x: x * 2


def change_tensor(model):
    model.layer1.shift.add_(1)


CHANGES = [change_mode, change_weight, change_buffer, change_freezing, change_data, change_setting]
CHANGES += [change_forward, change_tensor]


@pytest.mark.parametrize("change", CHANGES)
def test_what_was_kept_goes_when_the_model_is_changed(change):
    model = frozen_but(small(), "fc")
    model.layer1.shift = torch.zeros(1)
    cache = Cache(PLAN, Set(4, sizes=[4]), epochs=3)
    cache.output(model, model, torch.randn(4, 3, 32, 32), [0, 1, 2, 3])
    cache.renew(model, 2)
    assert cache.holds([0, 1, 2, 3])
    change(model)
    cache.renew(model, 2)
    assert not cache.holds([0, 1, 2, 3])


class Warming(nn.Sequential):
    """Gives something else after some passes."""

    calls = 0

    def forward(self, x):
        self.calls += 1
        return super().forward(x) * (2.0 if self.calls > 40 else 1.0)


def test_a_frozen_part_that_counts_its_passes():
    model = nn.Sequential(Warming(nn.Linear(16, 16), nn.ReLU()), nn.Linear(16, 3))
    assert "a frozen Warming counts its passes, in 'calls'" in why(frozen_but(model, "1"))
