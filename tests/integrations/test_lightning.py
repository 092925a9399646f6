"""Lightning's own Trainer, with our callback in it."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BackboneFinetuning, BaseFinetuning, ModelCheckpoint
from tests.integrations.nets import Net, WithOrphan, frozen_body, images, is_finite, same, statistics
from torch import nn
from torch.utils.data import DataLoader

import torchgraft as tg
from torchgraft.errors import RecipeError, TrainError
from torchgraft.integrations.lightning import GraftCallback

pytestmark = pytest.mark.filterwarnings("ignore")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


class Classifier(LightningModule):
    def __init__(self, net: Net, groups: Any = None) -> None:
        super().__init__()
        self.net, self.groups = net, groups
        self.backbone = net.body  # what BackboneFinetuning looks for
        self.seen: list[list[str]] = []
        self.peek: Callable[[], object] = lambda: None

    def training_step(self, batch: Any, _: int) -> torch.Tensor:
        self.peek()
        self.seen.append([name for name, one in self.net.named_modules() if one.training and "body." in name])
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch: Any, _: int) -> None:
        self.net(batch[0])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        trained = self.groups or [one for one in self.net.parameters() if one.requires_grad]
        return torch.optim.SGD(trained, lr=0.1, momentum=0.9)


class Frozen(BaseFinetuning):
    """As Lightning's documentation has it."""

    def freeze_before_training(self, pl_module: Any) -> None:
        self.freeze(pl_module.backbone, train_bn=False)

    def finetune_function(self, *_: Any) -> None:
        pass


def fit(
    model: Classifier,
    *callbacks: Any,
    epochs: int = 1,
    bad: int | None = None,
    path: Path | None = None,
    **more: Any,
) -> Trainer:
    trainer = Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=more.pop("logger", False),
        enable_checkpointing=any(isinstance(one, ModelCheckpoint) for one in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
        **more,
    )
    val = DataLoader(images(), batch_size=8)
    trainer.fit(model, DataLoader(images(bad=bad), batch_size=8), val, ckpt_path=path)
    return trainer


def test_frozen_norms_keep_their_statistics_over_epochs_with_validation() -> None:
    model = Classifier(frozen_body(Net()))
    before = statistics(model.net)
    model.net.train()
    fit(model, GraftCallback(), epochs=2)
    assert same(statistics(model.net), before)
    assert model.seen == [[]] * 8, "nothing in the body trained"


def test_without_the_callback_they_drift() -> None:
    model = Classifier(frozen_body(Net()))
    before = statistics(model.net)
    fit(model)
    assert not same(statistics(model.net), before)


@pytest.mark.parametrize("ours", [False, True])
def test_norms_that_lightning_froze_depend_on_the_batch_without_the_callback_alone(ours: bool) -> None:
    given = images()[:8][0]
    model = Classifier(Net())
    outputs: list[torch.Tensor] = []
    model.net.body[3].p = 0.0

    def look() -> None:
        with torch.no_grad():
            outputs.append(model.net.body(given)[:1] - model.net.body(given[:4])[:1])

    model.peek = look
    fit(model, Frozen(), *([GraftCallback()] if ours else []))
    assert (max(float(one.abs().max()) for one in outputs) < 1e-5) is ours


def test_a_batch_with_nan_stops_before_anything_is_spoilt() -> None:
    model = Classifier(Net())
    callback = GraftCallback(replay=False)
    with pytest.raises(TrainError, match="spoil the weights"):
        fit(model, callback, bad=11, gradient_clip_val=1.0)
    assert is_finite(model.net)
    assert [one.code for one in callback.findings] == ["T020"]


def test_such_a_step_can_be_left_out() -> None:
    model = Classifier(Net())
    callback = GraftCallback(on_nan="skip")
    fit(model, callback, bad=11, gradient_clip_val=1.0, epochs=2)
    assert is_finite(model.net)
    assert callback.watched is not None
    assert callback.watched.skipped == 2


def test_a_parameter_without_gradients_is_told_by_lightnings_own_warning() -> None:
    callback = GraftCallback()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        fit(Classifier(WithOrphan()), callback)
    assert [one.code for one in callback.findings] == ["T021"]
    assert any("forgotten" in str(one.message) for one in told)


def test_findings_and_norms_reach_the_experiments_logger(tmp_path: Path) -> None:
    from lightning.pytorch.loggers import CSVLogger

    fit(Classifier(Net()), GraftCallback(), logger=CSVLogger(tmp_path), log_every_n_steps=1)
    written = next(tmp_path.rglob("metrics.csv")).read_text().splitlines()
    assert "torchgraft/gradient_norm" in written[0]
    assert len(written) == 5


def test_the_body_is_unfrozen_by_epochs_and_moves_from_then_on() -> None:
    net = Net()
    model = Classifier(net, tg.load(net).groups({"body": {"lr": 0.01}, "head": {"lr": 0.1}}))
    weights: list[torch.Tensor] = []
    model.peek = lambda: weights.append(net.body[0].weight.detach().clone())
    callback = GraftCallback(unfreeze={3: "net.body"})
    trainer = fit(model, callback, epochs=3)
    assert all(torch.equal(one, weights[0]) for one in weights[:9]), "still through two epochs"
    assert not torch.equal(weights[9], weights[8])
    assert [group["lr"] for group in trainer.optimizers[0].param_groups] == [0.01, 0.1]
    assert model.seen[:8] == [[]] * 8
    assert model.seen[8] != []
    assert callback.findings == ()


def test_the_first_epoch_has_nothing_to_unfreeze() -> None:
    with pytest.raises(RecipeError, match="epoch 1"):
        fit(Classifier(Net()), GraftCallback(unfreeze={1: "net.body"}))


@pytest.mark.parametrize("ours", [False, True])
def test_a_backbone_that_was_trained_before_a_stop_is_trained_after_it(tmp_path: Path, ours: bool) -> None:
    """Lightning freezes it before the checkpoint is read, and never unfreezes it again."""
    more = [GraftCallback()] if ours else []
    keep = ModelCheckpoint(tmp_path, save_last=True)
    fit(Classifier(Net()), BackboneFinetuning(unfreeze_backbone_at_epoch=1), keep, *more, epochs=2)
    model = Classifier(Net())
    more = [GraftCallback()] if ours else []
    fit(model, BackboneFinetuning(unfreeze_backbone_at_epoch=1), *more, epochs=3, path=tmp_path / "last.ckpt")
    assert all(one.requires_grad for one in model.net.body.parameters()) is ours


def test_unfreezing_resumes_to_the_same_weights_as_without_a_stop(tmp_path: Path) -> None:
    def trained(epochs: int, *more: Any, path: Path | None = None) -> Net:
        net = Net()
        net.body[3].p = 0.0
        model = Classifier(net, tg.load(net).groups(lr=0.1))
        fit(model, GraftCallback(unfreeze={2: "net.body"}), *more, epochs=epochs, path=path)
        return net

    whole = trained(4)
    trained(3, ModelCheckpoint(tmp_path, save_last=True))
    assert same(dict(trained(4, path=tmp_path / "last.ckpt").state_dict()), dict(whole.state_dict()))
