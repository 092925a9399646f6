"""Watch a training in any loop, and tell as findings what no trainer tells."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterable, Mapping
from math import isfinite
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from torchgraft.checking import check
from torchgraft.errors import RecipeError, TorchgraftWarning, TrainError
from torchgraft.guard import Reading, Statistics, bare, bare_optimizer, cause, clip, look, moved, read, versions
from torchgraft.guard.gradients import trained
from torchgraft.guard.look import named_norms
from torchgraft.rules.finding import Finding
from torchgraft.surgery.stillness import still_parts

__all__ = ["Answer", "Watched", "watch"]

Answer = Literal["stop", "skip", "tell"]
"""What is done about a step that would spoil the weights: raise before it, leave it out, or say so and go on."""

PATIENCE = 10
"""So many steps left out in a row are no accident: the training stops."""


def watch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer | Collection[torch.optim.Optimizer],
    *,
    data: Any = None,
    loss: Any = None,
    every: int = 100,
    on_nan: Answer = "stop",
    replay: bool = False,
    tell: Callable[[Finding], object] | None = None,
) -> Watched:
    """Watch a training in a loop of your own: one line before it, and nothing in it.

    Before each step of the optimizer its gradients are read once: where they are not finite, the step is not
    taken, the statistics of norms are put back to those of the last good step, and a TrainError says which
    parameter and module got it first. At the first two steps, whenever the set of gradients changes, and every so
    many steps, the rules about a running training look at model and optimizer: parameters that get no gradient
    or are in no group, frozen ones that move, frozen norms and dropout in training mode, what was frozen by a
    resume, and more (`docs/own_loop.md`). No hook is put on the model.

    Args:
        model: what is trained; wrapped by DDP, Fabric or torch.compile or not.
        optimizer: what trains it, made before; or several.
        data: a batch or loader: `tg.check` judges the model, its head and its data with it before the first step.
        loss: what `tg.check` judges outputs by, where there are data.
        every: steps between two looks.
        on_nan: `stop` raises before the weights are spoilt, `skip` leaves the step out and says so (and stops
            after ten in a row), `tell` says so once and lets it happen.
        replay: remember what the model was given last (a hook on its forward pass), so that NaN is followed to the
            operation that made it, by one more pass on a copy.
        tell: gets each finding once; a warning where it is left out.

    Returns:
        an object with `findings`, `norm`, `steps` and `skipped`; `close()`, or the end of a `with` block, ends it.

    Raises:
        RecipeError: there is no such answer to NaN, or what is given is no optimizer.
        DataError: `data` can't be read.
    """
    if on_nan not in ("stop", "skip", "tell"):
        raise RecipeError(f"on_nan is {on_nan!r}", where="tg.watch", hint="stop, skip or tell")
    watched = Watched(model, optimizer, every=every, on_nan=on_nan, replay=replay, tell=tell)
    if data is not None:
        several = [*watched.optimizers]
        watched.told(check(watched.model, data=data, loss=loss, optimizer=several[0] if several else None))
    return watched


class Watched:
    """A training that is watched.

    Attributes:
        findings: all that was found so far, each once.
        steps: of the optimizer, those that were left out included.
        norm: of all gradients at the last step, before clipping where `clip` did it.
        skipped: how many steps were left out.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Any = (),
        *,
        every: int = 100,
        on_nan: Answer = "stop",
        replay: bool = False,
        tell: Callable[[Finding], object] | None = None,
        hooked: bool = True,
    ) -> None:
        self.model = bare(model)
        listed = [*optimizer] if isinstance(optimizer, (list, tuple)) else [optimizer]
        self.optimizers = tuple(map(bare_optimizer, listed))
        self.findings: tuple[Finding, ...] = ()
        self.steps, self.skipped, self.norm = 0, 0, 0.0
        self._every, self._on_nan, self._tell = every, on_nan, _warn if tell is None else tell
        self._statistics = Statistics(self.model)
        self._known: set[tuple[str, str]] = set()
        self._earlier: dict[str, float | None] = {}
        self._versions: Mapping[nn.Parameter, int] = {}
        self._quiet: list[nn.Module] = []
        self._fresh: Reading | None = None
        self._counts: dict[int, int] = {}
        self._due, self._row = 0, 0
        self._loss: float | None = None
        self._arguments: tuple[tuple[Any, ...], dict[str, Any]] | None = None
        self._handles: list[Any] = []
        self._is_of_torch = all(isinstance(one, torch.optim.Optimizer) for one in self.optimizers)
        if hooked:
            self._hook()
        if replay:
            self._handles.append(self.model.register_forward_pre_hook(self._remember, with_kwargs=True))

    def _hook(self) -> None:
        for one in self.optimizers:
            if not self._is_of_torch:
                raise RecipeError(
                    f"{type(one).__name__} is no optimizer of torch",
                    where="tg.watch",
                    hint="give the optimizer that was made of the model's parameters, after it was made",
                )
            self._handles.append(one.register_step_pre_hook(self._before))
            self._handles.append(one.register_step_post_hook(self._after))

    # what a loop may call

    def loss(self, value: Tensor | float) -> bool:
        """Look at the loss before its backward pass; this waits for the device, as reading it always does.

        Returns:
            whether it is finite; where it is not and such steps are left out, the batch can be passed over.

        Raises:
            TrainError: it is not finite.
        """
        number = float(value.detach() if isinstance(value, Tensor) else value)
        if isfinite(number):
            self._loss = None
            return True
        self._loss = number
        self._refuse(self.steps + 1, Reading((), (), 0.0))
        return False

    def clip(self, most: float) -> float:
        """Clip the gradients by their norm, as `torch.nn.utils.clip_grad_norm_` does, with one read for both.

        Args:
            most: the norm that they may have.

        Returns:
            the norm before.

        Raises:
            TrainError: a gradient is not finite.
        """
        if self._scaled_outside():
            return 0.0
        self._fresh = read([one for held in self.optimizers for one in trained(held)])
        if self._fresh.finite:
            clip(self._fresh, most)
        return self._fresh.total

    def step(self, parameters: Iterable[Tensor] | None = None) -> bool:
        """Judge the gradients as they are; for a loop whose optimizer is none of torch's, right before it moves.

        Returns:
            whether the step should be taken.

        Raises:
            TrainError: a gradient is not finite.
        """
        reading = read(self.model.parameters() if parameters is None else parameters)
        return self._judge(reading, id(reading.parameters[0]) if reading.parameters else 0)

    def look(self) -> tuple[Finding, ...]:
        """Look at the model and its optimizers now; what is new is told, all that is so is given."""
        found = look(self.model, self.optimizers or None, max(self.steps, 1))
        self.told(found)
        return found

    def told(self, found: Iterable[Finding]) -> None:
        """Tell findings that were not told before."""
        for one in found:
            if (one.code, one.where) not in self._known:
                self._known.add((one.code, one.where))
                self.findings = (*self.findings, one)
                self._tell(one)

    def close(self) -> None:
        """End the watch: nothing is left behind."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def state_dict(self) -> dict[str, Any]:
        """Give what a checkpoint should hold beside model and optimizer: which parameters are trainable."""
        trainable = [name for name, one in self.model.named_parameters() if one.requires_grad]
        return {"steps": self.steps, "skipped": self.skipped, "trainable": trainable}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Make trainable what was trainable, and frozen what was frozen."""
        self.steps, self.skipped = int(state["steps"]), int(state["skipped"])
        trainable = frozenset(state["trainable"])
        for name, one in self.model.named_parameters():
            if one.is_floating_point():
                one.requires_grad_(name in trainable)

    # at each step

    def _remember(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self.model.training:
            self._arguments = (args, kwargs)

    def _scaled_outside(self) -> bool:
        """Tell whether a scaler of mixed precision hands gradients over scaled and judges them itself."""
        return any(getattr(one, "found_inf", None) is not None for one in self.optimizers)

    def _before(
        self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Judge the gradients; where a closure is to make them first, after it."""
        if getattr(optimizer, "found_inf", None) is not None:
            return None
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        if closure is None:
            reading, self._fresh = self._fresh or read(trained(optimizer)), None
            self._judge(reading, id(optimizer))
            return None

        def judged() -> Any:
            loss = closure()
            self._judge(read(trained(optimizer)), id(optimizer))
            return loss

        return args[:1], {**kwargs, "closure": judged}

    def _judge(self, reading: Reading, key: int = 0) -> bool:
        self._after()  # of a loop that calls `step` alone
        self.steps += 1
        self.norm = reading.total
        if not reading.finite or self._loss is not None:
            return self._refuse(self.steps, reading)
        self._row = 0
        self._statistics.keep()
        if self._is_due(key, len(reading.parameters)):
            self._look(reading)
        return True

    def _is_due(self, key: int, count: int) -> bool:
        """Look at two steps in a row: the first two, two after the set of gradients changed, two now and then."""
        if self._counts.get(key) != count or self.steps % self._every == 0:
            self._counts[key], self._due = count, 2
        due, self._due = self._due > 0, max(self._due - 1, 0)
        return due or any(one.training for one in self._quiet)

    def _look(self, reading: Reading) -> None:
        among = [one for held in self.optimizers for one in trained(held)] if self._is_of_torch else None
        now = named_norms(self.model, reading, among=among)
        whole = len(self.optimizers) < 2  # of several optimizers each knows its own gradients alone
        self.told(
            look(
                self.model,
                self.optimizers or None,
                self.steps,
                now=now if whole else {},
                earlier=self._earlier if whole else {},
            )
        )
        self._earlier = now if self._due > 0 else {}
        self._quiet = _quiet(self.model)
        self._versions = versions(self.optimizers)
        if len(self._statistics.norms) != sum(1 for _ in _norms(self.model)):
            self._statistics.find()

    def _after(self, *_: Any) -> None:
        if self._versions:
            self.told(moved(self.model, self._versions, self.steps))
            self._versions = {}

    def _refuse(self, step: int, reading: Reading) -> bool:
        """Deal with a step that would spoil the weights; say whether it is taken all the same."""
        found = cause(
            self.model,
            step,
            reading,
            loss=self._loss,
            statistics=self._statistics if self._on_nan != "tell" else None,
            arguments=self._arguments,
        )
        if found is None:
            return True
        fresh = not (reading.parameters and self._loss is not None)
        self._loss = None if reading.parameters else self._loss
        self.told([found])
        if self._on_nan == "tell":
            return True
        self._row += fresh
        self.skipped += fresh
        if self._on_nan == "stop" or self._row >= PATIENCE:
            raise TrainError(f"{found.title}: {found.facts[0]}", where=_where(found), hint=found.hint)
        for one in reading.parameters:
            one.grad = None
        return False


def _where(found: Finding) -> str:
    return "; ".join([found.where, *found.facts[1:]])


def _warn(found: Finding) -> None:
    warnings.warn(f"\n{found}", TorchgraftWarning, stacklevel=2)


def _norms(model: nn.Module) -> Iterable[nn.Module]:
    from torch.nn.modules.batchnorm import _NormBase

    return (one for one in model.modules() if isinstance(one, _NormBase) and one.running_mean is not None)


def _quiet(model: nn.Module) -> list[nn.Module]:
    """Give the frozen parts that stand still now: each is told as soon as it does not."""
    return [part for _, part in still_parts(model, lambda one: not one.requires_grad) if not part.training]
