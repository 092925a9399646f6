"""What is profiled: a double of the model, its batches, its loss, its optimizer; the model itself is only read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from torchgraft.errors import RecipeError, TrainError
from torchgraft.given import inputs
from torchgraft.params.still import train_mode
from torchgraft.probes.arguments import is_named
from torchgraft.probes.batch import Batch
from torchgraft.probes.double import Double
from torchgraft.probes.fitting import fitted
from torchgraft.profile.clock import Clock
from torchgraft.trace.tree import mapped, tensors
from torchgraft.train.checkpointing import checkpointed
from torchgraft.train.step import KINDS, move

if TYPE_CHECKING:
    from torchgraft.graft import Graft

__all__ = ["KINDS", "Random", "Task", "batch_of", "double_of", "moved", "plain_task"]


@dataclass
class Task:
    """All that a step takes.

    Attributes:
        model: the double.
        device: where it runs.
        batches: gives one batch after the other, without end.
        loss: of the output and the batch.
        optimizer: of the double's parameters; None where nothing can be trained.
        precision: of the forward pass, by torch.amp.
        facts: how it is run, in words.
        scaler: for fp16.
        clip: the norm that gradients are clipped to.
        schedule: stepped after the optimizer.
        augment: varies inputs that are trained with.
        real: the batches are those of a plan.
        workers: processes that load; None where nothing is loaded.
        together: batches of one optimizer step.
        again: modules whose activations are computed again in the backward pass.
        train_mode: puts the model into training mode.
    """

    model: nn.Module
    device: torch.device
    batches: Iterator[Batch]
    loss: Callable[[Any, Batch], Tensor]
    optimizer: torch.optim.Optimizer | None
    facts: tuple[tuple[str, str], ...]
    precision: str = "fp32"
    scaler: torch.amp.GradScaler = field(default_factory=lambda: torch.amp.GradScaler(enabled=False))
    clip: float | None = None
    schedule: Any = None
    augment: Callable[[Batch], Batch] | None = None
    real: bool = False
    workers: int | None = None
    train_mode: Callable[[nn.Module], Any] = train_mode
    together: int = 1
    again: tuple[nn.Module, ...] = ()
    last: Batch | None = None

    def prediction(self, clock: Clock) -> None:
        """Run one batch in evaluation mode, without gradients; fetching it is not part of the step."""
        batch = self.last if self.last is not None else self._fetch()
        with clock.of("forward"), torch.no_grad(), self._cast():
            self.model(*batch.args, **batch.kwargs)

    def training(self, clock: Clock) -> None:
        """Run one training step, of several batches where their gradients are gathered."""
        assert self.optimizer is not None
        with clock.of("optimizer"):
            self.optimizer.zero_grad(set_to_none=True)
        for _ in range(self.together):
            self._learn(clock)
        with clock.of("optimizer"):
            self._update()

    def _learn(self, clock: Clock) -> None:
        """Add the gradients of one batch."""
        with clock.of("data"):
            batch = self._fetch()
            batch = self.augment(batch) if self.augment is not None else batch
        with torch.enable_grad(), self._cast(), checkpointed(self.again):
            with clock.of("forward"):
                output = _forward(self.model, batch)
            with clock.of("loss"):
                loss = self.loss(output, batch)
                if self.real:  # the loop of torchgraft reads it in every step
                    float(loss.detach())
        weighed = loss if self.together == 1 else loss / self.together
        scaled = self.scaler.scale(weighed)
        with clock.of("backward"):
            scaled.backward()  # type: ignore[no-untyped-call]

    def _update(self) -> None:
        assert self.optimizer is not None
        move(self.optimizer, self.scaler, self.clip)
        if self.schedule is not None:
            self.schedule.step()

    def _fetch(self) -> Batch:
        self.last = moved(next(self.batches), self.device)
        return self.last

    def _cast(self) -> Any:
        return torch.autocast(self.device.type, dtype=KINDS[self.precision], enabled=self.precision != "fp32")


def _forward(model: nn.Module, batch: Batch) -> Any:
    """Run a training pass; a detection model takes its targets along, as torchvision's do."""
    listed = isinstance(batch.targets, (list, tuple)) and all(isinstance(one, dict) for one in batch.targets)
    return model(*batch.args, *([batch.targets] if listed and batch.targets else []), **batch.kwargs)


def moved(batch: Batch, device: torch.device) -> Batch:
    """Give a batch on a device."""

    def to(one: Tensor) -> Tensor:
        return one.to(device)

    args, kwargs, targets = mapped(to, (batch.args, batch.kwargs, batch.targets))
    return replace(batch, args=args, kwargs=kwargs, targets=targets)


def double_of(model: nn.Module, device: torch.device) -> nn.Module:
    """Make a double on a device; the model is not changed.

    Raises:
        TrainError: its weights are not in memory, or there is no room for them once more.
    """
    if any(one.is_meta for one in model.parameters()):
        raise TrainError(
            "the weights are on the meta device: nothing can run",
            where="model",
            hint="load the model with weights",
        )
    try:
        return Double(model).module.to(device)
    except (RuntimeError, MemoryError) as error:
        raise TrainError(
            f"no double of the model can be made: {error}",
            where=str(device),
            hint="profile runs on a copy, which takes the memory of the weights once more",
        ) from error


def batch_of(graft: Graft, size: int) -> Batch:
    """Make a batch of random numbers of the model's input; whole numbers are those of the example, repeated.

    Raises:
        SourceError: the input is not known.
        RecipeError: the example can't be made longer or shorter.
    """
    given = inputs(graft.recipe, graft.module, graft._example)
    rows = graft.trace().batch

    def sized(one: Tensor) -> Tensor:
        along = one.dim() > 0 and one.shape[0] == rows
        if one.is_floating_point() or one.is_meta:
            shape = (size, *one.shape[1:]) if along else tuple(one.shape)
            if one.is_floating_point():
                return torch.randn(shape).to(one.dtype)
            return torch.zeros(shape, dtype=one.dtype)
        one = one.detach().cpu()
        return one[torch.arange(size) % rows] if along else one.clone()

    made = mapped(sized, given)
    if is_named(made, graft.module):
        return Batch((), dict(made))
    args = made if isinstance(made, tuple) else (made,)
    batch = Batch(tuple(args))
    if isinstance(args[0], list) and len(args[0]) != size:
        return replace(batch, args=([args[0][place % len(args[0])] for place in range(size)], *args[1:]))
    if not tensors(made):
        raise RecipeError("the example holds no tensor", where="input", hint="give a tensor with its batch")
    return batch


def _precision(model: nn.Module) -> str:
    found = {str(one.dtype).removeprefix("torch.") for one in model.parameters() if one.is_floating_point()}
    return "fp32" if found <= {"float32"} else "weights in " + ", ".join(sorted(found))


class Random:
    """One random batch, again and again, with class numbers that fit the output, drawn when that is first seen."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.words = ""
        self._classes: dict[int, Tensor] = {}

    def __iter__(self) -> Iterator[Batch]:
        while True:
            yield self.batch

    def loss(self, output: Any, batch: Batch) -> Tensor:
        """Give what the model gives as its own loss; else the sum of a loss that fits each output."""
        found = fitted(output, (batch.args, batch.kwargs), self._drawn)
        self.words = found.words
        return found.value

    def _drawn(self, number: int, like: Tensor, count: int) -> Tensor:
        """Give class numbers at random, the same in every step."""
        known = self._classes.get(number)
        if known is None or known.shape != like.shape:
            known = self._classes[number] = torch.randint(count, like.shape, device=like.device)
        return known


def plain_task(graft: Graft, device: torch.device, size: int) -> tuple[Task, Random]:
    """Give the task of a model without a plan: random inputs, a loss that fits its output, SGD."""
    model = double_of(graft.module, device)
    trained = [one for one in model.parameters() if one.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=1e-6, momentum=0.9) if trained else None
    random = Random(moved(batch_of(graft, size), device))
    shapes = ", ".join("×".join(map(str, one.shape)) for one in random.batch.inputs)
    facts = (
        ("batch", str(size)),
        ("input", f"random, {shapes}"),
        ("precision", _precision(model)),
        ("optimizer", "SGD with momentum" if trained else "none: every parameter is frozen"),
    )
    return Task(model, device, iter(random), random.loss, optimizer, facts), random
