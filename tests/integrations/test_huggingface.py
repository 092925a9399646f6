"""The Trainer of transformers, with our callback in it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.integrations.nets import Net, WithOrphan, frozen_body, images, is_finite, same, statistics
from torch import Tensor, nn
from transformers import Trainer, TrainingArguments
from transformers.utils import logging as huggingface_logging

import torchgraft as tg
from torchgraft.errors import TrainError
from torchgraft.integrations.huggingface import GraftCallback

huggingface_logging.disable_progress_bar()


class Wrapped(nn.Module):
    """What the Trainer wants: arguments by name, and the loss first."""

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.net = net
        self.seen: list[bool] = []
        self.weights: list[Tensor] = []

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        if self.training:
            self.seen.append(any(one.training for one in self.net.body.modules()))
            self.weights.append(self.net.body[0].weight.detach().clone())
        scores = self.net(x)
        return {"loss": nn.functional.cross_entropy(scores, labels), "logits": scores}


def rows(bad: int | None = None) -> list[dict[str, Tensor]]:
    return [{"x": x, "labels": y} for x, y in images(bad=bad)]


def fit(
    model: nn.Module,
    path: Path,
    *callbacks: Any,
    epochs: int = 1,
    bad: int | None = None,
    resume: bool = False,
    optimizers: Any = (None, None),
    **more: Any,
) -> Trainer:
    args = TrainingArguments(
        str(path), num_train_epochs=epochs, per_device_train_batch_size=8, report_to=[], use_cpu=True,
        learning_rate=0.05, disable_tqdm=True, logging_strategy="no", save_strategy=more.pop("save", "no"), **more,
    )  # fmt: skip
    trainer = Trainer(model, args, train_dataset=rows(bad), callbacks=list(callbacks), optimizers=optimizers)
    trainer.train(resume_from_checkpoint=resume or None)
    return trainer


def test_frozen_norms_keep_their_statistics_although_the_trainer_wakes_them_at_each_batch(tmp_path: Path) -> None:
    model = Wrapped(frozen_body(Net()))
    before = statistics(model)
    fit(model, tmp_path, GraftCallback(), epochs=2)
    assert same(statistics(model), before)
    assert model.seen == [False] * 8
    assert not model._forward_pre_hooks, "nothing is left behind"


def test_without_the_callback_they_drift(tmp_path: Path) -> None:
    model = Wrapped(frozen_body(Net()))
    before = statistics(model)
    fit(model, tmp_path)
    assert not same(statistics(model), before)


def test_a_batch_with_nan_stops_before_anything_is_spoilt(tmp_path: Path) -> None:
    model = Wrapped(Net())
    with pytest.raises(TrainError, match="spoil the weights"):
        fit(model, tmp_path, GraftCallback(), bad=11)
    assert is_finite(model)


def test_such_a_step_can_be_left_out_and_followed_to_the_input(tmp_path: Path) -> None:
    model, callback = Wrapped(Net()), GraftCallback(on_nan="skip", replay=True)
    trainer = fit(model, tmp_path, callback, bad=11, epochs=2)
    assert is_finite(model)
    assert callback.watched is not None
    assert callback.watched.skipped == 2
    told = [one["finding"] for one in trainer.state.log_history if one.get("torchgraft") == "T020"]
    assert len(told) == 1
    assert "the input is not finite" in told[0]


def test_a_parameter_without_gradients_is_told_by_transformers_own_logger(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    callback = GraftCallback()
    huggingface_logging.enable_propagation()
    with caplog.at_level(logging.WARNING, logger="transformers"):
        fit(Wrapped(WithOrphan()), tmp_path, callback)
    huggingface_logging.disable_propagation()
    assert [one.code for one in callback.findings] == ["T021"]
    assert "net.forgotten" in caplog.text


def test_rates_by_layer_come_in_as_an_optimizer(tmp_path: Path) -> None:
    model = Wrapped(Net())
    groups = tg.load(model).groups({"net.body": {"lr": 0.01}, "net.head": {"lr": 0.1}})
    optimizer = torch.optim.SGD(groups)
    trainer = fit(model, tmp_path, GraftCallback(), optimizers=(optimizer, None), lr_scheduler_type="constant")
    assert [group["lr"] for group in trainer.optimizer.param_groups] == [0.01, 0.1]


def test_the_body_is_unfrozen_by_epochs(tmp_path: Path) -> None:
    model, callback = Wrapped(Net()), GraftCallback(unfreeze={3: "net.body"})
    fit(model, tmp_path, callback, epochs=3)
    assert all(torch.equal(one, model.weights[0]) for one in model.weights[:9]), "still through two epochs"
    assert not torch.equal(model.weights[9], model.weights[8])
    assert model.seen == [False] * 8 + [True] * 4
    assert callback.findings == ()


def test_unfreezing_resumes_to_the_same_weights_as_without_a_stop(tmp_path: Path) -> None:
    def trained(path: Path, *, stop: int = 4, resume: bool = False) -> Wrapped:
        model = Wrapped(Net())
        callback = GraftCallback(unfreeze={2: "net.body"})
        args: dict[str, Any] = {"save": "epoch", "lr_scheduler_type": "constant"}
        fit(model, path, callback, epochs=stop, resume=resume, **args)
        return model

    whole = trained(tmp_path / "whole")
    trained(tmp_path / "cut", stop=3)
    assert same(dict(trained(tmp_path / "cut", resume=True).state_dict()), dict(whole.state_dict()))
