"""Faults of looking inside a model, by the tools and hooks that people use today: here they can't happen."""

from __future__ import annotations

import torch
from torch import nn

import torchgraft as tg


def test_a_recurrent_net_and_its_several_outputs_are_listed():
    g = tg.load(nn.LSTM(8, 16, num_layers=2, batch_first=True), input=torch.randn(2, 5, 8))
    whole = g.show().whole
    assert whole.gave == ((2, 5, 16), (2, 2, 16), (2, 2, 16))
    assert whole.parameters == sum(one.numel() for one in g.module.parameters())


def test_a_model_that_gives_a_dict_is_listed_by_its_names():
    from torchvision.models.segmentation import lraspp_mobilenet_v3_large

    model = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None)
    seen = tg.load(model, input=(3, 64, 64)).show()
    assert [(one.name, one.shape) for one in seen.outputs] == [("out", (2, 21, 64, 64))]


def test_looking_moves_no_statistics_and_draws_no_random_number(snapshot):
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten(), nn.Linear(144, 2)
    ).train()
    before, state = snapshot(model), torch.get_rng_state()
    g = tg.load(model, input=(3, 8, 8))
    g.show(), g.draw(), g.diff(values=False), g.memory(batch=2)
    assert snapshot(model) == before
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training


class Choosing(nn.Module):
    """Takes another way where the values say so."""

    def __init__(self):
        super().__init__()
        self.small, self.large = nn.Linear(4, 2), nn.Linear(4, 2)

    def forward(self, x):
        return self.large(x) if x.sum().item() > 0 else self.small(x)


def test_a_model_whose_flow_depends_on_values_is_listed_drawn_and_captured():
    g = tg.load(Choosing(), input=torch.ones(2, 4), real=True)
    assert [row.path for row in g.show().rows if row.calls and row.path] == ["large"]
    assert "large" in g.draw().svg()
    with g.capture("large") as seen:
        out = g.module(torch.ones(2, 4))
    assert torch.equal(seen["large"], out)


def test_a_drawing_needs_no_program_beside_python(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    g = tg.load(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), input=(4,))
    for name in ("a.svg", "a.png"):
        assert g.draw(tmp_path / name).exists()


def test_a_feature_is_what_the_layer_gave_each_time_it_was_called_and_can_be_in_a_loss():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x):
            return torch.relu_(self.fc(torch.relu_(self.fc(x))))

    model, x = Shared(), torch.randn(3, 4)
    for _ in range(2):  # hooks of the first time are gone
        with tg.features.capture(model, "fc", detach=False) as seen:
            model(x)
        first, second = seen.calls("fc")
        assert torch.equal(first, model.fc(x))
        assert torch.equal(second, model.fc(torch.relu(model.fc(x))))
    second.pow(2).mean().backward()
    assert model.fc.weight.grad.abs().sum() > 0
    assert not model.fc._forward_hooks
