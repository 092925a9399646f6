"""The channels of a layer that matter most, as maps or as vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from torchgraft.errors import DataError, SelectionError
from torchgraft.features.classes import class_numbers, score_of, scores_of
from torchgraft.features.hooks import capture
from torchgraft.features.layout import Grids, Sides, maps_of
from torchgraft.paths import homes

if TYPE_CHECKING:
    from torchgraft.features.seen import Feature
    from torchgraft.graft import Graft
    from torchgraft.trace import Call, Trace

__all__ = ["ChannelMaps", "feature_maps", "gives_map", "traced"]

Measure = Literal["spread", "contribution"]

_STAGES = 6
"""So many of the last stages are shown where no layer is named."""

_FEW, _NEARLY_ALL = 3, 0.8
"""Where there are few, one that holds nearly all weights is opened: a backbone, a list of blocks."""


@dataclass(frozen=True)
class ChannelMaps:
    """The channels of one layer that matter most, the same ones for every image.

    Attributes:
        name: path of the layer, with the place of the tensor where it gives several.
        kind: the class of the layer.
        call: which call of the layer it is, from 1.
        shape: of what the layer gave, without the batch.
        maps: `[N, K, H, W]`, the greatest first; vectors are `[N, K, 1, 1]`.
        channels: the number of each.
        measures: how much each matters, by `measure`.
        measure: `spread`: the standard deviation over the places of an image, for vectors how far they are from
            the mean of all channels;
            `contribution`: the size of gradient × activation, summed over the places, for the score of a class.
        of: how many channels the layer has.
        classes: the class of each image that contributions are for.
    """

    name: str
    kind: str
    call: int
    shape: tuple[int, ...]
    maps: Tensor
    channels: tuple[int, ...]
    measures: tuple[float, ...]
    measure: Measure
    of: int
    classes: tuple[int, ...] = ()

    @property
    def is_vector(self) -> bool:
        """Whether the layer gives one number a channel, no map."""
        return self.maps.shape[-2:] == (1, 1)


def feature_maps(
    graft: Graft,
    images: Tensor,
    *at: str,
    top: int = 16,
    target: int | str | None = None,
    classes: Sequence[str] = (),
) -> tuple[ChannelMaps, ...]:
    """Give the maps of the channels that matter most in the layers asked for.

    Args:
        graft: the model.
        images: `[N, C, H, W]`, prepared.
        at: selectors of layers; where none is named, the stages: the direct children of the model that give maps.
        top: how many channels of each layer.
        target: a class, by number or name: channels are chosen by what they contribute to its score; otherwise
            by how much they vary over the image.
        classes: the names of the model's classes.

    Raises:
        SelectionError: a selector matches nothing, or nothing that gives maps or vectors.
    """
    trace = traced(graft)
    grids = Grids.of((images.shape[-2], images.shape[-1]), trace)
    with (
        torch.enable_grad(),
        capture(
            graft, *(at or _stages(trace, grids, graft.module)), gradients=target is not None, detach=True
        ) as seen,
    ):
        output = seen.run(images)
        numbers: tuple[int, ...] = ()
        if target is not None:
            scores = scores_of(output)
            numbers = class_numbers(scores, target, classes)
            seen.pull(score_of(scores, numbers))
    sides = Sides(trace)
    found = [_chosen(one, sides, grids, top, len(images), numbers) for one in seen]
    drawn = tuple(one for one in found if one is not None)
    if not drawn:
        shapes = ", ".join(f"{one.name} {list(one.tensor.shape)}" for one in list(seen)[:3]) or "nothing ran"
        raise SelectionError(
            f"nothing here gives maps or vectors of the images: {shapes}",
            where=", ".join(at),
            hint=f"layers that do: {', '.join(_stages(trace, grids, graft.module)[-3:]) or 'none here'}",
        )
    return drawn


def traced(graft: Graft) -> Trace:
    """Give the trace of a model that runs.

    Raises:
        DataError: it does not run, or its input is not known.
    """
    trace = graft.trace()
    if trace.mismatch is not None:
        raise DataError(
            f"the model does not run: {trace.mismatch.message.splitlines()[0]}",
            where=trace.mismatch.path or graft.name,
            hint="torchgraft check says why, and what mends it",
        )
    return trace


def gives_map(trace: Trace, call: Call, grids: Grids) -> bool:
    """Tell whether a call gives a map of the images: of their shape, and no table of tokens by tokens."""
    if not call.path or len(call.gave) != 1:
        return False
    shape = trace.values[call.gave[0]].shape
    if shape[:1] != (trace.batch,) or len(shape) not in (3, 4):
        return False
    fake = torch.empty(shape, device="meta")
    maps = maps_of(fake, Sides(trace).of(call.path)(fake), grids)
    return maps is not None and (len(shape) == 3 or grids.fits((maps.shape[2], maps.shape[3])))


def _stages(trace: Trace, grids: Grids, module: nn.Module) -> list[str]:
    """Give the outermost modules with weights that give maps; one that holds nearly all of them is opened."""
    grids = grids.as_traced(trace)
    sizes = {
        call.path: sum(one.numel() for one in module.get_submodule(call.path).parameters())
        for call in trace.calls
        if gives_map(trace, call, grids)
    }
    giving = [path for path, size in sizes.items() if size]
    top = _outermost(giving)
    while len(top) <= _FEW:
        whole = next((one for one in top if sizes[one] > _NEARLY_ALL * sum(map(sizes.__getitem__, top))), None)
        inside = _outermost([one for one in giving if one.startswith(f"{whole}.")])
        if not inside:
            break
        top = [deeper for one in top for deeper in (inside if one == whole else [one])]
    return top[-_STAGES:]


def _outermost(paths: Sequence[str]) -> list[str]:
    """Give the paths that lie in none of the others."""
    known = set(paths)
    return [path for path in paths if known.isdisjoint(homes(path))]


def _chosen(
    one: Feature, sides: Sides, grids: Grids, top: int, count: int, numbers: tuple[int, ...]
) -> ChannelMaps | None:
    tensor = one.tensor.float().cpu()
    if not tensor.dim() or tensor.shape[0] != count or (numbers and one.gradient is None):
        return None
    side = sides.of(one.path)(tensor)
    whole = tensor[:, :, None, None] if tensor.dim() == 2 else maps_of(tensor, side, grids)
    if whole is None:
        return None
    measures = _spread(whole)
    if numbers and one.gradient is not None:
        pulled = one.gradient.float().cpu()
        back = pulled[:, :, None, None] if pulled.dim() == 2 else maps_of(pulled, side, grids)
        measures = (whole * (0 if back is None else back)).sum((2, 3)).abs().mean(0)
    order = measures.argsort(descending=True, stable=True)[:top]
    return ChannelMaps(
        one.name,
        one.kind,
        one.call,
        tuple(tensor.shape[1:]),
        whole[:, order].contiguous(),
        tuple(order.tolist()),
        tuple(measures[order].tolist()),
        "contribution" if numbers else "spread",
        whole.shape[1],
        numbers,
    )


def _spread(maps: Tensor) -> Tensor:
    """Tell how much each channel varies over an image; of vectors, how far it is from the others."""
    if maps.shape[-2:] == (1, 1):
        return (maps - maps.mean(1, keepdim=True)).abs().mean((0, 2, 3))
    return maps.std((2, 3), correction=0).mean(0)
