"""The training loop: torch's engines, our bookkeeping."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from torchgraft.edits.head import tasks
from torchgraft.errors import TrainError
from torchgraft.history import Epoch, History
from torchgraft.params.still import train_mode
from torchgraft.recipe import TrainPlan
from torchgraft.train.accumulate import Turn, turns
from torchgraft.train.augment import augmentation
from torchgraft.train.batches import batches, sizes_of
from torchgraft.train.checkpointing import checkpointed, checkpointed_modules
from torchgraft.train.evaluate import tally
from torchgraft.train.optimise import check_tasks, loss_of, optimizer_of, schedule_of, scores_of
from torchgraft.train.rates import groups_of, starting, unfrozen
from torchgraft.train.step import Stepper

if TYPE_CHECKING:
    from torchgraft.data import DataSet
    from torchgraft.graft import Graft
    from torchgraft.preprocess import Preprocess

__all__ = ["Watch", "check_training", "device_of", "fit"]


@dataclass(frozen=True)
class Watch:
    """What the loop tells while it runs. Each is called with plain data and may be left out.

    Attributes:
        step: after each step, with (epoch, step, steps in the epoch, loss).
        epoch: after each epoch.
        state: with the name `last` or `best` and the state dict, whenever one is worth keeping.
    """

    step: Callable[[int, int, int, float], None] = lambda *_: None
    epoch: Callable[[Epoch], None] = lambda _: None
    state: Callable[[str, Mapping[str, Tensor]], None] = lambda *_: None


_SILENT = Watch()


def device_of(plan: TrainPlan) -> torch.device:
    """Give the device of the plan; `auto` takes an accelerator where there is one.

    Raises:
        TrainError: there is no such device here.
    """
    if plan.device == "auto":
        found = torch.accelerator.current_accelerator(check_available=True)
        return found or torch.device("cpu")
    try:
        torch.zeros(1, device=plan.device).tolist()  # on `meta` there is nothing to read
        return torch.device(plan.device)
    except (RuntimeError, AssertionError, ImportError) as error:
        raise TrainError(
            f"there is no device '{plan.device}' here", where="train.device", hint="take auto, or cpu"
        ) from error


def check_training(plan: TrainPlan) -> None:
    """Try the device, and the optimizer on one parameter, before anything large is loaded.

    Raises:
        TrainError: there is no such device or optimizer, or it does not take its settings.
    """
    device_of(plan)
    optimizer_of(plan, [{"params": [nn.Parameter(torch.zeros(1, 1))]}])


def fit(graft: Graft, data: DataSet, plan: TrainPlan, preprocess: Preprocess, watch: Watch = _SILENT) -> History:
    """Train a graft's model in place, by seed the same every time on the same machine.

    Frozen parts stay in evaluation mode, so their BatchNorm statistics and dropout do not move. At the end the
    model holds the best or the last state, as the plan says; after Ctrl-C it holds the state it had then.

    Raises:
        TrainError: nothing can be trained, the data do not fit the head, or the loss is not finite any more.
    """
    check_tasks(tasks(graft.recipe.edits))
    device = device_of(plan)
    model = graft.module.to(device)
    seed = graft.recipe.seed
    again = checkpointed_modules(graft.module, plan.checkpointing, roles=graft.roles)
    with starting(graft, plan) as steps, _determined(seed):
        _check_trainable(graft)
        optimizer = optimizer_of(plan, groups_of(graft, plan))
        train = batches(data.train, preprocess.transform(), plan, train=True, seed=seed)
        val = batches(data.val, preprocess.transform(), plan, train=False)
        run = _Run(model, plan, device, optimizer, watch, train, val)
        run.again = tuple(again.values())
        run.before = lambda epoch: unfrozen(graft, plan, steps, epoch, optimizer, run.schedule)
        return run.all_epochs()


def _check_trainable(graft: Graft) -> None:
    if not any(parameter.requires_grad for parameter in graft.module.parameters()):
        raise TrainError("every parameter is frozen", where=graft.name, hint="unfreeze: {at: head}")


@contextmanager
def _determined(seed: int) -> Iterator[None]:
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


class _Run:
    """One run of the loop."""

    def __init__(
        self,
        model: nn.Module,
        plan: TrainPlan,
        device: torch.device,
        optimizer: torch.optim.Optimizer,
        watch: Watch,
        train: Any,
        val: Any,
    ) -> None:
        self.model, self.plan, self.device, self.watch = model, plan, device, watch
        self.optimizer = optimizer
        self.augment = augmentation(plan)
        self.train, self.val = train, val
        self.turns = turns(sizes_of(train), plan.accumulate)
        self.stepper = Stepper(plan, optimizer, device)
        self.schedule = schedule_of(plan, optimizer, plan.epochs * sum(turn.closes for turn in self.turns))
        self.before: Callable[[int], object] = lambda _: None
        self.again: tuple[nn.Module, ...] = ()
        self.epochs: list[Epoch] = []
        self.best = 0
        self.best_state: dict[str, Tensor] = {}

    def all_epochs(self) -> History:
        start = time.perf_counter()
        ended: Literal["finished", "interrupted"] = "finished"
        try:
            for number in range(1, self.plan.epochs + 1):
                self._keep(self._epoch(number))
        except KeyboardInterrupt:
            ended = "interrupted"
            self.watch.state("last", self.model.state_dict())
        if ended == "finished" and self.plan.keep == "best" and self.best_state:
            self.model.load_state_dict(self.best_state)
        self.model.eval()
        return History(epochs=tuple(self.epochs), best=self.best, ended=ended, seconds=time.perf_counter() - start)

    def _epoch(self, number: int) -> Epoch:
        start = time.perf_counter()
        self.before(number)
        rate = max(group["lr"] for group in self.optimizer.param_groups)
        train_mode(self.model)
        with checkpointed(self.again):
            loss, accuracy = self._batches(number)
        val_loss, val_accuracy = tally(self.model, self.val, self.device)
        return Epoch(
            number=number,
            train_loss=loss,
            train_accuracy=accuracy,
            val_loss=val_loss,
            val_accuracy=val_accuracy,
            lr=rate,
            seconds=time.perf_counter() - start,
        )

    def _batches(self, number: int) -> tuple[float, float]:
        """Train on every batch once, and give the mean loss and the accuracy."""
        loss_sum, right, count = 0.0, 0, 0
        for step, (images, targets) in enumerate(self.train, 1):
            varied = self.augment(images.to(self.device))
            turn = self.turns[step - 1]
            loss, scores = self._step(varied, targets.to(self.device), turn, f"epoch {number}, step {step}")
            loss_sum += loss * len(targets)
            right += int((scores.argmax(1).cpu() == targets).sum())
            count += len(targets)
            self.watch.step(number, step, len(self.train), loss)
        return loss_sum / count, right / count

    def _step(self, images: Tensor, targets: Tensor, turn: Turn, moment: str) -> tuple[float, Tensor]:
        if turn.opens:
            self.stepper.open()
        output, loss = self.stepper.forward(
            lambda: self.model(images), lambda output: loss_of(output, targets, self.plan)
        )
        value = float(loss.detach())
        if not torch.isfinite(loss.detach()):
            raise TrainError(
                f"the loss is {value} at {moment}",
                where="train.optimizer",
                hint="lower the learning rate, or clip the gradients (clip: 1.0); the last good state is kept",
            )
        self.stepper.backward(loss, turn.share)
        if turn.closes:
            self.stepper.close()
            self.schedule.step()
        return value, scores_of(output).detach()

    def _keep(self, epoch: Epoch) -> None:
        self.epochs.append(epoch)
        before = self.epochs[self.best - 1].val_accuracy if self.best else -1.0
        state = self.model.state_dict()
        if epoch.val_accuracy > before:
            self.best = epoch.number
            if self.plan.keep == "best":
                self.best_state = {name: tensor.detach().clone() for name, tensor in state.items()}
            self.watch.state("best", state)
        self.watch.state("last", state)
        self.watch.epoch(epoch)
