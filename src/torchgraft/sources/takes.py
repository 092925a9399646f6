"""What a model of transformers takes: an example of its inputs, and how its images are prepared."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchgraft.preprocess import Preprocess

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["example_of", "preprocess_of", "size_of"]

_TOKENS = 8
"""How many tokens an example text has."""

_SAMPLES = 16_000
"""How many samples an example of sound has: one second."""

_MODES: dict[Any, Any] = {0: "nearest", 2: "bilinear", 3: "bicubic"}
"""PIL's numbers of interpolations."""


def example_of(module: nn.Module, config: Any) -> dict[str, Tensor] | None:
    """Give an example with a batch of two, by the names of the forward's arguments; None for images alone.

    The values are small numbers of tokens, zeros for images and sound; a trace reads only sizes and types.
    """
    taken = inspect.signature(module.forward).parameters
    main = str(getattr(module, "main_input_name", "input_ids"))
    if main == "pixel_values":
        return None
    names = [main]
    if main == "input_ids" and "attention_mask" in taken:
        names.append("attention_mask")
    if getattr(config, "is_encoder_decoder", False) and "decoder_input_ids" in taken:
        names.append("decoder_input_ids")
    if hasattr(module, "get_text_features") and "pixel_values" in taken:
        names.insert(1, "pixel_values")
    made = {name: _tensor(name, config) for name in names}
    return made if all(one is not None for one in made.values()) else None  # type: ignore[return-value]


def size_of(module: nn.Module, config: Any, preprocess: Preprocess | None) -> tuple[int, ...] | None:
    """Give the shape of one image `[C, H, W]`, for a model that takes nothing else."""
    if str(getattr(module, "main_input_name", "")) != "pixel_values":
        return None
    if preprocess and not _pair(getattr(config, "image_size", None)):
        return (preprocess.channels, *preprocess.size)
    return _image(config)


def preprocess_of(path: str, config: Any) -> Preprocess | None:
    """Read how images are prepared from the `preprocessor_config.json` beside a configuration."""
    held = json.loads(Path(path).read_text(encoding="utf-8"))
    held = held.get("image_processor", held)
    channels = getattr(config, "num_channels", 3)
    crop = _pair(held.get("crop_size")) if held.get("do_center_crop") else None
    short, both = _resize(held)
    size = crop or both or ((short, short) if short else None)
    if size is None or channels not in (1, 3) or not held.get("do_normalize", True):
        return None
    resize = _shorter(short, both, crop, held)
    return Preprocess(
        size=size,
        resize=resize,
        frame="stretch" if both and crop else "crop",
        channels=channels,
        mean=tuple(map(float, held.get("image_mean") or (0.5,) * channels)),
        std=tuple(map(float, held.get("image_std") or (0.5,) * channels)),
        interpolation=_MODES.get(held.get("resample"), "bicubic"),
    )


def _resize(held: dict[str, Any]) -> tuple[int | None, tuple[int, int] | None]:
    """Give what the shorter side is brought to, or both sides."""
    size = held.get("size") if held.get("do_resize", True) else held.get("crop_size")
    if isinstance(size, dict) and "shortest_edge" in size:
        return int(size["shortest_edge"]), None
    return None, _pair(size)


def _shorter(
    short: int | None, both: tuple[int, int] | None, crop: tuple[int, int] | None, held: dict[str, Any]
) -> int | None:
    """Give what the shorter side becomes before the crop; None where the image is stretched to its size."""
    if short is None:
        return min(both) if both and crop and both != crop else None
    percent = held.get("crop_pct")  # ConvNeXt's: under 384 pixels cropped, above stretched
    if percent and crop is None:
        return int(short / percent) if short < 384 else None
    return short


def _pair(size: Any) -> tuple[int, int] | None:
    if isinstance(size, dict):
        return (int(size["height"]), int(size["width"])) if {"height", "width"} <= size.keys() else None
    if isinstance(size, (list, tuple)) and len(size) == 2:
        return int(size[0]), int(size[1])
    return (size, size) if isinstance(size, int) else None


def _image(config: Any) -> tuple[int, int, int]:
    vision = getattr(config, "vision_config", None) or config
    height, width = _pair(getattr(vision, "image_size", None)) or (224, 224)
    return (int(getattr(vision, "num_channels", 3)), height, width)


def _tensor(name: str, config: Any) -> Tensor | None:
    import torch

    text = getattr(config, "text_config", None) or config
    if name in ("input_ids", "decoder_input_ids"):
        words = int(getattr(text, "vocab_size", 0) or _TOKENS)
        return (torch.arange(_TOKENS) % words).expand(2, _TOKENS).contiguous()
    if name == "attention_mask":
        return torch.ones(2, _TOKENS, dtype=torch.long)
    if name == "pixel_values":
        return torch.zeros(2, *_image(config))
    if name == "input_values":
        return torch.zeros(2, _SAMPLES)
    if name == "input_features":  # Whisper's encoder halves the frames by a stride of two
        frames = int(getattr(config, "max_source_positions", 1500)) * 2
        return torch.zeros(2, int(getattr(config, "num_mel_bins", 80)), frames)
    return None
