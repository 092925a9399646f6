"""Faults of a training that raise nothing: what ten trainers do about each, seen by really training.

A small network with norms, dropout and a head is trained for two epochs on random images. A cell says what was
left behind, and whether anything was said: a warning, a line of a log, an exception.
"""

from __future__ import annotations

import io
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.measure import table
from benchmarks.trainers import TRAINERS, Batches
from torchgraft.errors import TrainError

TITLE = "Silent faults of a training, by trainer"

Train = Callable[..., None]


class Net(nn.Module):
    """`[N, 3, 6, 6]` -> `[N, 10]`."""

    def __init__(self, *, orphan: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3))
        self.head = nn.Linear(8, 10)
        if orphan:
            self.forgotten = nn.Linear(8, 10)
        self.peek: Callable[[], object] = lambda: None

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.peek()
        return self.head(self.body(x).relu().mean((2, 3)))


def pairs(*, bad: bool = False) -> list[tuple[Tensor, Tensor]]:
    """Give three batches; in a `bad` set the second holds one NaN."""
    torch.manual_seed(1)
    made = [(torch.randn(16, 3, 6, 6), torch.randint(0, 10, (16,))) for _ in range(3)]
    if bad:
        made[1][0][5, 0, 0, 0] = float("nan")
    return made


@contextmanager
def heard() -> Iterator[list[str]]:
    """Gather all that is said meanwhile: warnings, logs, print."""
    said: list[str] = []

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    ear, out = Ear(), io.StringIO()
    loggers = [
        logging.getLogger(name) for name in (None, "lightning.pytorch", "transformers", "accelerate", "ignite")
    ]
    for one in loggers:
        one.addHandler(ear)
    try:
        with warnings.catch_warnings(record=True) as told, redirect_stdout(out), redirect_stderr(out):
            warnings.simplefilter("always")
            yield said
        said += [str(one.message) for one in told] + [out.getvalue()]
    finally:
        for one in loggers:
            one.removeHandler(ear)


def _frozen(net: Net) -> Net:
    """Freeze the body as users do: no gradients, and evaluation mode once before the training."""
    for one in net.body.parameters():
        one.requires_grad_(False)
    net.body.eval()
    return net


def norms_woken(train: Train, *, ours: bool) -> str:
    """Tell whether the statistics of a frozen norm moved."""
    net = _frozen(Net())
    before = net.body[1].running_mean.clone()
    train(net, Batches(pairs()), epochs=2, ours=ours)
    return "still" if torch.equal(net.body[1].running_mean, before) else "**drift**"


def batch_dependent(train: Train, *, ours: bool, freeze: Callable[[Net], object] = _frozen) -> str:
    """Tell whether, in training, a frozen body gives an image other features beside other images."""
    net = Net()
    freeze(net)
    apart: list[float] = []
    given = pairs()[0][0]

    def look() -> None:
        with torch.no_grad():
            kept = [one.clone() for one in net.body.buffers()]
            apart.append(float((net.body(given)[:1] - net.body(given[:4])[:1]).abs().max()))
            for one, old in zip(net.body.buffers(), kept, strict=True):
                one.copy_(old)

    net.peek = look
    train(net, Batches(pairs()), epochs=2, ours=ours)
    return "no" if max(apart) < 1e-5 else "**yes**"


def bad_batch(train: Train, *, ours: bool) -> str:
    """Tell what became of the weights after a batch with one NaN in it."""
    net = Net()
    with heard() as said:
        try:
            train(net, Batches(pairs(bad=True)), epochs=2, ours=ours)
            end = "left out, weights sound"
        except TrainError:
            end = "stops, weights sound"
        except Exception as error:
            end = f"{type(error).__name__}"
    weights = all(bool(torch.isfinite(one).all()) for one in net.parameters())
    told = any(" NaN" in one or "not finite" in one for one in said)
    return end if weights else "**NaN weights**" + (", said" if told else "")


def orphan(train: Train, *, ours: bool) -> str:
    """Tell whether anybody speaks of a trainable layer that nothing uses."""
    with heard() as said:
        train(Net(orphan=True), Batches(pairs()), epochs=2, ours=ours)
    return "told" if any("forgotten" in one for one in said) else "**silent**"


# a training that unfreezes its body in its second epoch, stops after it, and is resumed


def _is_trained(net: Net) -> str:
    return "trained" if all(one.requires_grad for one in net.body.parameters()) else "**stays frozen**"


def resumed_lightning(*, ours: bool) -> str:
    """Resume BackboneFinetuning by Lightning's own checkpoint."""
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.callbacks import BackboneFinetuning, ModelCheckpoint

    from torchgraft.integrations.lightning import GraftCallback

    class Module(LightningModule):
        def __init__(self, net: Net) -> None:
            super().__init__()
            self.net, self.backbone = net, net.body

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return functional.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD([one for one in self.parameters() if one.requires_grad], lr=0.01, momentum=0.9)

    def fit(epochs: int, folder: str, *, resume: bool) -> Net:
        module = Module(Net())
        more = [GraftCallback()] if ours else []
        trainer = Trainer(
            max_epochs=epochs, accelerator="cpu", devices=1, logger=False, enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[BackboneFinetuning(1), ModelCheckpoint(folder, save_last=True), *more],
        )  # fmt: skip
        trainer.fit(module, Batches(pairs()), ckpt_path=str(Path(folder, "last.ckpt")) if resume else None)
        return module.net

    with tempfile.TemporaryDirectory() as folder:
        fit(2, folder, resume=False)
        return _is_trained(fit(3, folder, resume=True))


def resumed_huggingface(*, ours: bool) -> str:
    """Resume the Trainer of transformers; it has no unfreezing of its own, so a callback does it, or ours."""
    from transformers import Trainer, TrainerCallback, TrainingArguments

    from torchgraft.integrations.huggingface import GraftCallback

    class Scored(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = Net()

        def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
            scores = self.net(x)
            return {"loss": functional.cross_entropy(scores, labels), "logits": scores}

    class Second(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, *_: Any, model: Scored, **__: Any) -> None:
            model.net.body.requires_grad_(False)

        def on_epoch_begin(self, args: Any, state: Any, *_: Any, model: Scored, **__: Any) -> None:
            if round(state.epoch) == 1:
                model.net.body.requires_grad_(True)

    rows = [{"x": x, "labels": y} for xs, ys in pairs() for x, y in zip(xs, ys, strict=True)]

    def fit(epochs: int, folder: str, *, resume: bool) -> Net:
        settings = TrainingArguments(
            folder, num_train_epochs=epochs, report_to=[], use_cpu=True, disable_tqdm=True, logging_strategy="no",
            save_strategy="epoch", per_device_train_batch_size=16,
        )  # fmt: skip
        model = Scored()
        callback = GraftCallback(unfreeze={2: "net.body"}) if ours else Second()
        Trainer(model, settings, train_dataset=rows, callbacks=[callback]).train(resume_from_checkpoint=resume)
        return model.net

    with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
        fit(2, folder, resume=False)
        return _is_trained(fit(3, folder, resume=True))


def resumed_fastai(*, ours: bool) -> str:
    """Resume a Learner whose body was unfrozen: `load` brings weights and the optimizer's state."""
    import fastai.callback.progress  # noqa: F401 (no_bar)
    from fastai.data.core import DataLoaders
    from fastai.data.load import DataLoader
    from fastai.learner import Learner

    from torchgraft.integrations.fastai import GraftCallback

    rows = [(x, y) for xs, ys in pairs() for x, y in zip(xs, ys, strict=True)]

    def learner(folder: str) -> Learner:
        loaders = DataLoaders(DataLoader(rows, bs=16), DataLoader(rows, bs=16), device=torch.device("cpu"))
        return Learner(
            loaders, Net(), loss_func=functional.cross_entropy, path=folder, lr=0.01,
            splitter=lambda net: [list(net.body.parameters()), list(net.head.parameters())],
            cbs=[GraftCallback(unfreeze={2: "body"})] if ours else [],
        )  # fmt: skip

    with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
        first, again = learner(folder), learner(folder)
        with first.no_bar(), again.no_bar():
            if not ours:
                first.freeze()
            first.fit(1)
            if not ours:
                first.unfreeze()
            first.fit(2, start_epoch=1)
            first.save("last")
            if not ours:
                again.freeze()
            again.load("last")
            again.fit(3, start_epoch=2)
        return _is_trained(again.model)


def resumed_torchgraft(*, ours: bool) -> str:
    """Resume torchgraft's own training by its snapshot."""
    import torchgraft as tg
    from torchgraft.train.feed import Batch, Feed
    from torchgraft.train.rates import starting
    from torchgraft.train.session import Feeds, Session
    from torchgraft.train.tasks.classes import Classes
    from torchgraft.trainplan import TrainPlan

    class Made(Feed):
        def sizes(self) -> list[int]:
            return [16] * 3

        def batches(self, epoch: int, *, start: int = 0) -> Iterator[Batch]:
            return (Batch(x, y, 16) for x, y in pairs()[start:])

    plan = TrainPlan.model_validate(
        {"data": "python", "epochs": 3, "batch": 16, "unfreeze": {"epoch": 2, "at": "body"}, "keep": "last"}
    )

    def session(graft: Any, steps: Any) -> Session:
        return Session(graft, plan, Feeds(Made(), Made()), Classes(10), torch.device("cpu"), steps=steps)

    def graft() -> Any:
        return tg.load(_frozen(Net()))

    first, again = graft(), graft()
    with starting(first, plan) as steps:
        one = session(first, steps)
        for _ in range(2):
            one.open_epoch()
            for batch in one.feeds.train.batches(one.epoch):
                one.step(batch)
            one.close_epoch()
        saved = one.snapshot()
    with starting(again, plan) as steps:
        other = session(again, steps)
        other.restore(saved, {})
        other.open_epoch()
        return _is_trained(again.module)


RESUMED: dict[str, Callable[..., str]] = {
    "torchgraft": resumed_torchgraft,
    "fastai": resumed_fastai,
    "Lightning": resumed_lightning,
    "Hugging Face": resumed_huggingface,
}


def _lightning_froze(net: Net) -> object:
    from lightning.pytorch.callbacks import BaseFinetuning

    return BaseFinetuning.freeze(net.body, train_bn=False)


def cells(name: str, *, ours: bool) -> list[str]:
    """Give what one trainer does about each fault."""
    train = TRAINERS[name]
    freeze = _lightning_froze if name == "Lightning" else _frozen
    resumed = RESUMED.get(name)
    return [
        norms_woken(train, ours=ours),
        batch_dependent(train, ours=ours, freeze=freeze),
        resumed(ours=ours) if resumed else "–",
        bad_batch(train, ours=ours),
        orphan(train, ours=ours),
    ]


FAULTS = (
    "frozen BatchNorm: statistics",
    "features of a frozen body depend on the batch",
    "body unfrozen before a stop, after the resume",
    "a batch with NaN",
    "a trainable layer that nothing uses",
)


def run() -> str:
    """Train everything, and write both tables."""
    names = [name for name in TRAINERS if name != "torchgraft"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain = {name: cells(name, ours=False) for name in TRAINERS}
        helped = {name: cells(name, ours=True) for name in names}
    header = ("trainer", *FAULTS)
    with_ours = [(f"{name} + {_added(name)}", *helped[name]) for name in names]
    return "\n".join([
        table(header, [(name, *plain[name]) for name in TRAINERS]), "",
        "With what torchgraft has for them:", "", table(header, with_ours), "",
        "Each cell is read off a real training of two epochs (three, where it is resumed). Frozen bodies were "
        "put into evaluation mode by their user once, before the training; in Lightning's second column the body "
        "was frozen by its own `BaseFinetuning.freeze(train_bn=False)`. –: no unfreezing and resume of its own; "
        "the flags are those that the user's script sets. fastai and the Trainer of transformers have a resume: "
        "their user freezes and unfreezes by hand or by a callback.",
    ])  # fmt: skip


def _added(name: str) -> str:
    return "GraftCallback" if name in ("fastai", "Lightning", "Hugging Face") else "tg.watch, tg.still"


if __name__ == "__main__":
    print(run())
