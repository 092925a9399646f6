"""What a model sees: tensors captured on their way, and pictures of them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torchgraft.features.attention import Attention, attention_maps, rollout
    from torchgraft.features.cam import Cam, grad_cam, score_cam
    from torchgraft.features.filters import Filters, first_filters
    from torchgraft.features.hooks import Capture, capture
    from torchgraft.features.maps import ChannelMaps, feature_maps
    from torchgraft.features.seen import Feature, Seen
    from torchgraft.features.sheets import drawn
    from torchgraft.features.statistics import LayerStatistics, Statistics, layer_statistics

__all__ = [
    "Attention",
    "Cam",
    "Capture",
    "ChannelMaps",
    "Feature",
    "Filters",
    "LayerStatistics",
    "Seen",
    "Statistics",
    "attention_maps",
    "capture",
    "drawn",
    "feature_maps",
    "first_filters",
    "grad_cam",
    "layer_statistics",
    "rollout",
    "score_cam",
]

_HOMES = {
    "attention": ("Attention", "attention_maps", "rollout"),
    "cam": ("Cam", "grad_cam", "score_cam"),
    "filters": ("Filters", "first_filters"),
    "hooks": ("Capture", "capture"),
    "maps": ("ChannelMaps", "feature_maps"),
    "seen": ("Feature", "Seen"),
    "sheets": ("drawn",),
    "statistics": ("LayerStatistics", "Statistics", "layer_statistics"),
}


def __getattr__(name: str) -> Any:
    """Import what is asked for: nothing of torch is loaded before."""
    home = next((home for home, names in _HOMES.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)
