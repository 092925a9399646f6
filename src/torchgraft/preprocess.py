"""How an image becomes a tensor: the same for training, validation and prediction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from torchgraft.schema import Count, Schema

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Preprocess"]

Finite = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Above = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]

_GREY = {"mean": (0.449,), "std": (0.226,)}
"""What the defaults are over the three colours."""


class Preprocess(Schema):
    """Resize, crop, scale to 0 … 1, normalise.

    Attributes:
        size: height and width of the result.
        resize: the shorter side is brought to this before the centre is cropped; None stretches to `size`.
        frame: how the shape of the image is brought to that of `size`: `crop` keeps it and cuts off what is over,
            `stretch` brings both sides to `resize` first, `pad` brings the longer side to `resize` and fills the
            border with the mean.
        channels: 1 for grey, 3 for colour; images are converted.
        mean: subtracted from each channel after scaling to 0 … 1; one number a channel.
        std: divides each channel after that; one number a channel, more than 0.
        interpolation: how pixels are resized.
    """

    size: tuple[Count, Count]
    resize: Count | None = None
    channels: Literal[1, 3] = 3
    mean: tuple[Finite, ...] = (0.485, 0.456, 0.406)
    std: tuple[Above, ...] = (0.229, 0.224, 0.225)
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bilinear"
    frame: Literal["crop", "stretch", "pad"] = "crop"

    @model_validator(mode="before")
    @classmethod
    def _grey(cls, value: Any) -> Any:
        return {**_GREY, **value} if isinstance(value, Mapping) and value.get("channels") == 1 else value

    @model_validator(mode="after")
    def _one_a_channel(self) -> Self:
        for name, numbers in (("mean", self.mean), ("std", self.std)):
            if len(numbers) != self.channels:
                raise ValueError(f"{name} needs one number a channel: {self.channels}, not {len(numbers)}")
        return self

    def with_channels(self, channels: Literal[1, 3]) -> Preprocess:
        """Give the same for another number of channels; grey takes the means over the colours."""
        if channels == self.channels:
            return self
        count = len(self.mean)
        mean = (round(sum(self.mean) / count, 6),) * channels
        std = (round(sum(self.std) / count, 6),) * channels
        return self.model_copy(update={"channels": channels, "mean": mean, "std": std})

    def with_size(self, size: tuple[int, int]) -> Preprocess:
        """Give the same for another size; the border cut off stays the same share."""
        resize = self.resize and round(self.resize * min(size) / min(self.size))
        return self.model_copy(update={"size": size, "resize": resize})

    def transform(self, *, before: Sequence[Any] = ()) -> Callable[..., Any]:
        """Build the function from a PIL image to a float tensor `[channels, H, W]`.

        Given a mask beside the image, as `tv_tensors.Mask` [H, W], it gives both, resized and cropped alike.

        Args:
            before: transforms of torchvision v2 that come after the image is resized, before it is normalised;
                whatever size they leave, the result has `size`. A RandomResizedCrop that comes first is cut out
                of the whole image instead, so that a small one is not blurred.
        """
        import torch
        from torchvision.transforms import v2

        steps: list[Any] = [v2.Grayscale(1) if self.channels == 1 else v2.RGB(), v2.ToImage()]
        mode = v2.InterpolationMode(self.interpolation)
        crops = bool(before) and isinstance(before[0], v2.RandomResizedCrop)
        steps += [*([] if crops else [v2.Resize(**self._resized(), interpolation=mode)]), *before]
        if before and (crops or self.resize is None):
            steps.append(v2.Resize(list(self.size), mode))
        steps += [v2.ToDtype(torch.float32, scale=True), v2.Normalize(list(self.mean), list(self.std))]
        if self.resize is not None:
            steps.append(v2.CenterCrop(list(self.size)))  # after the mean became 0: what it pads is 0
        made: Callable[..., Any] = v2.Compose(steps)
        return made

    def _resized(self) -> dict[str, Any]:
        """Say what v2.Resize is given: both sides, or the shorter, or the longer one."""
        if self.resize is None:
            return {"size": list(self.size), "antialias": True}
        if self.frame == "pad":
            return {"size": None, "max_size": self.resize, "antialias": True}
        if self.frame == "crop":
            return {"size": self.resize, "antialias": True}
        wide = [round(self.resize * side / min(self.size)) for side in self.size]
        return {"size": wide, "antialias": True}
