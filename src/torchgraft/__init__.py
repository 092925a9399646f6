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
    from torchgraft.graft import Graft as Graft
    from torchgraft.keep import open_version as open
    from torchgraft.loading import load as load
    from torchgraft.modulespec import ModuleSpec as ModuleSpec
    from torchgraft.recipe import Recipe as Recipe

__version__ = "0.1.0"

# Imported when first asked for: the command line starts without torch.
_HOMES = {
    "Graft": "torchgraft.graft",
    "ModuleSpec": "torchgraft.modulespec",
    "Recipe": "torchgraft.recipe",
    "check": "torchgraft.checking",
    "load": "torchgraft.loading",
    "open": "torchgraft.keep",
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
    "load",
    "open",
    "testing",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), _NAMES.get(name, name))
    if name in _PACKAGES:
        return importlib.import_module(f"torchgraft.{name}")
    raise AttributeError(f"module 'torchgraft' has no attribute '{name}'")
