from __future__ import annotations

import torch
from torch import nn

from torchgraft.train.average import Average

from .stripes import DATA, SETTINGS, graft


def test_the_average_follows_the_weights_by_the_decay_of_its_step():
    model = nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(0.0)
    average = Average(model, 0.5)
    expected = 0.0
    for step in range(1, 20):
        model.weight.data.fill_(float(step))
        average.update()
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    assert torch.allclose(average.values["weight"], torch.tensor([[expected]]))


def test_the_model_has_the_averages_within_the_block_alone():
    model = nn.Linear(2, 2)
    average = Average(model, 0.9)
    model.weight.data.add_(1.0)
    now, averaged = model.weight.clone(), average.values["weight"].clone()
    with average.put():
        assert torch.equal(model.weight, averaged)
    assert torch.equal(model.weight, now)
    assert torch.equal(average.values["weight"], averaged)


def test_what_is_frozen_is_not_averaged_until_it_is_unfrozen():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].requires_grad_(False)
    average = Average(model, 0.9)
    assert set(average.values) == {"1.weight", "1.bias"}
    model[0].requires_grad_(True)
    average.join()
    assert torch.equal(average.values["0.weight"], model[0].weight)


def test_a_training_holds_the_average_at_its_end_and_was_judged_by_it():
    plain, averaged = graft(), graft()
    plain.train(DATA, keep="last", **SETTINGS)
    history = averaged.train(DATA, keep="last", ema=0.9, **SETTINGS)
    assert not torch.equal(plain.module.fc.weight, averaged.module.fc.weight)
    assert history.epochs[-1].val_accuracy > 0.9
    images = torch.stack([averaged.recipe.preprocess.transform()(DATA.val[n][0]) for n in range(len(DATA.val))])
    with torch.no_grad():
        right = (averaged.module(images).argmax(1) == torch.tensor(DATA.val.labels)).float().mean()
    assert float(right) == history.epochs[-1].val_accuracy
