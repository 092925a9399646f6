"""The first fault of a recipe or of a setting: what is wrong, in which line, and what to write instead."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args

import yaml
from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from torchgraft.blocks.base import Block
from torchgraft.edits.base import Edit, kinds
from torchgraft.errors import RecipeError, nearest
from torchgraft.modulespec import ModuleSpec
from torchgraft.schema import Schema
from torchgraft.wording import needed, shown
from torchgraft.yamlfile import Document

__all__ = ["UNTOLD", "in_document", "in_setting"]

Loc = tuple[str | int, ...]

UNTOLD = "correct that line"
"""What to do, where no more is known than the place."""

_TIPS = {
    "seed": "seed is a whole number from 0 to 4294967295",
    "input": "input is a list of positive sizes, such as [3, 64, 64]",
}
"""What to do, by the first word of the path, where that can be said better than by the type."""


@dataclass(frozen=True)
class _Place:
    """Where a fault lies: its path as one writes it, its line, the kinds stepped over, and the keys beside it."""

    path: str
    line: int = 1
    kinds: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()


_TAGS = (("preprocess", "images"), ("preprocess", "texts"))
"""Places that pydantic tells with the kind of what stands there, which nobody writes."""


def in_document(error: ValidationError, root: type[Schema], document: Document) -> RecipeError:
    """Tell the first fault of a document, with its line."""
    first = _first(error)
    loc = _written_as(first["loc"])
    place = _walk(document.node, loc)
    what, do = _told(first, loc, root, place)
    return RecipeError(what, where=f"{document.name}:{place.line}", hint=do or UNTOLD)


def in_setting(error: ValidationError, root: type[Schema], path: str, where: str) -> RecipeError:
    """Tell the first fault of a value that is set by its path in the recipe."""
    first = _first(error)
    loc = (*path.split("."), *(part for part in first["loc"] if part not in ("settings",)))
    what, do = _told(first, loc, root, _Place(".".join(map(str, loc))))
    return RecipeError(what, where=where, hint=do or f"write another value for {path}")


def _written_as(loc: Loc) -> Loc:
    """Give a place as it is written in a recipe."""
    return (loc[0], *loc[2:]) if loc[:2] in _TAGS else loc


def _first(error: ValidationError) -> ErrorDetails:
    # A misspelt key is the cause of the key that is missing beside it.
    return min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")


def _told(error: ErrorDetails, loc: Loc, root: type[Schema], place: _Place) -> tuple[str, str]:
    """Say what is wrong and what to do."""
    owner = _owner(root, loc[:-1], place.kinds)
    if owner is ModuleSpec and error["type"] in ("extra_forbidden", "missing"):
        return _no_module(place)
    if error["type"] == "extra_forbidden":
        known = list(_fields(owner)) if owner else []
        return f"there is no key '{loc[-1]}'", nearest(str(loc[-1]), known) or f"one of {', '.join(known)}"
    if error["type"] == "missing" and isinstance(loc[-1], int):
        return f"{place.path.rpartition('.')[0]}: the list is too short", "write [a, b]"
    if error["type"] == "missing":
        return f"'{loc[-1]}' is missing", f"add {place.path}: …"
    what, do = needed(error)
    if error["type"] in ("model_type", "dict_type"):
        do = _written(_owner(root, loc, place.kinds)) or do
    given = "" if "'" in what or "not of" in what else shown(error.get("input"))
    return f"{place.path or 'the recipe'}: {what}{given}", _TIPS.get(str(loc[0]) if loc else "", do)


def _written(owner: type[Schema] | None) -> str:
    """Say how a mapping of this class is written."""
    if owner is None:
        return ""
    known = {
        "Edit": "write head: {classes: 10}",
        "ModuleSpec": "write {nn.ReLU: {}}",
        "Optimizer": "write sgd: {lr: 0.001}",
    }
    return known.get(owner.__name__) or f"its keys are {', '.join(_fields(owner))}"


def _no_module(place: _Place) -> tuple[str, str]:
    """Say how a module is written, where its keys are none of a description's."""
    if len(place.beside) > 1 and "of" not in place.beside:
        return (
            f"a module is one key; there are {len(place.beside)} here: {', '.join(place.beside)}",
            f"write a list for several: [{', '.join(f'{{{key}: {{}}}}' for key in place.beside[:2])}]",
        )
    return "a module is one key with its arguments", "write {nn.ReLU: {}}"


# where


def _walk(node: Any, loc: Loc) -> _Place:
    """Follow the place of a fault through the YAML nodes, as deep as they go.

    A key that names a kind (of edit, module, optimizer) stands in the YAML, but not in the place: it is stepped
    over.
    """
    line, path, stepped, beside = 1, list[str](), list[str](), _keys(node)
    for number, part in enumerate(loc):
        keys = _keys(node)
        is_edit = loc[0] == "edits" and number == 2
        if (is_edit or part not in keys) and len(keys) == 1:
            ((kind, (line, node)),) = keys.items()
            stepped.append(kind)
            keys = _keys(node)
        beside, found = keys, True
        if part in keys:
            line, node = keys[str(part)]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            found = False
        if found or part not in ("settings", "items", "args"):  # names that only the schema knows
            path.append(str(part))
    return _Place(".".join(path), line, tuple(stepped), tuple(beside))


def _keys(node: Any) -> dict[str, tuple[int, Any]]:
    """Give the line and the value of each key of a YAML mapping."""
    if not isinstance(node, yaml.MappingNode):
        return {}
    return {str(key.value): (key.start_mark.line + 1, value) for key, value in node.value}


# whose


def _owner(root: type[Schema], loc: Loc, stepped: tuple[str, ...]) -> type[Schema] | None:
    """Find the class whose fields are known at a place; ModuleSpec where that is a module."""
    owner: type[Schema] | None = root
    for part, after in zip(loc, (*loc, None)[1:], strict=True):
        if isinstance(part, int) or owner is None or owner is ModuleSpec:
            continue
        if owner is Edit:
            owner = kinds().get(stepped[0]) if stepped else None
        fields = _fields(owner) if owner else {}
        owner = _schema_in(fields[part].annotation, after) if part in fields else None
    if owner is Edit and stepped:
        return kinds().get(stepped[0])
    if owner is ModuleSpec and stepped and stepped[-1].startswith("block."):
        return Block.registry.get(stepped[-1].removeprefix("block."), ModuleSpec)
    return owner


def _fields(owner: type[Schema]) -> dict[str, FieldInfo]:
    """Give the fields of a class by the names that a recipe has for them."""
    return {field.alias or name: field for name, field in owner.model_fields.items()}


def _schema_in(annotation: Any, key: str | int | None = None) -> type[Schema] | None:
    """Find the schema within an annotation such as `tuple[Group, ...]`; of several, the one that has a key."""
    found = list(_schemas_in(annotation))
    return next((one for one in found if key in _fields(one)), found[0] if found else None)


def _schemas_in(annotation: Any) -> Iterator[type[Schema]]:
    if isinstance(annotation, type) and issubclass(annotation, Schema):
        yield annotation
        return
    for part in get_args(annotation):
        yield from _schemas_in(part)
