"""`timm:NAME[@none]`: the models of timm; the tag of the weights is part of timm's own names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from torchgraft.errors import SourceError, nearest
from torchgraft.preprocess import Preprocess
from torchgraft.rng import drawn_from
from torchgraft.sources.base import Base, Offer, Source, online
from torchgraft.weights.hashes import cached, check_cached

__all__ = ["Timm"]

_ELSEWHERE = ("hf-hub:", "hf_hub:", "local-dir:")
"""How timm names models that are described by a config.json beside their weights."""

_FRAMES: dict[str, Any] = {"center": "crop", "squash": "stretch", "border": "pad"}
"""How timm calls what becomes of an image's shape."""


class Timm(Source):
    """A model of timm with its default weights, or random ones for `@none`.

    `timm:hf-hub:ORGANISATION/NAME` is one on the hub of Hugging Face, `timm:local-dir:FOLDER` one in a folder with
    a `config.json`.
    """

    form: ClassVar[str] = "NAME[.WEIGHTS][@none]"

    def check(self, *, trust: bool = False) -> None:
        """Look model and weights up in timm's registry."""
        import timm

        if self.tag not in ("", "none") and not self._elsewhere:
            stem = self.name.partition(".")[0]
            raise SourceError(
                f"timm names weights within the model's name, not '@{self.tag}'",
                where=str(self),
                hint=f"timm:{stem}.{self.tag}, or timm:{stem}@none",
            )
        if self._elsewhere:
            self._check_folder()
            return
        stem = self.name.partition(".")[0]
        if not timm.is_model(stem):
            raise SourceError(
                f"timm has no model '{self.name}'",
                where=str(self),
                hint=nearest(stem, timm.list_models()) or "torchgraft sources 'timm:*' lists them",
            )
        self._check_weights(stem)

    def load(self, *, seed: int = 0, trust: bool = False) -> Base:
        """Build the model and load its weights from the caches that timm uses."""
        self.check()
        if self.tag != "none":
            check_cached(self._repository())
        with drawn_from(seed):
            module = self._random() if self.tag == "none" else online(self._trained, str(self))
        config: dict[str, Any] = getattr(module, "pretrained_cfg", None) or {}
        size = tuple(config["input_size"]) if config.get("input_size") else None
        return Base(module, str(self), size, _preprocess(config))

    @classmethod
    def offers(cls) -> Sequence[Offer]:
        """List every model with its weights."""
        import timm

        here = [one.removeprefix("timm/").partition(".") for one in cached() if one.startswith("timm/")]
        weights: dict[str, list[str]] = {}
        for name in timm.list_pretrained():
            stem, _, tag = name.partition(".")
            weights.setdefault(stem, []).append(tag)
        return [
            Offer(
                name,
                tuple(_default_first(name, weights.get(name, []))),
                ", ".join(tag for stem, _, tag in here if stem == name),
            )
            for name in timm.list_models()
        ]

    @property
    def _elsewhere(self) -> bool:
        return self.name.startswith(_ELSEWHERE)

    def _repository(self) -> str:
        """Name where on the hub of Hugging Face the weights lie."""
        import timm

        if self._elsewhere:
            return self.name.partition(":")[2]
        return str(getattr(timm.get_pretrained_cfg(self.name), "hf_hub_id", "") or "")

    def _random(self) -> Any:
        """Build the model with random weights; of a model elsewhere its description is read."""
        import timm

        if not self._elsewhere:
            return timm.create_model(self.name, pretrained=False)
        return online(lambda: timm.create_model(self.name, pretrained=False), str(self), direct=False)

    def _trained(self) -> Any:
        import timm

        return timm.create_model(self.rest, pretrained=True)

    def _check_folder(self) -> None:
        if not self.name.startswith("local-dir:"):
            return
        folder = Path(self.name.partition(":")[2]).expanduser()
        if not (folder / "config.json").is_file():
            raise SourceError(
                f"there is no config.json in {folder}",
                where=str(self),
                hint="it says timm's architecture; timm.models.push_to_hf_hub and save_for_hf write one. Weights "
                f"alone are loaded by file:{folder}/model.safetensors@timm:NAME",
            )

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


def _default_first(name: str, tags: list[str]) -> list[str]:
    """Put the weights first that timm takes when none are named."""
    import timm

    config = timm.get_pretrained_cfg(name) if tags else None
    default = getattr(config, "tag", None)
    return sorted(tags, key=lambda tag: tag != default)


def _preprocess(config: dict[str, Any]) -> Preprocess | None:
    """Read how timm prepares images for evaluation."""
    if not config.get("input_size"):
        return None
    channels, height, width = config["input_size"]
    if channels not in (1, 3):
        return None
    interpolation = config.get("interpolation", "bicubic")
    return Preprocess(
        size=(height, width),
        resize=int(min(height, width) / (config.get("crop_pct") or 0.875)),
        frame=_FRAMES.get(config.get("crop_mode") or "center", "crop"),
        channels=channels,
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        interpolation=interpolation if interpolation in ("nearest", "bilinear", "bicubic") else "bicubic",
    )
