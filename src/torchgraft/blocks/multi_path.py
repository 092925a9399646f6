"""Parallel branches of any kind, whose outputs are made to agree and fused into one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field

from torchgraft.blocks.base import Start, refused
from torchgraft.blocks.layout import Laid, Layout
from torchgraft.blocks.projection import narrow
from torchgraft.blocks.wiring import gated, wired
from torchgraft.errors import EditError
from torchgraft.schema import Count

if TYPE_CHECKING:
    from torch import nn

__all__ = ["MultiPath"]


@dataclass(frozen=True)
class _Side:
    """The shape of a tensor with the channels brought to the front."""

    channels: int
    places: tuple[int, ...]


class MultiPath(Laid):
    """Branches that are given the same tensor, fused into one.

    Attributes:
        paths: the branches: modules in any form, such as `{nn.Conv2d: {…}}`, a block, or a list; `[]` passes the
            tensor on as it is.
        fuse: `concat` puts their channels together and takes a 1×1 convolution over them; `add` sums them;
            `attention` weighs the channels of each branch, by a softmax over the branches (Li et al., 2019).
        out_channels: what it gives; for `concat` as many as arrive when left out, else the most common number of
            the branches (the first one of a tie).
        size: whose map the others are pooled or interpolated to, as they run: `most`, the most common size among
            the branches (the first one of a tie); `place`, that of what arrives; or `[H, W]`.
        reduction: how many times narrower the vector within the attention is than its channels.
        start: with `identity` what is fused is added to what arrives, through a gate that starts at zero.
    """

    layouts: ClassVar[tuple[Layout, ...]] = ("NCHW", "NHWC", "NLC", "NCL", "NC")
    parts: ClassVar[tuple[str, ...]] = ("paths",)
    paths: Annotated[tuple[Any, ...], Field(min_length=1)]
    fuse: Literal["concat", "add", "attention"] = "concat"
    out_channels: Count | None = None
    size: Literal["most", "place"] | tuple[Count, ...] = "most"
    reduction: Count = 4
    start: Start = None

    def fitted(self, shape: tuple[int, ...]) -> Self:
        """Take the channels and the layout from the shape.

        Raises:
            EditError: `out_channels` forbids to start as the identity.
        """
        done = super().fitted(shape)
        if done.start and done.out_channels not in (None, done.width):
            raise refused(
                self,
                f"can't start as the identity: it gives {done.out_channels} channels of {done.width}",
                f"out_channels={done.width}, or leave start out",
            )
        if isinstance(done.size, tuple) and len(done.size) != len(shape) - 2:
            raise refused(self, f"has a size of {len(done.size)} numbers", f"write {len(shape) - 2}")
        update: dict[str, Any] = {"size": "place"} if done.start else {}
        out = done.width if done.start or done.fuse == "concat" else None
        return done.model_copy(update={**update, "out_channels": done.out_channels or out})

    def __str__(self) -> str:
        return f"MultiPath({', '.join(map(str, self.paths))}; {self.fuse})"

    def build(self) -> nn.Module:
        """Refuse: the branches are built by the edit that puts the block in."""
        raise self._unbuilt()

    def core(self) -> nn.Module:
        """Refuse, in the same way."""
        raise self._unbuilt()

    def _unbuilt(self) -> EditError:
        return refused(self, "is built for its place, with its branches", "hand it to insert, replace or append")

    def joined(self, modules: Sequence[nn.Module], given: tuple[int, ...], gave: Sequence[Any]) -> nn.Module:
        """Join built branches.

        Args:
            modules: the branches.
            given: the shape that they are given.
            gave: the shape that each gives; None where it does not run.

        Raises:
            EditError: a branch does not run, or gives another number of dimensions.
        """
        from torch import nn

        layout = self.layout or "NCHW"
        for number, shape in enumerate(gave):
            if shape is None or len(shape) != len(layout):
                what = "does not run" if shape is None else f"gives {len(shape)} dimensions"
                shown = ["N", *map(str, given[1:])]
                raise refused(
                    self,
                    f"has a branch that can't be fused: paths[{number}] {what} for [{', '.join(shown)}]",
                    "let it give a tensor of as many dimensions as it is given" if shape else "correct its sizes",
                )
        sides = [_side(shape, layout) for shape in gave]
        arrives = _side(given, layout)
        wide = self.out_channels or _most([one.channels for one in sides])
        goal, source = self._goal(sides, arrives)
        even = nn.ModuleList()
        for one in sides:
            keeps = self.fuse == "concat" or one.channels == wide
            even.append(nn.Identity() if keeps else narrow(one.channels, wide, len(layout) - 2))
        width = sum(one.channels for one in sides) if self.fuse == "concat" else wide
        net = wired(
            "MultiPath",
            _forward(self, [one.places != goal for one in sides], source, sides, goal),
            paths=nn.ModuleList(modules),
            even=even,
            fusion=self._fusion(width, wide, len(layout) - 2, len(modules)),
        )
        return gated(net) if self.start else net

    def _goal(self, sides: Sequence[_Side], arrives: _Side) -> tuple[tuple[int, ...], int | str | tuple[int, ...]]:
        """Give the size that is wanted, and where it is read as the graph runs: a branch, the input, or fixed."""
        if isinstance(self.size, tuple):
            return self.size, self.size
        if self.size == "place":
            return arrives.places, "place"
        goal = _most([one.places for one in sides])
        return goal, next(number for number, one in enumerate(sides) if one.places == goal)

    def _fusion(self, width: int, out: int, rank: int, count: int) -> nn.Module:
        from timm.layers.selective_kernel import SelectiveKernelAttn
        from torch import nn

        if self.fuse == "concat":
            kinds: tuple[Any, ...] = (nn.Linear, nn.Conv1d, nn.Conv2d)
            made: nn.Module = nn.Linear(width, out) if rank == 0 else kinds[rank](width, out, 1)
            return made
        if self.fuse == "add":
            return nn.Identity()

        def norm(channels: int, **kwargs: Any) -> nn.Module:  # a batch norm could not train on one sample
            return nn.GroupNorm(1, channels, **kwargs)

        attention: nn.Module = SelectiveKernelAttn(out, count, max(out // self.reduction, 4), norm_layer=norm)
        return attention


def _side(shape: tuple[int, ...], layout: Layout) -> _Side:
    place = layout.index("C")
    return _Side(shape[place], tuple(size for at, size in enumerate(shape) if at not in (0, place)))


def _most(values: Sequence[Any]) -> Any:
    """Give the most common value, the first one of a tie."""
    return Counter(values).most_common(1)[0][0]


def _forward(
    block: MultiPath,
    other: Sequence[bool],
    source: int | str | tuple[int, ...],
    sides: Sequence[_Side],
    goal: tuple[int, ...],
) -> Any:
    """Write the pass over all branches, with the channels in front from the branches to the fused."""
    layout = block.layout or "NCHW"

    def forward(net: Any, x: Any) -> Any:
        outs = [_front(path(x.clone() if _overwrites(path) else x), layout) for path in net.paths]
        if isinstance(source, tuple):
            wanted: Any = source
        elif any(other):
            wanted = (_front(x, layout) if source == "place" else outs[int(source)]).shape[2:]
        for number, differs in enumerate(other):
            if differs:
                outs[number] = _sized(outs[number], wanted, sides[number].places, goal)
        outs = [layer(one) for layer, one in zip(net.even, outs, strict=True)]
        return _back(_fused(net, outs, block.fuse, len(layout) - 2), layout)

    return forward


def _overwrites(path: nn.Module) -> bool:
    return any(getattr(part, "inplace", False) for part in path.modules())


def _fused(net: Any, outs: list[Any], fuse: str, rank: int) -> Any:
    import torch

    if fuse == "concat":
        return net.fusion(torch.cat(outs, 1))
    if fuse == "add":
        return net.fusion(sum(outs[1:], outs[0]))
    stacked = torch.stack(outs, 1)
    for _ in range(2 - rank):  # the attention is over maps
        stacked = stacked.unsqueeze(-1)
    mixed = (stacked * net.fusion(stacked)).sum(1)
    for _ in range(2 - rank):
        mixed = mixed.squeeze(-1)
    return mixed


def _sized(x: Any, wanted: Any, places: tuple[int, ...], goal: tuple[int, ...]) -> Any:
    """Pool a larger map, interpolate a smaller one."""
    from torch.nn import functional

    if all(have >= want for have, want in zip(places, goal, strict=True)):
        pools: dict[int, Any] = {1: functional.adaptive_avg_pool1d, 2: functional.adaptive_avg_pool2d}
        return pools[len(goal)](x, wanted)
    mode = {1: "linear", 2: "bilinear"}[len(goal)]
    return functional.interpolate(x, size=wanted, mode=mode, align_corners=False)


def _front(x: Any, layout: Layout) -> Any:
    if layout == "NHWC":
        return x.permute(0, 3, 1, 2)
    return x.transpose(1, 2) if layout == "NLC" else x


def _back(x: Any, layout: Layout) -> Any:
    if layout == "NHWC":
        return x.permute(0, 2, 3, 1)
    return x.transpose(1, 2) if layout == "NLC" else x
