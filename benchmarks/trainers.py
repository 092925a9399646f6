"""The same training by ten trainers: SGD with momentum, clipping by the norm, a schedule by steps, the loss read.

Each function trains a model on any iterable of batches `(inputs, targets)` that has a length, as that trainer's
documentation has it, its bars, files and loggers off. `ours=True` adds what torchgraft has for it.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

import torchgraft as tg

__all__ = ["TRAINERS", "Batches", "Pairs"]

CLIP, RATE = 1.0, 0.01


class Pairs(Protocol):
    """Batches, as often as they are asked for."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]: ...
    def __len__(self) -> int: ...


class Batches:
    """Batches of a list."""

    def __init__(self, pairs: Sequence[tuple[Tensor, Tensor]]) -> None:
        self.pairs = pairs

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(self.pairs)

    def __len__(self) -> int:
        return len(self.pairs)


def _sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD([one for one in model.parameters() if one.requires_grad], lr=RATE, momentum=0.9)


def _schedule(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LambdaLR:
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0 / (1 + step * 1e-6))


def bare(model: nn.Module, batches: Pairs, *, epochs: int = 1, ours: bool = False) -> None:
    """A loop in plain PyTorch; with `ours`, `tg.watch` and `tg.train_mode`."""
    optimizer = _sgd(model)
    schedule = _schedule(optimizer)
    trained = [one for one in model.parameters() if one.requires_grad]
    watched = tg.watch(model, optimizer, on_nan="skip") if ours else None
    for _ in range(epochs):
        tg.train_mode(model) if ours else model.train()
        for x, y in batches:
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(x), y)
            loss.item()
            loss.backward()
            if watched is None:
                nn.utils.clip_grad_norm_(trained, CLIP)
            else:
                watched.clip(CLIP)
            optimizer.step()
            schedule.step()


def torchgraft(model: nn.Module, batches: Pairs, *, epochs: int = 1, ours: bool = False) -> None:
    """torchgraft's own loop, on batches that are made already."""
    from torchgraft.train.feed import Batch, Feed
    from torchgraft.train.loop import _Run
    from torchgraft.train.session import Feeds, Session
    from torchgraft.train.stop import Stop
    from torchgraft.train.tasks.classes import Classes
    from torchgraft.train.watch import Watch
    from torchgraft.trainplan import TrainPlan

    class Made(Feed):
        def __init__(self, pairs: Pairs) -> None:
            self.pairs = pairs

        def sizes(self) -> list[int]:
            return [64] * len(self.pairs)

        def batches(self, epoch: int, *, start: int = 0) -> Iterator[Batch]:
            return (Batch(x, y, len(y)) for x, y in self.pairs)

    x, y = next(iter(Batches(getattr(batches, "pairs", batches))))
    plan = TrainPlan.model_validate(
        {"data": "python", "epochs": epochs, "batch": 64, "clip": CLIP, "warmup": 0.0, "keep": "last",
         "optimizer": {"sgd": {"lr": RATE, "momentum": 0.9}}}
    )  # fmt: skip
    feeds = Feeds(Made(batches), Made(Batches([(x[:2], y[:2])])))
    session = Session(tg.load(model), plan, feeds, Classes(10), torch.device("cpu"))
    _Run(session, Watch(found=lambda one: warnings.warn(str(one), stacklevel=2)), None, Stop()).to_the_end()


def fabric(model: nn.Module, batches: Pairs, *, epochs: int = 1, ours: bool = False) -> None:
    """Fabric: the user's own loop, with its wrappers."""
    from lightning.fabric import Fabric

    own = Fabric(accelerator="cpu", devices=1)
    own.launch()
    given = _sgd(model)
    wrapped, optimizer = own.setup(model, given)
    schedule = _schedule(given)
    watched = tg.watch(wrapped, optimizer, on_nan="skip") if ours else None
    with tg.still(model) if ours else nullcontext():
        for _ in range(epochs):
            wrapped.train()
            for x, y in batches:
                optimizer.zero_grad()
                loss = functional.cross_entropy(wrapped(x), y)
                loss.item()
                own.backward(loss)
                own.clip_gradients(wrapped, optimizer, max_norm=CLIP, error_if_nonfinite=False)
                optimizer.step()
                schedule.step()
    if watched is not None:
        watched.close()


def accelerate(model: nn.Module, batches: Pairs, *, epochs: int = 1, ours: bool = False) -> None:
    """Accelerate: the user's own loop, with its wrappers, as its examples have it."""
    from accelerate import Accelerator

    own = Accelerator(cpu=True)
    given = _sgd(model)
    wrapped, optimizer, schedule = own.prepare(model, given, _schedule(given))
    watched = tg.watch(wrapped, optimizer, on_nan="skip") if ours else None
    with tg.still(model) if ours else nullcontext():
        for _ in range(epochs):
            wrapped.train()
            for x, y in batches:
                with own.accumulate(wrapped):
                    loss = functional.cross_entropy(wrapped(x), y)
                    loss.item()
                    own.backward(loss)
                    if own.sync_gradients:
                        own.clip_grad_norm_(wrapped.parameters(), CLIP)
                    optimizer.step()
                    schedule.step()
                    optimizer.zero_grad()
    if watched is not None:
        watched.close()


def ignite(model: nn.Module, batches: Pairs, *, epochs: int = 1, ours: bool = False) -> None:
    """ignite: an engine around an update of one's own, which begins with `model.train()` as its examples do."""
    from ignite.engine import Engine, Events

    optimizer = _sgd(model)
    schedule = _schedule(optimizer)
    watched = tg.watch(model, optimizer, on_nan="skip") if ours else None

    def update(_: Engine, batch: tuple[Tensor, Tensor]) -> float:
        model.train()
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(batch[0]), batch[1])
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        return loss.item()

    engine = Engine(update)
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda: schedule.step())
    with tg.still(model) if ours else nullcontext():
        engine.run(batches, max_epochs=epochs)
    if watched is not None:
        watched.close()


def skorch(model: nn.Module, batches: Pairs, *, epochs: int = 1, ours: bool = False) -> None:
    """skorch: a net as scikit-learn has estimators."""
    from skorch import NeuralNet
    from skorch.callbacks import Callback, GradientNormClipping, LRScheduler, PassthroughScoring

    class Ours(Callback):  # type: ignore[misc]
        def on_train_begin(self, net: Any, **_: Any) -> None:
            self.held = (tg.still(net.module_), tg.watch(net.module_, net.optimizer_, on_nan="skip"))

    steps = LRScheduler(torch.optim.lr_scheduler.LambdaLR, lr_lambda=lambda step: 1 / (1 + step * 1e-6), step_every="batch")  # fmt: skip # noqa: E501
    net = NeuralNet(
        model,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.SGD,
        optimizer__momentum=0.9,
        lr=RATE,
        max_epochs=epochs,
        train_split=None,
        iterator_train=lambda _, **__: batches,
        callbacks=[("clip", GradientNormClipping(CLIP)), ("steps", steps), *([("ours", Ours())] if ours else [])],
        callbacks__print_log=None,
        callbacks__valid_loss=None,
        callbacks__train_loss=PassthroughScoring("train_loss", on_train=True),
        verbose=0,
    )
    net.initialize()
    if net.module_ is not model:
        raise AssertionError("skorch copied the model")
    net.partial_fit(torch.zeros(1), torch.zeros(1))


def torchtnt(model: nn.Module, batches: Pairs, *, epochs: int = 1, ours: bool = False) -> None:
    """torchtnt: an AutoUnit, its callbacks for logging off."""
    from torchtnt.framework.auto_unit import AutoUnit
    from torchtnt.framework.train import train

    class Unit(AutoUnit[tuple[Tensor, Tensor]]):
        def compute_loss(self, state: Any, data: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            scores = self.module(data[0])
            return functional.cross_entropy(scores, data[1]), scores

        def configure_optimizers_and_lr_scheduler(self, module: nn.Module) -> Any:
            optimizer = _sgd(module)
            if ours:
                self.held = tg.watch(model, optimizer, on_nan="skip")
            return optimizer, _schedule(optimizer)

        def on_train_step_end(self, state: Any, data: Any, step: int, results: Any) -> None:
            results.loss.item()

    unit = Unit(module=model, clip_grad_norm=CLIP, step_lr_interval="step", device=torch.device("cpu"))
    with tg.still(model) if ours else nullcontext():
        train(unit, batches, max_epochs=epochs)


def fastai(model: nn.Module, batches: Pairs, *, epochs: int = 1, ours: bool = False) -> None:
    """fastai: a Learner with torch's SGD, no bar."""
    from fastai.callback.schedule import ParamScheduler
    from fastai.callback.training import GradientClip
    from fastai.data.core import DataLoaders
    from fastai.learner import Learner
    from fastai.optimizer import OptimWrapper

    from torchgraft.integrations.fastai import GraftCallback

    class Loader:
        device, drop_last = torch.device("cpu"), False

        def __iter__(self) -> Any:
            return iter(batches)

        def __len__(self) -> int:
            return len(batches)

        def to(self, *_: Any) -> None:
            pass

    learn = Learner(
        DataLoaders(Loader(), Batches([])),
        model,
        loss_func=functional.cross_entropy,
        opt_func=lambda groups, **_: OptimWrapper(groups, torch.optim.SGD, lr=RATE, momentum=0.9),
        lr=RATE,
        cbs=[
            GradientClip(CLIP),
            ParamScheduler({"lr": lambda share: RATE / (1 + share * 1e-6)}),
            *([GraftCallback(on_nan="skip")] if ours else []),
        ],
    )
    learn.remove_cbs([one for one in learn.cbs if one.name == "progress"])
    learn.recorder.train_metrics = False
    learn.recorder.valid_metrics = False
    learn._do_epoch_validate = lambda *_, **__: None
    with learn.no_logging():
        learn.fit(epochs)


def lightning(model: nn.Module, batches: Pairs, *, epochs: int = 1, ours: bool = False) -> None:
    """Lightning: automatic optimisation, no logger, bar or checkpoint."""
    from lightning.pytorch import LightningModule, Trainer

    from torchgraft.integrations.lightning import GraftCallback

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = model

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            loss = functional.cross_entropy(self.net(batch[0]), batch[1])
            loss.item()
            return loss

        def configure_optimizers(self) -> Any:
            optimizer = _sgd(model)
            return [optimizer], [{"scheduler": _schedule(optimizer), "interval": "step"}]

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        gradient_clip_val=CLIP,
        callbacks=[GraftCallback(on_nan="skip")] if ours else [],
    ).fit(Module(), batches)


def huggingface(model: nn.Module, batches: Pairs, *, epochs: int = 1, ours: bool = False) -> None:
    """The Trainer of transformers: nothing is saved or logged."""
    from transformers import Trainer, TrainingArguments
    from transformers.trainer_callback import PrinterCallback

    from torchgraft.integrations.huggingface import GraftCallback

    class Scored(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = model

        def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
            scores = self.net(x)
            return {"loss": functional.cross_entropy(scores, labels), "logits": scores}

    class Named:
        def __iter__(self) -> Any:
            return ({"x": x, "labels": y} for x, y in batches)

        def __len__(self) -> int:
            return len(batches)

    class Own(Trainer):
        def get_train_dataloader(self) -> Any:
            return Named()

    optimizer = _sgd(model)
    with tempfile.TemporaryDirectory() as folder:
        settings = TrainingArguments(
            folder, num_train_epochs=epochs, report_to=[], use_cpu=True, disable_tqdm=True, logging_strategy="no",
            save_strategy="no", max_grad_norm=CLIP,
        )  # fmt: skip
        more = [GraftCallback(on_nan="skip")] if ours else []
        trainer = Own(
            Scored(), settings, train_dataset=[0], callbacks=more, optimizers=(optimizer, _schedule(optimizer))
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()


TRAINERS: dict[str, Callable[..., None]] = {
    "torchgraft": torchgraft,
    "bare": bare,
    "Fabric": fabric,
    "ignite": ignite,
    "Accelerate": accelerate,
    "skorch": skorch,
    "torchtnt": torchtnt,
    "fastai": fastai,
    "Lightning": lightning,
    "Hugging Face": huggingface,
}

warnings.filterwarnings("ignore")
