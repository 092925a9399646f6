"""Families P and T, in a training that runs: what a step of the optimizer shows right before it moves anything."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from torchgraft.rules.finding import Finding, Severity
from torchgraft.rules.rule import Evidence, Rule
from torchgraft.rules.weights import by_module
from torchgraft.rules.wording import at, homes

if TYPE_CHECKING:
    from torchgraft.probes.live import Live

__all__: list[str] = []


class Spoilt(Rule):
    """A gradient is NaN or infinite in the middle of a training: the step would spoil every weight that it moves.

    One bad batch is enough, and nothing raises: the next loss is NaN, and so is every one after it. Clipping by
    the norm makes it worse, since a norm of NaN is multiplied into all gradients. Running statistics of norms are
    spoilt by the forward pass already; whoever watches puts them back.
    """

    code = "T020"
    severity: ClassVar[Severity] = "error"
    title = "a step that would spoil the weights"
    case = "one image of zeros divided by its own standard deviation; the loss reads nan from there on"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Say which gradients are not finite, and where that began as far as it shows."""
        live = evidence.live
        if live is None or not live.spoilt:
            return
        place = _origin(evidence, live)
        yield self.found(
            evidence.place(place),
            f"step {live.step}: {_what(live)}",
            _began(evidence, live),
            f"weights that are not finite themselves: {by_module(live.weights)}" if live.weights else "",
            hint="look at the batch: NaN in it, a constant image divided by its deviation, an empty target; else "
            "lower the rate, clip the gradients, guard logs, roots and divisions; on_nan='skip' leaves such steps "
            "out",
        )


def _what(live: Live) -> str:
    if live.odd:
        every = len(live.odd) == sum(norm is not None for norm in live.norms.values())
        told = f"all {len(live.odd)} gradients are" if every else f"{len(live.odd)} gradients are"
        told = told if len(live.odd) > 1 else f"the gradient of {live.odd[0]} is"
        return f"{told} NaN or infinite" + (f", and so is the loss ({live.loss})" if live.loss is not None else "")
    if live.large:
        return "the norm of all gradients overflows, though each is finite"
    return f"the loss is {live.loss}"


def _finite(live: Live) -> list[str]:
    odd = frozenset(live.odd)
    return [name for name, norm in live.norms.items() if norm is not None and name not in odd]


def _origin(evidence: Evidence, live: Live) -> str:
    """Give the module where it began: backward goes from output to input, so the last odd one got it first."""
    if live.first is not None:
        return live.first.path
    if live.weights:
        return live.weights[0].rpartition(".")[0]
    if live.statistics:
        return live.statistics[0].rpartition(".")[0]
    return live.odd[-1].rpartition(".")[0] if live.odd and _finite(live) else ""


def _began(evidence: Evidence, live: Live) -> str:
    if live.first is not None:
        return f"first made by {at(live.first)}" if live.first.op else "the input is not finite"
    if live.statistics:
        return f"it came with the forward pass: {live.statistics[0]} is the first that is not finite"
    if live.odd and _finite(live):
        return f"got it first on the way back: {live.odd[-1]}; {homes(_finite(live))} still finite"
    return ""


class Orphan(Rule):
    """A parameter can be trained, and two steps gave it no gradient at all: nothing that the loss sees uses it.

    A branch that was cut off by an edit, a head beside the one that runs, an auxiliary head whose loss was
    forgotten. No trainer tells: the parameter just stays what it was.
    """

    code = "T021"
    severity: ClassVar[Severity] = "warning"
    title = "trainable, and never given a gradient"
    case = "model.fc = nn.Linear(…) on a network whose forward calls model.classifier; a forgotten auxiliary loss"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Compare two steps."""
        live = evidence.live
        if live is None or not live.earlier:
            return
        lost = [name for name, norm in live.norms.items() if norm is None and live.earlier.get(name, 0.0) is None]
        if lost:
            every = len(lost) == len(live.norms)
            yield self.found(
                evidence.place(lost[0].rpartition(".")[0] if len({*map(_home, lost)}) == 1 else ""),
                f"no gradient in steps {live.step - 1} and {live.step}: {by_module(lost)}",
                "not one parameter has a gradient: is optimizer.step() called before backward()?" if every else "",
                hint="take it out, put it into the forward or its loss into the sum, or freeze it: "
                f"tg.freeze(model, '{_home(lost[0]) or lost[0]}')",
            )


def _home(name: str) -> str:
    return name.rpartition(".")[0]


class FrozenMoved(Rule):
    """A step of the optimizer moved parameters that are frozen.

    They have a gradient from before they were frozen, of zeros perhaps: momentum, running averages and weight
    decay move every parameter whose `grad` is a tensor.
    """

    code = "P036"
    severity: ClassVar[Severity] = "warning"
    title = "frozen parameters that a step moved"
    case = "requires_grad = False in the middle of a training, and zero_grad(set_to_none=False)"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Name them."""
        live = evidence.live
        if live is not None and live.moved:
            yield self.found(
                evidence.place(_home(live.moved[0]) if len({*map(_home, live.moved)}) == 1 else ""),
                f"step {live.step} moved {len(live.moved)} of them: {by_module(live.moved)}",
                hint="p.grad = None for each; tg.freeze(model, …, optimizer=optimizer) takes them out of it",
            )


class FrozenAgain(Rule):
    """The optimizer has a state for parameters that are frozen: they were trained before, and are no more.

    Checkpoints hold weights and states, and no `requires_grad`. A training that unfroze its backbone at epoch 5
    and is resumed at epoch 8 builds the model frozen, loads all states, and goes on with the backbone frozen.
    """

    code = "P037"
    severity: ClassVar[Severity] = "warning"
    title = "trained before, frozen now"
    case = "Lightning's BackboneFinetuning resumed after the unfreezing: the backbone stays as it was"

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Look for frozen parameters that a group holds with a state, in a training that runs."""
        held = evidence.sets.held if evidence.sets else None
        if evidence.live is None or held is None:
            return
        names = tuple(name for name in held.remembered if name not in held.driven)
        if names:
            yield self.found(
                evidence.place(_home(names[0]) if len({*map(_home, names)}) == 1 else ""),
                f"{len(names)} frozen parameters are in a group that trained them: {by_module(names)}",
                "was the training resumed? a checkpoint holds no requires_grad",
                hint="tg.unfreeze(model, …) if it is to go on; if it is meant, "
                "tg.freeze(model, …, optimizer=optimizer) takes them out of the optimizer",
            )
