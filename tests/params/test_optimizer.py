from __future__ import annotations

import pytest
import torch
from torch import nn

from torchgraft.errors import TrainError
from torchgraft.params.groups import parameter_groups
from torchgraft.params.optimizer import carry_state


def trained_head(groups):
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    model[0].requires_grad_(False)
    optimizer = torch.optim.Adam(groups(model), lr=0.1)
    model(torch.randn(5, 3)).sum().backward()
    optimizer.step()
    return model, optimizer


@pytest.mark.parametrize(
    "groups",
    [
        lambda model: [(name, p) for name, p in model.named_parameters() if p.requires_grad],
        lambda model: parameter_groups(model, {}, {"lr": 0.1}),
    ],
)
def test_what_was_trained_keeps_its_state_after_unfreezing(groups):
    model, old = trained_head(groups)
    model[0].requires_grad_(True)
    new = torch.optim.Adam(model.parameters(), lr=0.1)
    carried = carry_state(old.state_dict(), new, model)
    assert carried.kept == ("1.weight", "1.bias")
    assert carried.fresh == ("0.weight", "0.bias")
    assert torch.equal(new.state[model[1].weight]["exp_avg"], old.state[model[1].weight]["exp_avg"])
    new.step()


def test_a_layer_of_another_size_starts_afresh():
    model, old = trained_head(lambda model: list(model[1].named_parameters(prefix="1")))
    model[1] = nn.Linear(4, 7)
    new = torch.optim.Adam(model[1].parameters(), lr=0.1)
    carried = carry_state(old.state_dict(), new, model)
    assert (carried.kept, carried.left) == ((), ("1.weight", "1.bias"))
    assert not new.state


def test_a_state_without_names_wants_them_said():
    model, old = trained_head(lambda model: list(model[1].parameters()))
    new = torch.optim.Adam(model.parameters(), lr=0.1)
    with pytest.raises(TrainError, match="by number alone"):
        carry_state(old.state_dict(), new, model)
    assert carry_state(old.state_dict(), new, model, trained=["1.weight", "1.bias"]).kept == ("1.weight", "1.bias")
