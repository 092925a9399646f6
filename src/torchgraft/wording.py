"""What pydantic finds wrong with a value, in words that tell what is needed and what to write."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torchgraft.errors import RecipeError, nearest

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

__all__ = ["named", "needed", "refusal", "shown"]


def named(value: Any) -> str:
    """Say what a value is: `an int`, `a StepLR`, `the class SGD`."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    kind = type(value).__name__
    return f"{'an' if kind[0].lower() in 'aeiou' else 'a'} {kind}"


_WHOLE = ("a whole number is needed", "write a whole number, such as 3")
_NUMBER = ("a number is needed", "write a number, such as 0.1")
_TEXT = ("text is needed", "put it in quotes if it is text")
_FLAG = ("true or false is needed", "write true or false")
_LIST = ("a list is needed", "write [a, b]")
_MAPPING = ("a mapping is needed", "write {key: value}")

_WORDS = {
    "int_type": _WHOLE,
    "int_parsing": _WHOLE,
    "int_from_float": _WHOLE,
    "float_type": _NUMBER,
    "float_parsing": _NUMBER,
    "finite_number": _NUMBER,
    "string_type": _TEXT,
    "bool_type": _FLAG,
    "bool_parsing": _FLAG,
    "tuple_type": _LIST,
    "list_type": _LIST,
    "dict_type": _MAPPING,
    "model_type": _MAPPING,
    "model_attributes_type": _MAPPING,
    "invalid_key": ("a key must be text", "put the key in quotes"),
    "string_pattern_mismatch": ("a name without dots and blanks is needed", "write one word"),
    "recursion_loop": ("it contains itself", "write it out instead of the alias"),
}
_BOUNDS = {"ge": "{} or more", "gt": "more than {}", "le": "{} or less", "lt": "less than {}"}


def needed(error: ErrorDetails) -> tuple[str, str]:
    """Say what is needed, and what to write."""
    kind, context = error["type"], error.get("ctx", {})
    if kind == "literal_error":
        choices = str(context["expected"]).replace("'", "")
        return f"{choices} is needed", f"write {choices}"
    for bound, words in _BOUNDS.items():
        if bound in context:
            least = context[bound]
            limit = words.format(int(least) if least == int(least) else least)
            return f"a number of {limit} is needed", f"write {limit}"
    if kind in ("too_long", "too_short") and "actual_length" in context:
        length = context.get("max_length", context.get("min_length"))
        if context["actual_length"] == 0:
            return "the list is empty", "name one or more"
        return f"a list of {length} is needed, not of {context['actual_length']}", "write [a, b]"
    if kind in _WORDS:
        return _WORDS[kind]
    return str(error["msg"]).removeprefix("Value error, "), ""


def shown(value: Any) -> str:
    """Show what was given, where it is short enough to be told apart."""
    if not isinstance(value, (str, int, float, bool)):
        return ""
    huge = isinstance(value, int) and abs(value) >= 10**40  # Python writes no more than 4,300 digits
    text = f"a number of {int(value).bit_length()} bits" if huge else repr(value)
    return f", not {text if len(text) <= 60 else f'{text[:50]}…'}"


def refusal(error: ValidationError, kind: str, names: Sequence[str]) -> RecipeError:
    """Say what is wrong with the settings that somebody gave in Python.

    Args:
        error: what pydantic found.
        kind: of what, such as `head`.
        names: the settings that there are.
    """
    first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
    place = ".".join(str(part) for part in first["loc"])
    what, write = needed(first)
    if first["type"] == "extra_forbidden":
        what, write = f"there is no setting '{first['loc'][-1]}'", nearest(place, names)
    elif first["type"] == "missing":
        what, write = f"'{first['loc'][-1]}' is missing", ""
    else:
        what += shown(first["input"])
        if first["type"] in ("tuple_type", "list_type"):
            write = f"write [{first['input']}]" if shown(first["input"]) else write
    return RecipeError(
        f"{kind}: {what}",
        where=f"{kind}.{place}" if place else kind,
        hint=write or f"{kind} takes {', '.join(names)}",
    )
