"""What would make training smaller: each is a change of the plan, tried on fake tensors before it is told."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import yaml
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from torchgraft.edits.base import Edit, kinds
from torchgraft.errors import TorchgraftError
from torchgraft.memory.data import Remedy
from torchgraft.memory.predict import Case
from torchgraft.memory.room import Room, spoken
from torchgraft.recipe import Recipe
from torchgraft.rules.finding import Fix
from torchgraft.select import selected
from torchgraft.train.optimise import optimizer_class

if TYPE_CHECKING:
    from torchgraft.graft import Graft

__all__ = ["blocks_of", "remedies"]

_LESS = ("freeze", "image")
"""Remedies that train another thing."""

WORTH = 0.01
"""A remedy that saves less than this share of the peak is not told."""


@dataclass(frozen=True)
class _Way:
    """A change, before it is tried.

    Attributes:
        name: in one word.
        does: what it does, in words.
        price: what it costs, in words.
        case: the prediction that tells what it saves.
        settings: what it sets, as `--set` takes it.
        edits: what it edits.
    """

    name: str
    does: str
    price: str
    case: Case
    settings: tuple[str, ...] = ()
    edits: tuple[Edit, ...] = ()


def remedies(
    graft: Graft, case: Case, peak: int, *, room: Room | None, most: int | None, need: Callable[[Case], int]
) -> tuple[Remedy, ...]:
    """Try what would help, alone and, where nothing alone makes it fit, together.

    Args:
        graft: whose training it is.
        case: as it is planned.
        peak: of that, in bytes.
        room: what there is.
        most: the largest batch that fits.
        need: predicts the peak of a case.

    Returns:
        those that save something; what fits first, then what saves most.
    """
    ways = list(_single(graft, case, most))
    found = [one for way in ways if (one := _tried(way, peak, room, need)) is not None]
    whole = [one for one in found if one.name not in _LESS]
    if room is not None and not room.holds(peak) and not any(one.fits for one in whole):
        together = _together(ways, {one.name for one in found})
        more = [one for way in together if (one := _tried(way, peak, room, need)) is not None]
        found += [one for one in more if all(one.saves > single.saves for single in _parts(one, found))]
    return tuple(sorted(found, key=lambda one: (not one.fits, -one.saves)))


def _tried(way: _Way, peak: int, room: Room | None, need: Callable[[Case], int]) -> Remedy | None:
    """Predict a way; None where it saves nothing, or the model does not run so."""
    try:
        size = need(way.case)
    except TorchgraftError:
        return None
    if peak - size < WORTH * peak:
        return None
    fits = None if room is None else room.holds(size)
    less = f"{way.does}: {spoken(size)}, {(peak - size) / peak:.0%} less"
    fix = Fix(way.name, f"{less}; {way.price}", way.edits, way.settings)
    return Remedy(way.name, f"{way.does}; {way.price}", size, peak - size, fits, fix)


def _parts(whole: Remedy, found: list[Remedy]) -> list[Remedy]:
    """List the single remedies that one of several is made of."""
    return [one for one in found if one.name in whole.name.split("+")]


def _single(graft: Graft, case: Case, most: int | None) -> Iterator[_Way]:
    for one in (_smaller_batch, _checkpointing, _bf16, _fused, _optimizer, _head_only, _smaller_image):
        yield from one(graft, case, most)


def _smaller_batch(graft: Graft, case: Case, most: int | None) -> Iterator[_Way]:
    """Take fewer samples at once and gather the gradients of several batches: the same step, but for BatchNorm."""
    batch = case.plan.batch
    limit = batch - 1 if most is None or most >= batch else most
    limit = min(limit, batch // 2)
    part = next((size for size in range(limit, 0, -1) if batch % size == 0), 0)
    if not part:
        return
    times = case.plan.accumulate * (batch // part)
    norms = _has_batch_norms(graft.module)
    yield _Way(
        "accumulate",
        f"batch {part}, {times} of them a step",
        f"BatchNorm then sees {part} samples at once" if norms else "the same step, in smaller pieces",
        changed(case, batch=part, accumulate=times),
        (f"train.batch={part}", f"train.accumulate={times}"),
    )


def _has_batch_norms(model: nn.Module) -> bool:
    """Tell whether a norm reads the batch while it is trained."""
    norms = [one for one in model.modules() if isinstance(one, _NormBase)]
    return any(all(p.requires_grad for p in one.parameters()) for one in norms)


def _checkpointing(graft: Graft, case: Case, most: int | None) -> Iterator[_Way]:
    blocks = blocks_of(graft.module)
    if not blocks or case.plan.checkpointing:
        return
    written = ", ".join(blocks)
    yield _Way(
        "checkpointing",
        "compute the activations of each block again",
        "about a third more time, the same weights",
        changed(case, checkpointing=tuple(blocks)),
        (f"train.checkpointing=[{written}]",),
    )


def blocks_of(model: nn.Module) -> list[str]:
    """Find the repeated blocks of a model, as selectors of checkpointing: `layer1.*`, `encoder.layers.*`.

    A block is one of several modules of the same class, side by side, that have parts and weights of their own.
    """
    found: list[str] = []
    for path, module in model.named_modules():
        if not any(path.startswith(one.removesuffix("*")) for one in found) and _repeats(module):
            found.append(f"{path}.*".lstrip("."))
    return found


def _repeats(module: nn.Module) -> bool:
    if not isinstance(module, (nn.ModuleList, nn.ModuleDict, nn.Sequential)):
        return False
    children = list(module.children())
    whole = [one for one in children if _is_block(one)]
    classes = [type(one) for one in whole]
    return any(classes.count(one) >= max(2, (len(children) + 1) // 2) for one in set(classes))


def _is_block(module: nn.Module) -> bool:
    plain = isinstance(module, (nn.Sequential, nn.ModuleList, nn.ModuleDict)) and type(
        module
    ).__module__.startswith("torch.nn")
    return not plain and any(True for _ in module.children()) and any(True for _ in module.parameters())


def _bf16(graft: Graft, case: Case, most: int | None) -> Iterator[_Way]:
    if case.plan.precision == "fp32":
        yield _Way(
            "bf16",
            "bf16 autocast",
            "8 bits of precision in products; quicker where the device has it",
            changed(case, precision="bf16"),
            ("train.precision=bf16",),
        )


def _optimizer(graft: Graft, case: Case, most: int | None) -> Iterator[_Way]:
    if case.plan.optimizer.name in ("sgd", "adafactor"):
        return
    rate = f"{case.plan.optimizer.lr * 10:g}"
    text = f"{{sgd: {{lr: {rate}, momentum: 0.9}}}}"
    plan = {"optimizer": Recipe.value(text)}
    yield _Way(
        "sgd",
        "SGD with momentum",
        f"one number a weight in place of two; it needs a rate of its own, {rate} is a guess",
        replace(case, plan=type(case.plan).model_validate({**_body(case), **plan}), words=[]),
        (f"train.optimizer={text}",),
    )


def _fused(graft: Graft, case: Case, most: int | None) -> Iterator[_Way]:
    """Let one kernel move the weights: the usual form on a GPU makes temporary tensors for all of them at once."""
    optimizer = case.plan.optimizer
    settings = {name: one for name, one in optimizer.settings.items() if name != "foreach"}
    takes = "fused" in inspect.signature(optimizer_class(optimizer.name)).parameters
    if not takes or not case.accelerated or settings.get("fused"):
        return
    made = {optimizer.name: {**settings, "fused": True}}
    text = yaml.safe_dump(made, default_flow_style=True, sort_keys=False, width=1000).strip()
    yield _Way(
        "fused",
        f"{optimizer.name} in one kernel",
        "the same step, and a quicker one",
        replace(case, plan=type(case.plan).model_validate({**_body(case), "optimizer": made}), words=[]),
        (f"train.optimizer={text}",),
    )


def _body(case: Case) -> dict[str, Any]:
    return {name: getattr(case.plan, name) for name in type(case.plan).model_fields}


def _head_only(graft: Graft, case: Case, most: int | None) -> Iterator[_Way]:
    try:
        head = selected(graft.module, "head", roles=graft.roles)
    except TorchgraftError:
        return
    still = {name for name, one in graft.module.named_parameters() if id(one) not in head and one.requires_grad}
    if not still or case.plan.unfreeze:
        return
    yield _Way(
        "freeze",
        "train the head alone",
        "the base learns nothing",
        replace(case, still=still, words=[]),
        edits=(kinds()["freeze"].of(all_but=["head"]),),
    )


def _smaller_image(graft: Graft, case: Case, most: int | None) -> Iterator[_Way]:
    """Take images of about half the area, where the input is images and not small already."""
    shape = graft.input_shape
    if shape is None or len(shape) != 3 or min(shape[1:]) < 96 or case.shape is not None:
        return
    high, wide = (round(side * 0.7 / 32) * 32 for side in shape[1:])
    yield _Way(
        "image",
        f"images of {high}×{wide} in place of {shape[1]}×{shape[2]}",
        "small things get lost",
        replace(case, shape=(shape[0], high, wide), words=[]),
        (f"input=[{shape[0]}, {high}, {wide}]", f"preprocess.size=[{high}, {wide}]"),
    )


def _together(ways: list[_Way], helping: set[str]) -> Iterator[_Way]:
    """Put together what leaves the training as it is, then what changes it."""
    by_name = {way.name: way for way in ways if way.name in helping}
    if "sgd" in by_name:
        by_name.pop("fused", None)  # both set the optimizer
    every = (("checkpointing", "bf16"), ("checkpointing", "bf16", "accumulate"), tuple(by_name))
    groups = (tuple(name for name in names if name in by_name and name not in _LESS) for names in every)
    for names in dict.fromkeys(groups):
        chosen = [by_name[name] for name in names]
        if len(chosen) < 2:
            continue
        case = chosen[0].case
        for way in chosen[1:]:
            differs = {name: getattr(way.case.plan, name) for name in _CHANGES[way.name]}
            case = changed(case, **differs)
        yield _Way(
            "+".join(way.name for way in chosen),
            " and ".join(way.does for way in chosen),
            "at the price of each",
            case,
            tuple(one for way in chosen for one in way.settings),
        )


_CHANGES = {
    "accumulate": ("batch", "accumulate"),
    "checkpointing": ("checkpointing",),
    "bf16": ("precision",),
    "fused": ("optimizer",),
    "sgd": ("optimizer",),
}
"""What each way changes of the plan."""


def changed(case: Case, **settings: Any) -> Case:
    """Give a case with other settings of its plan."""
    return replace(case, plan=case.plan.model_copy(update=settings), words=[])
