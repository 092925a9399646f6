"""torchgraft: take a trained PyTorch model, change it, know at once whether it still fits, train it, keep it.

import torchgraft as tg

g = tg.load("torchvision:resnet18")
g.head(10, hidden=[512], dropout=0.5)
g.freeze(all_but="head")
model = g.module                       # a plain nn.Module
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torchgraft import blocks as blocks
    from torchgraft import edits as edits
    from torchgraft import features as features
    from torchgraft import testing as testing
    from torchgraft.checking import check as check
    from torchgraft.freezing import freeze as freeze
    from torchgraft.freezing import unfreeze as unfreeze
    from torchgraft.graft import Graft as Graft
    from torchgraft.keep import open_version as open
    from torchgraft.loading import load as load
    from torchgraft.modulespec import ModuleSpec as ModuleSpec
    from torchgraft.params.still import still as still
    from torchgraft.params.still import train_mode as train_mode
    from torchgraft.recipe import Recipe as Recipe
    from torchgraft.watching import watch as watch

__version__ = "0.1.0"

# Imported when first asked for: the command line starts without torch.
_HOMES = {
    "Graft": "torchgraft.graft",
    "ModuleSpec": "torchgraft.modulespec",
    "Recipe": "torchgraft.recipe",
    "check": "torchgraft.checking",
    "freeze": "torchgraft.freezing",
    "load": "torchgraft.loading",
    "open": "torchgraft.keep",
    "still": "torchgraft.params.still",
    "train_mode": "torchgraft.params.still",
    "unfreeze": "torchgraft.freezing",
    "watch": "torchgraft.watching",
}
_NAMES = {"open": "open_version"}
_PACKAGES = ("blocks", "edits", "errors", "features", "testing")

__all__ = [
    "Graft",
    "ModuleSpec",
    "Recipe",
    "__version__",
    "blocks",
    "check",
    "edits",
    "features",
    "freeze",
    "load",
    "open",
    "still",
    "testing",
    "train_mode",
    "unfreeze",
    "watch",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), _NAMES.get(name, name))
    if name in _PACKAGES:
        return importlib.import_module(f"torchgraft.{name}")
    raise AttributeError(f"module 'torchgraft' has no attribute '{name}'")
