"""`timm:NAME[@none]`: the models of timm; the tag of the weights is part of timm's own names."""

from __future__ import annotations

from typing import Any

from torchgraft.errors import SourceError, nearest
from torchgraft.preprocess import Preprocess
from torchgraft.sources.base import Base, Source, online, seeded

__all__ = ["Timm"]


class Timm(Source):
    """A model of timm with its default weights, or random ones for `@none`."""

    def check(self, *, trust: bool = False) -> None:
        """Look model and weights up in timm's registry."""
        import timm

        stem = self.name.partition(".")[0]
        if not timm.is_model(stem):
            raise SourceError(
                f"timm has no model '{self.name}'",
                where=str(self),
                hint=nearest(stem, timm.list_models()) or "timm.list_models() names them",
            )
        if self.tag not in ("", "none"):
            raise SourceError(
                f"timm names weights within the model's name, not '@{self.tag}'",
                where=str(self),
                hint=f"timm:{stem}.{self.tag}, or timm:{stem}@none",
            )
        self._check_weights(stem)

    def load(self, *, seed: int = 0, trust: bool = False) -> Base:
        """Build the model and load its weights."""
        import timm

        self.check()
        with seeded(seed):
            module = online(lambda: timm.create_model(self.name, pretrained=self.tag != "none"), str(self))
        config: dict[str, Any] = getattr(module, "pretrained_cfg", None) or {}
        size = tuple(config["input_size"]) if "input_size" in config else None
        return Base(module, str(self), size, _preprocess(config))

    def _check_weights(self, stem: str) -> None:
        """Refuse weights that timm does not name, before it asks a server for them."""
        import timm

        try:
            timm.get_pretrained_cfg(self.name)
        except RuntimeError as error:
            weights = self.name.partition(".")[2]
            known = [name.partition(".")[2] for name in timm.list_pretrained(f"{stem}.*")]
            raise SourceError(
                f"timm's {stem} has no weights '{weights}'",
                where=str(self),
                hint=nearest(weights, known) or f"one of {', '.join(known)}, or timm:{stem}@none",
            ) from error


def _preprocess(config: dict[str, Any]) -> Preprocess | None:
    if "input_size" not in config:
        return None
    channels, height, width = config["input_size"]
    if channels not in (1, 3):
        return None
    interpolation = config.get("interpolation", "bicubic")
    return Preprocess(
        size=(height, width),
        resize=int(min(height, width) / config.get("crop_pct", 0.875)),
        channels=channels,
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        interpolation=interpolation if interpolation in ("nearest", "bilinear", "bicubic") else "bicubic",
    )
