"""`torchvision:NAME[@WEIGHTS]`: the models of torchvision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torchgraft.errors import SourceError, nearest
from torchgraft.preprocess import Preprocess
from torchgraft.sources.base import Base, Source, online, seeded

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Torchvision"]


class Torchvision(Source):
    """A model of torchvision; the weights are the best there are unless `@` names others or `none`."""

    def check(self, *, trust: bool = False) -> None:
        """Look model and weights up in torchvision's registry."""
        from torchvision import models

        if self.name not in models.list_models():
            hint = nearest(self.name, models.list_models()) or "torchvision.models.list_models() names them"
            raise SourceError(f"torchvision has no model '{self.name}'", where=str(self), hint=hint)
        self._weights()

    def load(self, *, seed: int = 0, trust: bool = False) -> Base:
        """Build the model and load its weights."""
        from torchvision import models

        self.check()
        weights = self._weights()
        known = weights or _default(self.name)
        with seeded(seed):
            module = (
                online(lambda: models.get_model(self.name, weights=weights), str(self))
                if weights
                else _random(self.name)
            )
        preprocess = _preprocess(known)
        size = (3, *preprocess.size) if preprocess else None
        return Base(module, str(self), size, preprocess)

    def _weights(self) -> Any:
        from torchvision import models

        if self.tag.lower() == "none":
            return None
        table = models.get_model_weights(self.name)
        if not self.tag:
            return _default(self.name)
        if self.tag not in table.__members__:
            known = [*table.__members__, "none"]
            raise SourceError(
                f"torchvision's {self.name} has no weights '{self.tag}'",
                where=str(self),
                hint=nearest(self.tag, known) or f"one of {', '.join(known)}",
            )
        return table[self.tag]


def _default(name: str) -> Any:
    from torchvision import models

    return getattr(models.get_model_weights(name), "DEFAULT", None)


def _random(name: str) -> nn.Module:
    import inspect

    from torchvision import models

    builder = models.get_model_builder(name)
    # Their own initialisation by scipy-like truncation takes half a minute; the default one is as random.
    slow = name in ("googlenet", "inception_v3") and "init_weights" not in inspect.signature(builder).parameters
    extra = {"init_weights": False} if slow else {}
    if "weights_backbone" in inspect.signature(builder).parameters:
        extra["weights_backbone"] = None  # type: ignore[assignment]
    module: nn.Module = builder(weights=None, **extra)
    return module


def _preprocess(weights: Any) -> Preprocess | None:
    transforms: Any = weights.transforms() if weights is not None else None
    if not hasattr(transforms, "crop_size"):
        return None
    crop = transforms.crop_size[0]
    return Preprocess(
        size=(crop, crop),
        resize=transforms.resize_size[0],
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
        interpolation=transforms.interpolation.value,
    )
