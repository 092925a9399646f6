"""Sources as other libraries write them: their own calls, read as data and never run."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

__all__ = ["modern", "stored"]

_VERSION = re.compile(r"v\d+|latest|best|[0-9a-f]{8,64}")


def stored(text: str) -> bool:
    """Tell whether a text without a scheme names a kept version: `runs@v3`, where runs is a folder of versions."""
    folder, at, version = text.rpartition("@")
    return bool(at) and _VERSION.fullmatch(version) is not None and (Path(folder) / "versions").is_dir()


def modern(text: str) -> str:
    """Give the source that a call of another library means; any other text as it is.

    `torchvision.models.resnet18(pretrained=True)`, `models.resnet18(weights="IMAGENET1K_V1")`,
    `timm.create_model("resnet18", pretrained=True)`, `torch.hub.load("pytorch/vision", "resnet18")`,
    `AutoModel.from_pretrained("bert-base-uncased")`.
    """
    try:
        read = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError):
        return text
    if isinstance(read, ast.Attribute):  # torchvision.models.resnet18
        home, name = _dotted(read).rpartition(".")[::2]
        return f"torchvision:{name}" if home in _TORCHVISION else text
    return (_of_call(read) or text) if isinstance(read, ast.Call) else text


_TORCHVISION = ("torchvision.models", "models", "tv.models", "torchvision")


def _of_call(call: ast.Call) -> str:
    home, name = _dotted(call.func).rpartition(".")[::2]
    named = {one.arg: _value(one.value) for one in call.keywords}
    placed = [_value(one) for one in call.args]
    if name == "create_model" and home in ("timm", ""):
        return _of_timm(_first(placed, named, "model_name"), named.get("pretrained", False), placed[1:])
    if name == "load" and home in ("torch.hub", "hub") and len(placed) > 1:
        given = {**named, "pretrained": placed[2]} if placed[2:] else named
        return _of_torchvision(str(placed[1]), given) if str(placed[0]).startswith("pytorch/vision") else ""
    if name == "from_pretrained" and home:
        return f"transformers:{_first(placed, named, 'pretrained_model_name_or_path')}#{home.rpartition('.')[2]}"
    if name in ("get_model", "create_model") and home in _TORCHVISION:
        return _of_torchvision(str(_first(placed, named, "name")), named)
    if home in ("", *_TORCHVISION) and len(placed) < 2:
        return _of_torchvision(name, {**named, "pretrained": placed[0]} if placed else named)
    return ""


def _of_torchvision(name: str, named: dict[str | None, Any]) -> str:
    """Write `pretrained=` and `weights=` as the part after `@`; what else is given can't be said there."""
    if set(named) - {"pretrained", "weights", "progress", "force_reload", "source"}:
        return ""
    weights = named["weights"] if "weights" in named else named.get("pretrained")
    if weights is None or weights is False:
        return f"torchvision:{name}@none"
    if weights is True:
        return f"torchvision:{name}@pretrained"
    return f"torchvision:{name}@{str(weights).rpartition('.')[2]}"


def _of_timm(name: Any, pretrained: Any, rest: list[Any]) -> str:
    trained = pretrained or (rest and rest[0] is True)
    return f"timm:{name}" if trained else f"timm:{name}@none"


def _first(placed: list[Any], named: dict[str | None, Any], name: str) -> Any:
    return placed[0] if placed else named.get(name, "")


def _value(node: ast.expr) -> Any:
    """Give a literal as its value, and a dotted name (`ResNet18_Weights.DEFAULT`) as its text."""
    try:
        return ast.literal_eval(node)
    except ValueError:
        return _dotted(node)


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}".lstrip(".")
    return node.id if isinstance(node, ast.Name) else ""
