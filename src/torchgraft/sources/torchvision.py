"""`torchvision:NAME[@WEIGHTS]`: the models of torchvision."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from torchgraft.errors import SourceError, TorchgraftWarning, nearest
from torchgraft.preprocess import Preprocess
from torchgraft.rng import drawn_from
from torchgraft.sources.base import Base, Offer, Source, online
from torchgraft.weights.hashes import misnamed
from torchgraft.weights.reading import read

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Torchvision"]

_FRAMES = 16
"""How many frames a video model is traced with: what most of torchvision's were trained on."""

_OLD = ("pretrained", "true", "false")
"""What `pretrained=` said, as it may still stand after the @."""


class Torchvision(Source):
    """A model of torchvision; the weights are the best there are unless `@` names others or `none`."""

    form: ClassVar[str] = "NAME[@WEIGHTS]"

    def check(self, *, trust: bool = False) -> None:
        """Look model and weights up in torchvision's registry."""
        self._model()
        self._weights()

    def load(self, *, seed: int = 0, trust: bool = False) -> Base:
        """Build the model and load its weights from torch's cache, where they are downloaded to."""
        from torchvision import models

        self.check()
        weights = self._weights()
        known = weights or _default(self.name)
        with drawn_from(seed):
            if weights:
                with _read_safely():
                    module = online(lambda: models.get_model(self.name, weights=weights), str(self))
            else:
                module = _random(self.name)
        preprocess = _preprocess(known)
        return Base(module, str(self), _size(known, preprocess), preprocess)

    def modern(self) -> Self:
        """Read `@pretrained` as torchvision's own builders read `pretrained=True`: the weights of that time."""
        if self.tag.lower() not in _OLD:
            return self
        self._model()
        meant = "none" if self.tag.lower() == "false" else _of_old(self.name, str(self))
        read_as = self.model_copy(update={"rest": f"{self.name}@{meant}"})
        best = getattr(_default(self.name), "name", meant)
        newer = f"; the best there are now: {self.name}@{best}" if meant not in ("none", best) else ""
        warnings.warn(f"pretrained= is no more: '{self}' means {read_as}{newer}", TorchgraftWarning, stacklevel=3)
        return read_as

    @classmethod
    def offers(cls) -> Sequence[Offer]:
        """List every model with its weights, and those that lie in torch's cache."""
        import torch
        from torchvision import models

        home = Path(torch.hub.get_dir()) / "checkpoints"
        here = {one.name for one in home.iterdir()} if home.is_dir() else set()
        return [
            Offer(
                name,
                tuple(dict.fromkeys([*_ordered(name)])),
                ", ".join(one.name for one in _table(name) if one.url.rpartition("/")[2] in here),
            )
            for name in models.list_models()
        ]

    def _model(self) -> None:
        from torchvision import models

        if self.name not in models.list_models():
            hint = nearest(self.name, models.list_models()) or "torchgraft sources 'torchvision:*' lists them"
            if "(" in self.name:
                hint = "write torchvision:NAME@WEIGHTS; sizes are changed by edits, such as head and input"
            raise SourceError(f"torchvision has no model '{self.name}'", where=str(self), hint=hint)

    def _weights(self) -> Any:
        if self.tag.lower() == "none":
            return None
        if not self.tag:
            return _default(self.name)
        known = {one.name: one for one in _table(self.name)}
        if self.tag == "DEFAULT" and known:
            return _default(self.name)
        if self.tag not in known:
            raise SourceError(
                f"torchvision's {self.name} has no weights '{self.tag}'",
                where=str(self),
                hint=nearest(self.tag, [*known, "none"]) or f"one of {', '.join([*known, 'none'])}",
            )
        return known[self.tag]


def _table(name: str) -> list[Any]:
    """Give the weights of a model: those of floating point where it is to be quantised, since codes do not fit."""
    from torchvision import models

    listed = list(models.get_model_weights(name))
    return [one.meta.get("unquantized", one) for one in listed]


def _default(name: str) -> Any:
    from torchvision import models

    found = getattr(models.get_model_weights(name), "DEFAULT", None)
    return found.meta.get("unquantized", found) if found is not None else None


def _ordered(name: str) -> Iterator[str]:
    """Give the names of a model's weights, the default first."""
    default = _default(name)
    yield from (one.name for one in sorted(_table(name), key=lambda one: one is not default))


class _AskedError(Exception):
    """Carries the weights that a builder asked for."""


def _of_old(name: str, where: str) -> str:
    """Name the weights that `pretrained=True` meant: torchvision's own builder tells, before it reads any."""
    from torchvision import models
    from torchvision.models import WeightsEnum

    from torchgraft.weights.skeleton import parameters_on_meta

    def ask(self: Any, *_: Any, **__: Any) -> Any:
        raise _AskedError(self.name)

    usual = WeightsEnum.get_state_dict
    WeightsEnum.get_state_dict = ask
    try:
        with warnings.catch_warnings(), parameters_on_meta():
            warnings.simplefilter("ignore")
            models.get_model(name, pretrained=True)
    except _AskedError as asked:
        return str(asked)
    except (ValueError, TypeError, RuntimeError):
        pass
    finally:
        WeightsEnum.get_state_dict = usual
    default = _default(name)
    if default is None:
        raise SourceError(
            f"torchvision has no weights for {name}", where=where, hint=f"{name}@none for random ones"
        )
    return str(default.name)


@contextmanager
def _read_safely() -> Iterator[None]:
    """Let torchvision's builders read their files by our reader: mapped, without code, held to the hash."""
    from torchvision.models import WeightsEnum

    usual = WeightsEnum.get_state_dict
    WeightsEnum.get_state_dict = lambda self, *_, **__: _state(self.url)
    try:
        yield
    finally:
        WeightsEnum.get_state_dict = usual


def _state(url: str) -> Any:
    """Give the state dict of a download, from torch's cache where it is there."""
    import torch

    name = url.rpartition("/")[2]
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    if not path.exists():
        promised = torch.hub.HASH_REGEX.search(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), promised[1] if promised else None, progress=False)
    elif wrong := misnamed(path):
        told = f"its name promises the sha256 {wrong[0]}…, it is {wrong[1]}…: a damaged or another file"
        warnings.warn(f"{path}: {told}; delete it to download it again", TorchgraftWarning, stacklevel=2)
    return read(path)


def _random(name: str) -> nn.Module:
    import inspect

    from torchvision import models

    builder = models.get_model_builder(name)
    # Their own initialisation by scipy-like truncation takes half a minute; the default one is as random.
    slow = name in ("googlenet", "inception_v3") and "init_weights" not in inspect.signature(builder).parameters
    extra: dict[str, Any] = {"init_weights": False} if slow else {}
    if "weights_backbone" in inspect.signature(builder).parameters:
        extra["weights_backbone"] = None
    module: nn.Module = builder(weights=None, **extra)
    return module


def _preprocess(weights: Any) -> Preprocess | None:
    """Read what the weights say of their images; detection models scale and normalise by themselves."""
    transforms: Any = weights.transforms() if weights is not None else None
    if not hasattr(transforms, "mean"):
        return None
    resize = getattr(transforms, "resize_size", None)
    crop = getattr(transforms, "crop_size", None) or resize
    if not crop:
        return None
    height, width = (crop[0], crop[-1])
    return Preprocess(
        size=(height, width),
        resize=resize[0] if resize else None,
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
        interpolation=transforms.interpolation.value,
    )


def _size(weights: Any, preprocess: Preprocess | None) -> tuple[int, ...] | None:
    """Give the shape of one input: of a video `[3, frames, H, W]`."""
    if preprocess is None:
        return None
    if type(weights.transforms()).__name__ != "VideoClassification":
        return (3, *preprocess.size)
    return (3, max(_FRAMES, weights.meta.get("min_temporal_size", 0)), *preprocess.size)
