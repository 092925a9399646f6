"""YAML as recipes are written in it: the numbers and booleans of YAML 1.2, each key once, places known by line."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import yaml

from torchgraft.errors import RecipeError

__all__ = ["Document", "dump", "read", "value"]

DEPTH = 64
"""So deep a document may be nested; a recipe takes about ten."""


@dataclass(frozen=True)
class Document:
    """A document as plain data, and the nodes that know its lines."""

    data: Any
    node: yaml.Node | None
    name: str


def read(text: str, name: str) -> Document:
    """Read a document.

    Raises:
        RecipeError: it is not YAML, a key stands twice, a value is none; says the line.
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        return Document(None if node is None else loader.construct_document(node), node, name)
    except _Refused as error:
        raise RecipeError(str(error.problem), where=f"{name}:{_line(error, text)}", hint=error.hint) from None
    except yaml.YAMLError as error:
        raise RecipeError(
            f"this is not YAML: {_problem(error)}",
            where=f"{name}:{_line(error, text)}",
            hint="correct the line, or the one before",
        ) from None


def value(text: str) -> Any:
    """Read one value; what is not YAML is taken as the plain text."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError:
        return text


def dump(data: Any) -> str:
    """Write plain data, in the order that it has."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


# reading


class _Refused(yaml.MarkedYAMLError):
    """What is YAML, and yet no good here."""

    def __init__(self, problem: str, mark: yaml.Mark, hint: str) -> None:
        super().__init__(problem=problem, problem_mark=mark)
        self.hint = hint


def _problem(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.reader.ReaderError):
        return f"the character U+{error.character:04X} is not allowed"
    return getattr(error, "problem", None) or str(error)


def _line(error: yaml.YAMLError, text: str) -> int:
    if isinstance(error, yaml.reader.ReaderError):
        return text.count("\n", 0, error.position) + 1
    mark = getattr(error, "problem_mark", None)
    return mark.line + 1 if mark else 1


class _Loader(yaml.SafeLoader):
    """YAML 1.2's numbers and booleans: `1e-3` is a number, `on` and `no` are words."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Compose a node, unless it lies too deep to be meant."""
        if self.depth >= DEPTH:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise _Refused(f"this is nested more than {DEPTH} deep", mark, "close the brackets that are open")
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Compose a mapping whose keys stand once each."""
        node = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if (key.tag, key.value) in lines:
                first = lines[key.tag, key.value]
                hint = f"keep one of the two; the first is in line {first}"
                raise _Refused(f"the key '{key.value}' stands twice", key.start_mark, hint)
            lines[key.tag, key.value] = key.start_mark.line + 1
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Construct a value; a tag that its text does not bear is told with its line."""
        try:
            return super().construct_object(node, deep=deep)
        except (ValueError, LookupError, AttributeError, TypeError) as error:
            text = str(getattr(node, "value", ""))
            shown = text if len(text) < 40 else f"{text[:20]}… ({len(text)} characters)"
            kind = node.tag.rpartition(":")[2]
            raise _Refused(
                f"'{shown}' can't be read as {kind}", node.start_mark, "quote it if it is text"
            ) from error


def _resolvers() -> dict[str, list[tuple[str, Any]]]:
    kept = {"tag:yaml.org,2002:null", "tag:yaml.org,2002:merge"}
    table = {
        first: [(tag, pattern) for tag, pattern in pairs if tag in kept]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    number = re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$|^[-+]?\.(inf|Inf)$|^\.(nan|NaN)$")
    for first in "-+0123456789":
        table.setdefault(first, []).append(("tag:yaml.org,2002:int", re.compile(r"^[-+]?[0-9]+$")))
    for first in "-+.0123456789":
        table.setdefault(first, []).append(("tag:yaml.org,2002:float", number))
    for first in "tTfF":
        table.setdefault(first, []).append(("tag:yaml.org,2002:bool", re.compile(r"^(true|True|false|False)$")))
    return table


_Loader.yaml_implicit_resolvers = _resolvers()


def _integer(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    return int(loader.construct_scalar(node))  # in base ten, whatever it begins with


_Loader.add_constructor("tag:yaml.org,2002:int", _integer)


# writing


class _Dumper(yaml.SafeDumper):
    """Block style outside, flow style for lists of plain values and small mappings within an edit."""


def _sequence(dumper: yaml.SafeDumper, items: list[Any]) -> yaml.Node:
    plain = all(not isinstance(item, (dict, list)) for item in items)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=plain)


def _mapping(dumper: yaml.SafeDumper, items: dict[str, Any]) -> yaml.Node:
    plain = all(not isinstance(item, dict) for item in items.values()) and len(items) > 0
    short = plain and len(str(items)) < 80 and not any(isinstance(i, list) and len(i) > 6 for i in items.values())
    return dumper.represent_mapping("tag:yaml.org,2002:map", items, flow_style=bool(short))


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    odd = any(character in "\x85\u2028\u2029\ufeff" for character in text)  # PyYAML reads these as line ends
    rules = _Loader.yaml_implicit_resolvers.get(text[:1], ())
    other = any(pattern.match(text) for _, pattern in rules)  # such as `0E0`, which is text in YAML 1.1
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"' if odd else "'" if other else None)


_Dumper.add_representer(str, _text)
_Dumper.add_representer(list, _sequence)
_Dumper.add_representer(dict, _mapping)
