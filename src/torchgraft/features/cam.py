"""Where a model looks for a class: Grad-CAM and Score-CAM."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from torchgraft.errors import SelectionError
from torchgraft.features.classes import class_name, class_numbers, score_of, scores_of
from torchgraft.features.hooks import capture, still
from torchgraft.features.layout import Grids, Sides, maps_of
from torchgraft.features.maps import gives_map, traced
from torchgraft.paths import homes

if TYPE_CHECKING:
    from torchgraft.features.seen import Feature
    from torchgraft.graft import Graft
    from torchgraft.trace import Trace

__all__ = ["Cam", "grad_cam", "last_map", "score_cam"]

_CANDIDATES = 24
"""So many of the last maps are looked at for one that the score depends on everywhere."""


@dataclass(frozen=True)
class Cam:
    """Where a model looks for a class, one map an image.

    Attributes:
        method: how it was found.
        at: the layer whose channels it is made of.
        maps: `[N, h, w]`, not below 0, in the units of the scores.
        images: the same brought to the size of the images, bilinear, each scaled from 0 to 1: `[N, H, W]`.
        classes: the class of each image, by number.
        names: and by name.
        chances: the probability of that class; NaN where the model gives one number alone.
    """

    method: Literal["grad-cam", "score-cam"]
    at: str
    maps: Tensor
    images: Tensor
    classes: tuple[int, ...]
    names: tuple[str, ...]
    chances: tuple[float, ...]


def grad_cam(
    graft: Graft,
    images: Tensor,
    *,
    at: str | None = None,
    target: int | str | None = None,
    classes: Sequence[str] = (),
) -> Cam:
    """Weigh the channels of a layer by the gradient of a class's score (Selvaraju et al., 2017).

    The map is `ReLU(Σ w_c A_c)`, with `w_c` the mean over all places of the score's gradient to channel c. Tokens
    are laid out on their grid; those of no place, such as the class token, are left out.

    Args:
        graft: a classifier.
        images: `[N, C, H, W]`, prepared.
        at: a layer that gives maps; the last one that the score depends on everywhere where none is named.
        target: a class, by number or by name; what is predicted where none is named.
        classes: the names of the classes.

    Raises:
        SelectionError: the layer gives no map, or there is none.
        DataError: there is no such class, or the model is no classifier.
    """
    trace, grids = _looked(graft, images)
    with torch.enable_grad(), capture(graft, *_candidates(trace, grids, at), gradients=True) as seen:
        scores = scores_of(seen.run(images))
        numbers = class_numbers(scores, target, classes)
        seen.pull(score_of(scores, numbers))
    found = _best(list(seen), trace, grids, at)
    activations, gradients = found[1], found[2]
    weights = gradients.mean((2, 3), keepdim=True)
    return _cam("grad-cam", found[0], (weights * activations).sum(1).relu(), images, scores, numbers, classes)


def score_cam(
    graft: Graft,
    images: Tensor,
    *,
    at: str | None = None,
    target: int | str | None = None,
    classes: Sequence[str] = (),
    batch: int = 32,
) -> Cam:
    """Weigh the channels of a layer by the score of the image seen through each of them (Wang et al., 2020).

    Each channel is brought to the size of the image, scaled from 0 to 1, and multiplied with it; the weights are
    the softmax over the channels of the scores before the softmax over the classes. No gradient is needed; it
    takes one pass a channel and image.

    Args:
        graft: a classifier.
        images: `[N, C, H, W]`, prepared.
        at: see `grad_cam`.
        target: see `grad_cam`.
        classes: the names of the classes.
        batch: how many masked images go through the model at once.

    Raises:
        SelectionError: the layer gives no map, or there is none.
        DataError: there is no such class, or the model is no classifier.
    """
    trace, grids = _looked(graft, images)
    path = at or last_map(graft, images)
    with capture(graft, path, stop=False) as seen:
        scores = scores_of(seen.run(images))
        numbers = class_numbers(scores, target, classes)
    name, activations, _ = _best(list(seen), trace, grids, path)
    maps = torch.stack(
        [
            _through(graft, image[None], one, number, batch)
            for image, one, number in zip(images, activations, numbers, strict=True)
        ]
    )
    return _cam("score-cam", name, maps, images, scores, numbers, classes)


def _through(graft: Graft, image: Tensor, channels: Tensor, number: int, batch: int) -> Tensor:
    """Give the map of one image: its channels `[C, h, w]`, weighed by the scores of what they let through."""
    masks = nn.functional.interpolate(channels[:, None], image.shape[-2:], mode="bilinear", align_corners=False)
    masks = _scaled(masks)
    scores = []
    place = next(graft.module.parameters())
    with still(graft.module), torch.no_grad():
        for start in range(0, len(masks), batch):
            masked = image.to(place) * masks[start : start + batch].to(place)
            scores.append(scores_of(graft.module(masked))[:, number].float().cpu())
    # The score of an empty image, which the paper takes off first, is the same for each: the softmax cancels it.
    weights = torch.cat(scores).softmax(0)
    return (weights[:, None, None] * channels).sum(0).relu()


def last_map(graft: Graft, images: Tensor) -> str:
    """Name the last layer that gives maps on which the predicted score depends everywhere.

    Behind the last attention a score depends on the class token alone, so a map there shows nothing.

    Raises:
        SelectionError: there is none.
    """
    return grad_cam(graft, images[:1]).at


def _looked(graft: Graft, images: Tensor) -> tuple[Trace, Grids]:
    trace = traced(graft)
    return trace, Grids.of((images.shape[-2], images.shape[-1]), trace)


def _candidates(trace: Trace, grids: Grids, at: str | None) -> list[str]:
    """Give the layers that may do: the one named, or those that give the last maps, each map once."""
    if at is not None:
        return [at]
    grids, found = grids.as_traced(trace), dict[int, str]()
    for call in sorted(trace.calls, key=lambda call: (-call.last_op, call.index)):
        if len(trace.calls_of(call.path)) > 1 or _in_attention(trace, call.path):
            continue
        if gives_map(trace, call, grids):
            found.setdefault(call.gave[0], call.path)
    if not found:
        raise SelectionError("no layer of this model gives maps", where="at", hint="Grad-CAM needs maps or tokens")
    return list(found.values())[:_CANDIDATES]


def _in_attention(trace: Trace, path: str) -> bool:
    """Tell whether a module stands within an attention: queries and keys are no maps of what is seen."""
    return any("attention" in trace.kinds.get(home, "").lower() for home in homes(path))


def _best(seen: list[Feature], trace: Trace, grids: Grids, at: str | None) -> tuple[str, Tensor, Tensor]:
    """Give name, maps and gradients of the last layer on which the score depends everywhere."""
    sides, least = Sides(trace), None
    for one in reversed(seen):
        side = sides.of(one.path)(one.tensor)
        maps = maps_of(one.tensor.float().cpu(), side, grids)
        if maps is None:
            continue
        back = None if one.gradient is None else maps_of(one.gradient.float().cpu(), side, grids)
        back = torch.zeros_like(maps) if back is None else back
        least = least or (one.name, maps, back)
        if at is not None or float((back.abs().sum(1) > 0).float().mean()) > 0.5:
            return one.name, maps, back
    if least is not None:
        return least
    shapes = ", ".join(f"{one.name} {list(one.tensor.shape)}" for one in seen[:3]) or "nothing of it ran"
    raise SelectionError(
        f"no map is given there: {shapes}", where=at or "", hint="name a layer that gives [N, C, H, W]"
    )


def _cam(
    method: Literal["grad-cam", "score-cam"],
    at: str,
    maps: Tensor,
    images: Tensor,
    scores: Tensor,
    numbers: tuple[int, ...],
    classes: Sequence[str],
) -> Cam:
    size = (images.shape[-2], images.shape[-1])
    large = nn.functional.interpolate(maps[:, None], size, mode="bilinear", align_corners=False)
    chances = scores.detach().float().softmax(1).cpu()[torch.arange(len(scores)), list(numbers)]
    if scores.shape[1] == 1:  # one number is no choice between classes: its softmax is always 1
        chances = torch.full_like(chances, math.nan)
    names = tuple(class_name(number, classes) for number in numbers)
    return Cam(method, at, maps, _scaled(large)[:, 0], numbers, names, tuple(chances.tolist()))


def _scaled(maps: Tensor) -> Tensor:
    """Bring each map `[N, 1, H, W]` to 0 … 1; one that is the same everywhere becomes 0."""
    low, high = maps.amin((1, 2, 3), keepdim=True), maps.amax((1, 2, 3), keepdim=True)
    return (maps - low) / (high - low).clamp(min=1e-12)
