"""`bundled:NAME[@none]`: the small base models that torchgraft brings along; they need no network."""

from __future__ import annotations

import importlib
from importlib import resources
from typing import TYPE_CHECKING, Any

import yaml

from torchgraft.errors import SourceError, nearest
from torchgraft.preprocess import Preprocess
from torchgraft.rng import drawn_from
from torchgraft.sources.base import Base, Offer, Source

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.resources.abc import Traversable

    from torch import nn

__all__ = ["Bundled"]

_HOME = "torchgraft.bundled"


class Bundled(Source):
    """A model of torchgraft's own with the weights that its recipe trained, or random ones for `@none`."""

    def load(self, *, seed: int = 0, trust: bool = False) -> Base:
        """Build the model, load its weights, and read input and preprocessing off the recipe beside it."""
        self.check()
        files = resources.files(_HOME)
        build = getattr(importlib.import_module(f"{_HOME}.{self.name}"), self.name)
        with drawn_from(seed):
            module: nn.Module = build()
        if not self.tag:
            self._fill(module, files / f"{self.name}.safetensors")
        recipe: dict[str, Any] = yaml.safe_load((files / f"{self.name}.yaml").read_text(encoding="utf-8"))
        preprocess = Preprocess.model_validate(recipe["preprocess"])
        return Base(module, str(self), tuple(recipe["input"]), preprocess)

    @classmethod
    def offers(cls) -> Sequence[Offer]:
        """List the recipes of the package."""
        return [Offer(name, ("trained",), "trained") for name in _known()]

    def check(self, *, trust: bool = False) -> None:
        """Look the name up among the recipes of the package."""
        known = _known()
        if self.name not in known:
            raise SourceError(
                f"torchgraft brings no model '{self.name}'",
                where=str(self),
                hint=nearest(self.name, known) or f"one of {', '.join(f'bundled:{one}' for one in known)}",
            )
        if self.tag not in ("", "none"):
            raise SourceError(
                f"bundled:{self.name} has no weights '{self.tag}'",
                where=str(self),
                hint=f"bundled:{self.name}, or bundled:{self.name}@none for random ones",
            )

    def _fill(self, module: nn.Module, weights: Traversable) -> None:
        from safetensors.torch import load

        if not weights.is_file():
            raise SourceError(
                f"the weights of bundled:{self.name} are not there",
                where=str(self),
                hint="make them by `make base`, or take random ones: …@none",
            )
        module.load_state_dict(load(weights.read_bytes()))


def _known() -> list[str]:
    files = resources.files(_HOME)
    return sorted(entry.name[:-5] for entry in files.iterdir() if entry.name.endswith(".yaml"))
