"""A training that stands between two steps: everything that moves, and how it takes the next step."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from torchgraft.errors import TrainError
from torchgraft.guard import Reading, Statistics, cause
from torchgraft.history import Epoch, History
from torchgraft.params.still import train_mode
from torchgraft.store.tensors import state_digest
from torchgraft.train.accumulate import Turn, grouped, turns
from torchgraft.train.average import Average
from torchgraft.train.compiling import compiled
from torchgraft.train.feed import Batch, Feed, moved
from torchgraft.train.optimise import optimizer_of
from torchgraft.train.prefix import cache_of
from torchgraft.train.rates import check_reached, groups_of, unfrozen
from torchgraft.train.schedule import schedule_of
from torchgraft.train.snapshot import Snapshot
from torchgraft.train.state import set_state, state_of
from torchgraft.train.step import Stepper
from torchgraft.train.task import Task
from torchgraft.train.watch import Moment
from torchgraft.train.world import ALONE, World

if TYPE_CHECKING:
    from torchgraft.graft import Graft
    from torchgraft.params.groups import Groups
    from torchgraft.params.unfreezing import Step
    from torchgraft.train.many.spread import Spread
    from torchgraft.trainplan import TrainPlan

__all__ = ["Feeds", "Session"]


@dataclass(frozen=True)
class Feeds:
    """What is trained on, and what it is judged on."""

    train: Feed
    val: Feed


_CALMER = {
    True: "lower the learning rate, or clip the gradients (clip: 1.0)",
    False: "lower the learning rate; torchgraft find rate looks for one",
}
"""What to do about a step that is not finite, by whether gradients go unclipped."""


class Session:
    """One training, which can be taken down as a snapshot and put up again at any step.

    Attributes:
        epoch: the one that runs, from 1.
        batch: batches of it that are done.
        number: optimizer steps that are done.
        total: optimizer steps of the whole training.
        epochs: the figures of those that are finished.
        between: no gradients of half an optimizer step are held, so that a snapshot says all.
        best: the number of the best of them, 0 where there is none.
        group: what the batches of one optimizer step are to it, where nobody knows how long an epoch is.
        best_state: what moves, as it was then; empty where the plan keeps the last.
    """

    def __init__(
        self,
        graft: Graft,
        plan: TrainPlan,
        feeds: Feeds,
        task: Task,
        device: torch.device,
        *,
        steps: tuple[Step, ...] = (),
        world: World = ALONE,
    ) -> None:
        self.graft, self.plan, self.feeds, self.task, self.device = graft, plan, feeds, task, device
        self.steps, self.world, self.frozen = steps, world, ""
        shared = world.size > 1 and plan.parallel == "fsdp"  # which brings block after block to the device itself
        self.model: nn.Module = graft.module if shared else graft.module.to(device)
        if plan.channels_last:
            self.model.to(memory_format=torch.channels_last)
        groups = groups_of(graft, plan)
        self.spread = self._spread() if world.size > 1 else None
        self.run = self._callable()
        self.optimizer = optimizer_of(plan, _held_now(groups, self.model))
        self.stepper = Stepper(plan, self.optimizer, device)
        self.sizes = feeds.train.sizes()
        self.turns = turns(self.sizes, plan.accumulate) if self.sizes is not None else []
        self.group = [Turn(1.0, opens=True, closes=True)]
        self.per_epoch = sum(turn.closes for turn in self.turns)
        self.total = plan.steps or plan.epochs * self.per_epoch
        check_reached(plan, self.epochs_asked)
        self.schedule, self.course = schedule_of(plan, self.optimizer, self.total, self.per_epoch)
        self.average = Average(self.model, plan.ema) if plan.ema is not None else None
        self.moving = self._moving()
        self.statistics = Statistics(self.model)
        self.epoch, self.batch, self.number, self.between = 1, 0, 0, True
        self.norm = self.rate = 0.0
        self.epochs: list[Epoch] = []
        self.best, self.best_state = 0, dict[str, Tensor]()
        self.seconds, self.since = 0.0, time.perf_counter()
        self._fresh()
        left = self.epochs_asked
        both = (feeds.train, feeds.val)
        self.caches = [cache_of(feed, plan, world, epochs=left, moved=self._moved) for feed in both]

    def _spread(self) -> Spread:
        """Copy or share the model out; what is frozen is summed up before nobody holds it whole."""
        from torchgraft.train.many.spread import Spread

        if self.plan.parallel == "fsdp":
            self.frozen = state_digest(self.still())
        return Spread(self.model, self.plan, self.world, self.graft.trace(train=True))

    def _callable(self) -> Callable[..., Any]:
        run: nn.Module = self.model if self.spread is None else self.spread.run
        return compiled(run) if self.plan.compile else run

    def still(self) -> dict[str, Tensor]:
        """Give what no step of this training ever changes."""
        moving = self._moving()
        return {name: one.detach() for name, one in self.model.named_parameters() if name not in moving}

    def _moving(self) -> dict[str, Tensor]:
        """Find what training changes, now or later: parameters that are or will be trainable, and every buffer."""
        later = {name for step in self.steps for name in step.names}
        parameters = {
            name: one for name, one in self.model.named_parameters() if one.requires_grad or name in later
        }
        return parameters | dict(self.model.named_buffers())

    def _fresh(self) -> None:
        """Begin to gather the figures of an epoch."""
        self.meter = self.task.meter(train=True)
        self.loss_sum, self.count = 0.0, 0
        self.epoch_seconds = 0.0

    @property
    def epochs_asked(self) -> int:
        """How many epochs there will be; as many as the steps take, where the plan counts these."""
        if self.plan.steps is None:
            return self.plan.epochs
        return math.ceil(self.plan.steps / self.per_epoch) if self.per_epoch else 2**31

    @property
    def is_trained(self) -> bool:
        """Whether every step of the plan is taken; the epoch of the last one may still have to be judged."""
        return self.number == self.plan.steps if self.plan.steps is not None else self.epoch > self.plan.epochs

    @property
    def is_done(self) -> bool:
        """Whether every step of the plan is taken, and every epoch judged."""
        return self.is_trained and self.batch == 0

    # one epoch

    def open_epoch(self) -> None:
        """Unfreeze what comes now, and put the model into the mode of training."""
        if self.batch == 0:
            unfrozen(self.graft, self.plan, self.steps, self.epoch, self.optimizer, self.schedule)
            self.rate = max(group["lr"] for group in self.optimizer.param_groups)
        if self.spread is not None and self.spread.renew():
            self.run = self._callable()
        if self.average is not None:
            self.average.join()
        train_mode(self.model)
        self.caches[0].renew(self.model, self.epochs_asked - self.epoch + 1)
        self.began = time.perf_counter()

    def step(self, batch: Batch) -> Moment:
        """Train on one batch.

        Raises:
            TrainError: the loss or a gradient is not finite; nothing has moved then.
        """
        turn = self._turn()
        if turn.opens:
            self.optimizer.zero_grad(set_to_none=True)
            self.statistics.keep()
        targets = self._moved(batch.targets)
        run = self._pass if self.spread is None else self._part
        output, value = run(batch, targets, turn)
        rate = 0.0
        for group in self.optimizer.param_groups:  # every step waits for this: no call of Python
            rate = group["lr"] if group["lr"] > rate else rate
        norm = self._close() if turn.closes else None
        self.between = turn.closes
        if batch.count:
            self.meter.add(output, targets)
        self.loss_sum += value * batch.count
        self.count += batch.count
        self.batch += 1
        return Moment(self.epoch, self.batch, len(self.turns), self.number, value, rate, batch.whole, norm)

    def _pass(self, batch: Batch, targets: Any, turn: Turn) -> tuple[Any, float]:
        """Run forward and backward; gives the output, and the loss over all processes."""
        output, loss = self._judged(batch, targets)
        value = loss.item() if self.spread is None else self.world.mean(loss.detach(), batch.count)
        if not math.isfinite(value):
            raise self._broken(f"the loss is {value}")
        self.stepper.backward(loss, turn.share * self.world.size * batch.share)
        return output, value

    def _judged(self, batch: Batch, targets: Any) -> tuple[Any, Tensor]:
        return self.stepper.forward(lambda: self.output(batch), lambda out: self.task.loss(out, targets))

    def _part(self, batch: Batch, targets: Any, turn: Turn) -> tuple[Any, float]:
        """Run this process's part of a batch; one that was lent its samples leaves no trace of them."""
        from torchgraft.train.many.spread import still

        assert self.spread is not None
        self.spread.rehearse(lambda: self._judged(batch, targets)[1])
        idle = nullcontext() if batch.count else still(self.model)
        with self.spread.synchronised(closes=turn.closes), idle:
            return self._pass(batch, targets, turn)

    def batches(self) -> Iterable[Batch]:
        """Give what is left of the epoch; nothing where the last step of the plan is taken."""
        if self.is_trained:
            return ()
        given = self.feeds.train.batches(self.epoch, start=self.batch)
        return given if self.turns else grouped(given, self.plan.accumulate, self.group)

    def _turn(self) -> Turn:
        return self.turns[self.batch] if self.turns else self.group[self.batch % len(self.group)]

    def output(self, batch: Batch) -> Any:
        """Run the model on a batch."""
        cache = self.caches[not self.model.training]
        return cache.output(self.run, self.model, self._moved(batch.inputs), batch.indices, batch.view)

    def _moved(self, value: Any) -> Any:
        """Bring a batch to the device, laid out as the plan says."""
        if self.device.type == "cpu" and not self.plan.channels_last:
            return value
        return moved(value, self.device, channels_last=self.plan.channels_last)

    def _close(self) -> float:
        """Let the optimizer move, and all that goes with it; gives the norm of the gradients."""
        self.stepper.close(self._guard)
        self.schedule.step()
        self.number += 1
        if self.average is not None:
            self.average.update()
        return self.norm

    def _guard(self, reading: Reading) -> None:
        """Let nothing move on gradients that are not finite; with a scaled loss, the scaler skips such a step."""
        self.norm = reading.total
        if not reading.finite and not self.stepper.scaler.is_enabled():
            found = cause(self.model, self.number + 1, reading)
            told = "; ".join(found.facts).partition(": ")[2] if found is not None else "a gradient is not finite"
            raise self._broken(told)

    def _broken(self, what: str) -> TrainError:
        self.statistics.restore()
        return TrainError(
            f"{what} at epoch {self.epoch}, step {self.batch + 1}",
            where="train.optimizer",
            hint=f"{_CALMER[self.plan.clip is None]}; the weights are as they were before this step",
        )

    def close_epoch(self) -> Epoch:
        """Judge the model, and write the epoch down."""
        if self.spread is not None:
            self.spread.agree()
        with self._averaged():
            loss, figures = self.judge()
            epoch = self._written(loss, figures)
            self._compare(epoch)
        if self.course.judged(loss):
            self._fall()
        self.epoch, self.batch = self.epoch + 1, 0
        self._fresh()
        return epoch

    def _written(self, val_loss: float, figures: dict[str, float]) -> Epoch:
        self.meter.gather(self.world)
        loss_sum, count = self.world.total(torch.tensor([self.loss_sum, self.count], dtype=torch.float64)).tolist()
        epoch = Epoch(
            number=self.epoch,
            train_loss=loss_sum / max(count, 1),
            val_loss=val_loss,
            train=self.meter.figures(),
            val=figures,
            lr=self.rate,
            seconds=self.epoch_seconds + time.perf_counter() - self.began,
        )
        self.epochs.append(epoch)
        return epoch

    def _fall(self) -> None:
        """Let a plateau's fall count from the next step on, not from the one after it."""
        for group, base in zip(self.optimizer.param_groups, self.schedule.base_lrs, strict=True):
            group["lr"] = base * self.course(self.schedule.last_epoch)

    def _compare(self, epoch: Epoch) -> None:
        """Keep the best state, where the plan wants it."""
        if self.best and not self._better(epoch, self.epochs[self.best - 1]):
            return
        self.best = epoch.number
        if self.plan.keep == "best":
            self.best_state = {name: one.detach().clone() for name, one in self.moving.items()}

    def _better(self, new: Epoch, old: Epoch) -> bool:
        """Tell whether an epoch is better by the figure; of two that are alike, by the loss."""
        now, before = self.judged_by(new), self.judged_by(old)
        if math.isnan(before):
            return not math.isnan(now)
        if now == before:
            return new.val_loss < old.val_loss
        return now > before if self.task.higher else now < before

    def judged_by(self, epoch: Epoch) -> float:
        """Give the figure that an epoch is judged by."""
        return epoch.val.get(self.task.metric, epoch.val_loss)

    @torch.no_grad()
    def judge(self) -> tuple[float, dict[str, float]]:
        """Give the mean loss and the figures of the validation samples, in evaluation mode."""
        self.model.eval()
        self.caches[1].renew(self.model, self.epochs_asked - self.epoch + 1)
        meter, sums = self.task.meter(), torch.zeros(2, dtype=torch.float64)
        for batch in self.feeds.val.batches(1):
            targets = self._moved(batch.targets)
            output = self.output(batch)
            if batch.count == 0:  # lent, so that every process runs a pass
                continue
            lost = self.task.loss(output, targets).item() * batch.count
            sums += torch.tensor([lost, batch.count], dtype=torch.float64)
            meter.add(output, targets)
        self.world.total(sums)
        meter.gather(self.world)
        train_mode(self.model)
        return float(sums[0] / sums[1].clamp(min=1)), meter.figures()

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        if self.average is None:
            yield
            return
        with self.average.put():
            yield

    @property
    def is_early(self) -> bool:
        """Whether the figure has got no better for as many epochs as the plan waits; the loss does not count."""
        if self.plan.early_stop is None or not self.best:
            return False
        highest = self.judged_by(self.epochs[self.best - 1])
        first = next((one.number for one in self.epochs if self.judged_by(one) == highest), self.best)
        return len(self.epochs) - first >= self.plan.early_stop

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to do."""
        return self.is_done or self.is_early

    @torch.no_grad()
    def finish(self, ended: Any) -> History:
        """Leave the state in the model that the plan asks for, in evaluation mode."""
        if self.spread is not None:
            self.spread.agree()
        if self.average is not None:
            for name, value in self.average.values.items():
                self.moving[name].copy_(value)
        if ended != "interrupted" and self.plan.keep == "best":
            for name, value in self.best_state.items():
                self.moving[name].copy_(value)
        if self.spread is not None:
            self.spread.back()
        self.model.eval()
        return History(
            epochs=tuple(self.epochs),
            best=self.best,
            metric=self.task.metric,
            higher=self.task.higher,
            ended=ended,
            seconds=self.seconds + time.perf_counter() - self.since,
            skipped=self._skipped(),
            task=self.task.kind,
        )

    def _skipped(self) -> tuple[str, ...]:
        """Name what could not be read, in any process."""
        here = [*self.feeds.train.skipped, *self.feeds.val.skipped]
        return tuple(dict.fromkeys(one for there in self.world.all(here) for one in there))

    # the state

    def snapshot(self) -> Snapshot:
        """Give everything that it takes to go on from here; the tensors are those of the training, not copies."""
        return state_of(self)

    def restore(self, snapshot: Snapshot, best: Mapping[str, Tensor]) -> None:
        """Go on from a snapshot of a training by the same plan; `best` is what moved, as it was then."""
        set_state(self, snapshot, best)


def _held_now(groups: Groups, model: nn.Module) -> list[dict[str, Any]]:
    """Give groups with the parameters that the model holds now: sharing it out puts others in their places."""
    known = dict(model.named_parameters())
    return [{**group, "params": [known[name] for name in group["names"]]} for group in groups]
