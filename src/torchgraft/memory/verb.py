"""`g.memory(…)`: what training takes, whether it fits, and what would help."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch

from torchgraft.errors import TrainError
from torchgraft.memory.counter import KINDS, Block
from torchgraft.memory.course import Course, of_kinds, summed
from torchgraft.memory.data import Held, Memory, Remedy
from torchgraft.memory.largest import largest
from torchgraft.memory.predict import Case, predicted, predicted_peak
from torchgraft.memory.remedies import changed, remedies
from torchgraft.memory.room import Room, room_of, spoken
from torchgraft.memory.text import spoken_moment
from torchgraft.probes.fit import Fit
from torchgraft.recipe import TrainPlan
from torchgraft.rules.finding import Finding
from torchgraft.rules.memory import CloseCall, NoSampleFits, TooLarge
from torchgraft.rules.rule import Evidence
from torchgraft.settings import check_settings

if TYPE_CHECKING:
    from torchgraft.graft import Graft

__all__ = ["memory"]

POINTS = 60
"""So many stretches of a step are kept of its course."""


def memory(
    graft: Graft,
    device: str | None = None,
    *,
    loss: Any = None,
    targets: Any = None,
    help: bool = True,
    **settings: Any,
) -> Memory:
    """Predict the memory that training takes; nothing is run for real, and the model is only read.

    Args:
        graft: whose training it is; where its recipe has no plan, the defaults are taken.
        device: what it has to fit into: `24GB`, `24GiB`, `16000MiB`, or `cuda`, `cuda:1`, `mps`, `cpu` for what is
            free there now. Without it there is no verdict.
        loss: what outputs are judged by, `loss(output)`; the recipe's head or the outputs say it otherwise.
        targets: an example of what the loss compares with: it is then called `loss(output, targets)`.
        help: look for the largest batch and for remedies too, which takes some more predictions.
        settings: of the plan, in place of the recipe's: `batch=64`, `precision="bf16"`,
            `optimizer={"sgd": {"lr": 0.1, "momentum": 0.9}}`, `checkpointing="layer3.*"`.

    Raises:
        RecipeError: a setting is wrong.
        EditError: the model does not run; carries the finding.
        TrainError: nothing can be trained, the device is none, or the step can't be run without values.
    """
    check_settings({f"train.{name}": value for name, value in settings.items()})
    plan = planned(graft, settings)
    room = room_of(device) if device is not None else None
    gpu = room.gpu if room is not None else _on_gpu(plan)
    case = Case(plan, accelerated=gpu, loss=loss, targets=targets)
    course = predicted(graft, case)
    found = _described(graft, case, course, room)
    if not help:
        return found
    return _judged(graft, _helped(graft, case, course, found))


def planned(graft: Graft, settings: Mapping[str, Any]) -> TrainPlan:
    """Give the plan of the recipe, or the default one, with other settings."""
    own = graft.recipe.train
    body = {"data": "none"} if own is None else {name: getattr(own, name) for name in type(own).model_fields}
    return TrainPlan.model_validate({**body, **settings})


def _on_gpu(plan: TrainPlan) -> bool:
    if plan.device == "auto":
        return torch.accelerator.current_accelerator(check_available=True) is not None
    return not plan.device.startswith("cpu")


def _need(graft: Graft, case: Case, known: Course, plan: TrainPlan) -> int:
    """Predict a peak: what the optimizer does is known already, where neither it nor what it trains is another."""
    if case.still or case.plan.optimizer != plan.optimizer:
        return predicted(graft, case).peak()
    return predicted_peak(graft, case, known)


def _described(graft: Graft, case: Case, course: Course, room: Room | None) -> Memory:
    """Write down what a course shows."""
    at_peak = summed(course.at_peak(), "what")
    return Memory(
        name=graft.name,
        facts=_facts(case),
        assumed=graft.recipe.train is None,
        batch=case.plan.batch,
        peak=course.peak(),
        first=course.peak(1),
        steady=course.peak(course.steps),
        moment=course.moment(),
        kinds=tuple((kind, at_peak[kind]) for kind in KINDS if at_peak.get(kind)),
        modules=_by_module(graft, course),
        line=course.line(POINTS),
        room=room,
    )


def _facts(case: Case) -> tuple[tuple[str, str], ...]:
    plan = case.plan
    facts = [("batch", str(plan.batch)), ("", plan.precision), ("", plan.optimizer.name)]
    momentum = plan.optimizer.settings.get("momentum")
    facts[-1] = ("", f"{plan.optimizer.name} with momentum" if momentum else plan.optimizer.name)
    if plan.accumulate > 1:
        facts.append(("", f"{plan.accumulate} batches a step"))
    if plan.checkpointing:
        facts.append(("checkpointing", " ".join(plan.checkpointing)))
    return (*facts, ("loss:", case.words[0] if case.words else ""))


def _by_module(graft: Graft, course: Course) -> tuple[Held, ...]:
    standing, kept = course.standing(), course.kept()
    sums: dict[str, Mapping[str, int]] = {
        "weights": _paths(of_kinds(standing, "weights", "buffers")),
        "gradients": _paths(of_kinds(standing, "gradients")),
        "optimizer": _paths(of_kinds(standing, "optimizer")),
        "activations": _paths(kept),
    }
    modules = dict(graft.module.named_modules())
    holding = {path for one in sums.values() for path, size in one.items() if size}
    order = [path for path in modules if path in holding] + sorted(holding - modules.keys())
    return tuple(
        Held(
            path,
            type(modules[path]).__name__ if path in modules else "",
            **{name: held.get(path, 0) for name, held in sums.items()},
        )
        for path in order
    )


def _paths(blocks: Iterable[Block]) -> Mapping[str, int]:
    return summed(blocks, "path")


# what would help


def _helped(graft: Graft, case: Case, course: Course, found: Memory) -> Memory:
    room, most = found.room, None
    known = {case.plan.batch: found.peak}

    def asked(one: Case) -> int:
        return _need(graft, one, course, case.plan)

    def need(batch: int) -> int:
        if batch not in known:
            try:
                known[batch] = asked(changed(case, batch=batch))
            except TrainError:
                if batch > 1:
                    raise
                known[batch] = need(2)  # a BatchNorm over one value can't be trained with one sample
        return known[batch]

    if room is not None and not room.holds(_standing(found)):
        most = 0
    elif room is not None:
        most = largest(need, room.holds, room.most, case.plan.batch)
    helping = remedies(graft, case, found.peak, room=room, most=most, need=asked)
    return dataclasses.replace(found, largest=most, remedies=helping)


def _judged(graft: Graft, found: Memory) -> Memory:
    """Let the rules of family M read what was predicted; what makes it fit is their fix."""
    room = found.room
    if room is None:
        return found
    kinds = dict(found.kinds)
    standing = _standing(found)
    holders = sorted(kinds.items(), key=lambda pair: -pair[1])[:3]
    fit = Fit(
        need=found.peak,
        standing=standing,
        allowance=found.allowance,
        room=room.size,
        place=room.words,
        batch=found.batch,
        most=found.largest or 0,
        moment=spoken_moment(found.moment),
        holders=", ".join(f"{kind} {spoken(size)}" for kind, size in holders),
    )
    evidence = Evidence(graft.module, (), name=graft.name, memory=fit)
    told = [one for rule in (TooLarge, NoSampleFits, CloseCall) for one in rule().findings(evidence)]
    return dataclasses.replace(found, findings=tuple(_with_fixes(one, found.remedies) for one in told))


def _standing(found: Memory) -> int:
    """Give what no batch changes: weights, gradients and the state of the optimizer."""
    return sum(one.weights + one.gradients + one.optimizer for one in found.modules)


def _with_fixes(finding: Finding, helping: tuple[Remedy, ...]) -> Finding:
    return dataclasses.replace(finding, fixes=tuple(one.fix for one in helping if one.fits))
