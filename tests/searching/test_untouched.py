from __future__ import annotations

import pytest
import torch
from torch import nn

from torchgraft.searching.untouched import untouched


def model() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 2))
    net.register_buffer("quiet", torch.ones(3), persistent=False)
    net[0].requires_grad_(False)
    net[1].eval()
    net[3].weight.grad = torch.full((2, 2), float("nan"))
    return net


def held(net: nn.Module) -> dict[str, object]:
    tensors = {**dict(net.named_parameters()), **dict(net.named_buffers())}
    return {
        "bytes": {name: one.detach().numpy().tobytes() for name, one in tensors.items()},
        "objects": {name: (id(one), one.data_ptr()) for name, one in tensors.items()},
        "gradients": {
            n: None if p.grad is None else (id(p.grad), p.grad.numpy().tobytes())
            for n, p in net.named_parameters()
        },
        "trains": {name: one.requires_grad for name, one in net.named_parameters()},
        "modes": {name: one.training for name, one in net.named_modules()},
    }


def spoil(net: nn.Module) -> None:
    """Do to a model whatever a training does, and more."""
    net.train()
    for one in net.parameters():
        one.requires_grad_(True)
    optimizer = torch.optim.SGD(net.parameters(), lr=10.0)
    optimizer.zero_grad()
    net(torch.randn(4, 1, 3, 3)).sum().backward()
    optimizer.step()
    net[1].running_mean = torch.zeros(2)  # another object in its place
    net.quiet.fill_(-0.0)
    net[3].weight.grad = None
    net.to(memory_format=torch.channels_last)


@pytest.mark.parametrize("breaks", [False, True])
def test_a_model_is_afterwards_the_same_objects_with_the_same_bytes(breaks):
    net = model()
    before = held(net)
    try:
        with untouched(net):
            spoil(net)
            assert held(net) != before
            if breaks:
                raise RuntimeError("on the way")
    except RuntimeError:
        assert breaks
    assert held(net) == before
    assert net[0].weight.is_contiguous()


def test_an_optimizer_of_the_users_own_goes_on_with_the_same_parameters():
    net = model()
    own = torch.optim.SGD([one for one in net.parameters() if one.requires_grad], lr=0.1)
    with untouched(net):
        spoil(net)
    net(torch.randn(4, 1, 3, 3)).sum().backward()
    net[3].weight.grad = torch.ones(2, 2)
    before = net[3].weight.detach().clone()
    own.step()
    assert torch.equal(net[3].weight, before - 0.1)


def test_a_parameter_that_two_modules_share_stays_shared():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    net[1].weight = net[0].weight
    with untouched(net):
        net.double()
        net[1].weight = nn.Parameter(torch.zeros(2, 2))
    assert net[1].weight is net[0].weight
    assert net[0].weight.dtype == torch.float32
