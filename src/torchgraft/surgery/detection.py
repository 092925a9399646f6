"""The class layers of torchvision's detection models: as wide as the classes times something of their own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

__all__ = ["ClassLayer", "class_layers"]


@dataclass(frozen=True)
class ClassLayer:
    """A layer whose width follows the classes.

    Attributes:
        path: of the layer.
        classes: how many there were, the background included.
        times: outputs for each class: anchors, or the four sides of a box.
        holder: the module that tells the number of classes in an attribute of its own, if one does.
        told: the name of that attribute.
    """

    path: str
    classes: int
    times: int
    holder: nn.Module | None = None
    told: str = ""


_PREDICTORS = {"FastRCNNPredictor": ("cls_score", "bbox_pred"), "MaskRCNNPredictor": ("mask_fcn_logits",)}
_COUNTED = {
    "RetinaNetClassificationHead": "num_classes",
    "FCOSClassificationHead": "num_classes",
    "SSDClassificationHead": "num_columns",
    "SSDLiteClassificationHead": "num_columns",
}
"""Heads that hold the number of classes, and under which name."""

_KINDS = frozenset((*_PREDICTORS, *_COUNTED))


def class_layers(model: nn.Module, modules: Iterable[nn.Module]) -> list[ClassLayer]:
    """Give every class layer of a detection model of torchvision, all of whose modules are given, else none."""
    found: list[ClassLayer] = []
    held = {cls.__name__ for kind in {type(module) for module in modules} for cls in kind.__mro__}
    if held.isdisjoint(_KINDS):
        return found
    for path, module in model.named_modules():
        kinds = [cls.__name__ for cls in type(module).__mro__]
        predictor = next((_PREDICTORS[kind] for kind in kinds if kind in _PREDICTORS), None)
        told = next((_COUNTED[kind] for kind in kinds if kind in _COUNTED), None)
        if predictor is not None:
            found += _predicting(path, module, predictor)
        elif told is not None:
            found += _counted(path, module, told)
    return found


def _predicting(path: str, module: nn.Module, names: tuple[str, ...]) -> Iterator[ClassLayer]:
    first: Any = module.get_submodule(names[0])
    classes = _width(first)
    for name in names:
        yield ClassLayer(f"{path}.{name}", classes, _width(module.get_submodule(name)) // classes)


def _counted(path: str, module: Any, told: str) -> Iterator[ClassLayer]:
    classes = int(getattr(module, told))
    if hasattr(module, "cls_logits"):
        yield ClassLayer(f"{path}.cls_logits", classes, _width(module.cls_logits) // classes, module, told)
        return
    for number, layer in enumerate(module.module_list):
        last = [name for name, part in layer.named_modules() if hasattr(part, "out_channels")][-1]
        where = f"{path}.module_list.{number}.{last}".rstrip(".")
        yield ClassLayer(where, classes, _width(layer.get_submodule(last)) // classes, module, told)


def _width(layer: Any) -> int:
    return int(getattr(layer, "out_features", 0) or layer.out_channels)
