"""Runs a model whole and takes the cut on the way, or runs its rest alone on what was taken.

The model's own forward runs in both cases. Where a step is still, its call or operation is answered instead of
done: with the rows that were kept, or with an empty tensor of the right shape where nothing live reads the values.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, _pop_mode, _push_mode

from torchgraft.trace.tree import PLAIN, mapped, tensors
from torchgraft.train.prefix.cut import SHAPED, Cut, Step
from torchgraft.train.prefix.record import called, name_of

__all__ = ["Drift", "Layout", "Player"]


class Drift(Exception):  # noqa: N818
    """A pass does not go as it was recorded."""


class _Enough(BaseException):
    """Everything that was asked for is there."""


@dataclass
class Layout:
    """What the still steps give for one number of samples, but for the values.

    Attributes:
        inputs: what goes in.
        answers: of each still step, by its place.
        plain: those of them that hold no value that is kept.
        numbers: which value a stand-in stands for, by its id.
        shared: the values that are the same for every sample.
    """

    inputs: Any = None
    answers: dict[int, Any] = field(default_factory=dict)
    plain: dict[int, Any] = field(default_factory=dict)
    numbers: dict[int, int] = field(default_factory=dict)
    shared: dict[int, Tensor] = field(default_factory=dict)


class Player(TorchFunctionMode):
    """Plays the steps of one cut.

    Args:
        model: the module itself, without what wraps it.
        cut: of its pass.
    """

    def __init__(self, model: nn.Module, cut: Cut) -> None:
        super().__init__()
        self.model, self.cut = model, cut
        self.steps = cut.steps
        self.kept = frozenset([*cut.lies, *cut.shared])
        turned = dict.fromkeys(step.module for step in cut.steps if step.module is not None)
        self._stands = [(one, one.__dict__, self._stand(one)) for one in (model, *turned)]
        self._own: dict[nn.Module, Callable[..., Any] | None] = {}
        self.layout = Layout()
        self._place = 0
        self._off = True
        self._answers = False
        self._fills = False
        self._enough = -1
        self.slots: dict[int, Tensor] = {}
        self._versions: dict[int, int] = {}

    def whole(self, model: Callable[..., Any], inputs: Any, layout: Layout, *, stop: bool = False) -> Any:
        """Run everything, and take what the rest reads into `slots`.

        Args:
            model: what is called; the module itself, or what wraps it.
            inputs: of the pass.
            layout: filled in where it is empty.
            stop: end the pass once everything is taken.

        Raises:
            Drift: it did not go as recorded.
        """
        self._begin({}, layout, answers=False)
        self._fills = layout.inputs is None
        self._enough = max(self.cut.places[number] for number in self.kept) if stop else len(self.steps)
        output = None
        with suppress(_Enough):
            output = self._run(model, inputs)
        if self._fills:
            pairs = dict(zip(map(id, tensors(inputs)), self.cut.inputs, strict=False))
            layout.inputs = mapped(lambda one: self.stand_in(one, pairs[id(one)]), inputs)
            layout.shared = {number: self.slots[number].detach().clone() for number in self.cut.shared}
        if any(self.slots[number]._version != was for number, was in self._versions.items()):
            raise Drift("what the rest reads is written over")
        return output

    def rest(self, model: Callable[..., Any], slots: dict[int, Tensor], layout: Layout) -> Any:
        """Run what is left, on what was taken.

        Raises:
            Drift: it did not go as recorded.
        """
        if not self.cut.inquiry.again(slots):
            raise Drift("what the pass asks its input has another answer")
        shared = {number: one.clone() for number, one in layout.shared.items()}
        self._begin(slots | shared if shared else slots, layout, answers=True)
        try:
            return self._run(model, self._filled(layout.inputs))
        finally:
            self.slots = {}

    def _begin(self, slots: dict[int, Tensor], layout: Layout, *, answers: bool) -> None:
        self.slots, self.layout, self._answers = slots, layout, answers
        self._place, self._off, self._fills = 0, True, False
        self._versions = {}

    def _run(self, model: Callable[..., Any], inputs: Any) -> Any:
        for one, held, stand in self._stands:
            self._own[one] = held.get("forward")  # checkpointing may have put something there
            held["forward"] = stand
        try:
            output = called(model, inputs)
        finally:
            for one, held, _ in self._stands:
                own = self._own[one]
                if own is None:
                    del held["forward"]
                else:
                    held["forward"] = own
        if self._place != len(self.steps):
            raise Drift(f"{len(self.steps) - self._place} steps were left out")
        return output

    # what modules do when they are called

    def _stand(self, module: nn.Module) -> Callable[..., Any]:
        """Make what stands in for the forward of a module; where that need not be run, little is done."""
        steps, last = self.steps, len(self.steps)

        def forward(*args: Any, **kwargs: Any) -> Any:
            place = self._place
            if self._answers and not self._off and place < last:
                step = steps[place]
                if step.still and step.module is module:
                    self._place = place + 1
                    answer = self.layout.plain.get(place)
                    return self._filled(self.layout.answers[place]) if answer is None else answer
            return self._called(module, args, kwargs)

        forward.__wrapped__ = module.forward  # type: ignore[attr-defined]  # inspect.signature follows it
        return forward

    def _called(self, module: nn.Module, args: Any, kwargs: Any) -> Any:
        own = self._own[module]
        forward = type(module).forward.__get__(module) if own is None else own
        if module is self.model and self._off and not self._place:
            return self._rooted(forward, args, kwargs)
        if self._off:
            return forward(*args, **kwargs)
        step = self._next("", module)
        if self._answers:
            self._check(step, args, kwargs)
        result = self._left(forward, args, kwargs)
        if not self._answers:
            with torch._C.DisableTorchFunction():
                self._take(step, self._place - 1, result)
        return result

    def _rooted(self, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        if not self._answers:
            self._take_inputs(tensors((args, kwargs)))
        self._off = False
        try:
            with self:
                return forward(*args, **kwargs)
        finally:
            self._off = True

    def _left(self, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Run a module that the steps do not look into; nothing is seen of it, so it is as fast as ever."""
        self._off = True
        top = _pop_mode()  # type: ignore[no-untyped-call]
        if top is not self:  # a mode of the user's lies above: ours hands on what it sees
            _push_mode(top)  # type: ignore[no-untyped-call]
        try:
            return forward(*args, **kwargs)
        finally:
            self._off = False
            if top is self:
                _push_mode(self)  # type: ignore[no-untyped-call]

    # what operations do

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = "" if self._off else name_of(func)
        if not name:
            return func(*args, **kwargs)
        step = self._next(name, None)
        place = self._place - 1
        if step.still and self._answers:
            return self._filled(self.layout.answers[place])
        if self._answers and name not in SHAPED:
            self._check(step, args, kwargs)
        result = func(*args, **kwargs)
        if not self._answers:
            self._take(step, place, result)
        return result

    def _next(self, name: str, module: nn.Module | None) -> Step:
        if self._place >= len(self.steps):
            raise Drift(f"{name or type(module).__name__} came after the last step")
        step = self.steps[self._place]
        if step.name != name or step.module is not module:
            raise Drift(f"{name or type(module).__name__} came where {step.name or step.path} was expected")
        self._place += 1
        return step

    # values

    def _filled(self, answer: Any) -> Any:
        """Put the rows that were kept into what a step gives."""
        numbers, slots = self.layout.numbers, self.slots
        if isinstance(answer, Tensor):
            return slots.get(numbers[id(answer)], answer)
        if type(answer) in PLAIN:
            return answer
        return mapped(lambda one: slots.get(numbers[id(one)], one), answer)

    def _check(self, step: Step, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Refuse that something is computed with a tensor that holds nothing."""
        numbers = self.layout.numbers
        for one in (*args, *kwargs.values()) if kwargs else args:
            if type(one) in PLAIN:
                continue
            if id(one) in numbers or (
                type(one) is not Tensor and any(id(part) in numbers for part in tensors(one))
            ):
                raise Drift(f"{step.name or step.path} reads what nothing is kept of")

    def _take_inputs(self, found: list[Tensor]) -> None:
        if len(found) != len(self.cut.inputs):
            raise Drift("the model is given another number of tensors")
        for number, one in zip(self.cut.inputs, found, strict=True):
            self._keep(number, one)
        seen = self.cut.inquiry.first(dict(zip(self.cut.inputs, found, strict=True)))
        if seen is None:
            raise Drift("what the pass asks its input has another answer")
        for number, one in seen.items():
            self._keep(number, one)
        if self._enough == -1:
            raise _Enough

    def _take(self, step: Step, place: int, result: Any) -> None:
        """Take what the rest reads from the result of a step, and its shape where it is still."""
        if not step.still and self.kept.isdisjoint(step.made):
            return
        found = tensors(result)
        if len(found) != len(step.made):
            raise Drift(f"{step.name or step.path} gives another number of tensors")
        for number, one in zip(step.made, found, strict=True):
            self._keep(number, one)
        if self._fills and step.still:
            pairs = dict(zip(map(id, found), step.made, strict=True))
            answer = mapped(lambda one: self.stand_in(one, pairs[id(one)]), result)
            self.layout.answers[place] = answer
            if isinstance(answer, Tensor) and self.kept.isdisjoint(step.made):
                self.layout.plain[place] = answer
        if place == self._enough:
            raise _Enough

    def _keep(self, number: int, one: Tensor) -> None:
        if number in self.kept and number not in self.slots:
            one = one.detach()
            if number in self.cut.over:
                one = one.clone()
            self.slots[number] = one
            self._versions[number] = one._version

    def stand_in(self, one: Tensor, number: int) -> Tensor:
        """Make a tensor of the same shape that holds nothing; on the CPU, memory that is never touched is none."""
        known = next((held for held in self._made() if self.layout.numbers.get(id(held)) == number), None)
        if known is not None:
            return known
        if one.device.type == "cpu":
            made = torch.empty_strided(one.shape, one.stride(), dtype=one.dtype)
        else:
            made = torch.empty((), dtype=one.dtype, device=one.device).expand(one.shape)
        self.layout.numbers[id(made)] = number
        return made

    def _made(self) -> list[Tensor]:
        return tensors((self.layout.inputs, list(self.layout.answers.values())))
