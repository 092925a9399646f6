from __future__ import annotations

import torch
from torch import nn
from torchvision.models import resnet18

from torchgraft.probes.double import Double


def test_a_double_gives_what_the_model_gives_and_shares_no_tensor():
    model = resnet18(weights=None).eval()
    double = Double(model)
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(double.module(x), model(x))
    own = {one.data_ptr() for one in double.module.state_dict().values()}
    assert not own & {one.data_ptr() for one in model.state_dict().values()}
    assert not {id(one) for one in model.modules()} & {id(one) for one in double.module.modules()}


def test_tied_weights_stay_tied():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    double = Double(model)
    assert double.module[0].weight is double.module[1].weight


def test_recurrent_weights_are_those_of_the_double():
    model = nn.LSTM(3, 4)
    double = Double(model)
    with torch.no_grad():
        double.module.weight_hh_l0.zero_()
    x = torch.randn(5, 2, 3)
    assert not torch.equal(double.module(x)[0], model(x)[0])


def test_what_moved_is_named_and_restored():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    double = Double(model)
    assert double.moved() == []
    double.module.train()(torch.randn(8, 4)).sum().backward()
    with torch.no_grad():
        double.module[0].bias[0] = float("nan")
    assert set(double.moved()) == {"0.bias", "1.running_mean", "1.running_var", "1.num_batches_tracked"}
    double.restore()
    assert double.moved() == []
    assert all(parameter.grad is None for parameter in double.module.parameters())


def test_modules_in_plain_lists_are_copied_too():
    class Hides(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = [nn.Linear(4, 4)]

        def forward(self, x):
            return self.layers[0](x)

    model = Hides()
    double = Double(model)
    assert double.module.layers[0] is not model.layers[0]
    double.module(torch.randn(2, 4)).sum().backward()
    assert model.layers[0].weight.grad is None
