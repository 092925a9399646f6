"""What a user sets himself, by its path in the recipe: `train.batch=16`, `head.hidden=[512]`, `seed=3`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from torchgraft.edits.base import kinds
from torchgraft.errors import RecipeError, nearest
from torchgraft.fault import in_setting
from torchgraft.preprocess import Preprocess
from torchgraft.recipe import Recipe, TrainPlan
from torchgraft.schema import Schema
from torchgraft.tokens import Tokens

__all__ = ["COMMAND_LINE", "check_settings", "settings_of", "taken"]

COMMAND_LINE = "--set {}=…"
"""How a path is named where it was set on the command line."""

_WHOLE = {
    "input": "set the shape of the base's input as a whole: input=[3, 64, 64]",
    "train.optimizer": "set it as a whole: train.optimizer={sgd: {lr: 0.001}}",
    "train.groups": "set them as a whole: train.groups=[{at: head, lr: 0.01}]",
}


def settings_of(texts: Iterable[str]) -> dict[str, Any]:
    """Read `path=value` texts; a value is YAML, or else plain text.

    Raises:
        RecipeError: a text has no `=`.
    """
    settings: dict[str, Any] = {}
    for text in texts:
        path, equals, value = text.partition("=")
        if not equals:
            raise RecipeError(f"'{text}' sets nothing", where=f"--set {text}", hint="write path=value")
        settings[path.strip()] = Recipe.value(value)
    return settings


def check_settings(given: Mapping[str, Any], *, where: str = "{}") -> None:
    """Refuse a path that can't be set, and a value that its place does not take.

    Args:
        given: values by path.
        where: how a path is named in an error, such as `--set {}=…`.

    Raises:
        RecipeError: says which, and what is near.
    """
    known = _paths()
    for path, value in given.items():
        if path not in known:
            raise _unknown(path, list(known), where.format(path))
        field = known[path]
        try:
            _adapter(field).validate_python(value)
        except ValidationError as error:
            raise in_setting(error, Recipe, path, where.format(path)) from None


def _adapter(field: FieldInfo) -> TypeAdapter[Any]:
    kind: Any = Annotated[field.annotation, field]
    return TypeAdapter(kind)


def taken(given: dict[str, Any], group: str) -> dict[str, Any]:
    """Take the settings of a group out, without its name: `train.batch` as `batch`."""
    return {path.partition(".")[2]: given.pop(path) for path in list(given) if path.startswith(f"{group}.")}


def _paths() -> dict[str, FieldInfo]:
    """Give every path that can be set."""
    groups: dict[str, type[Schema]] = {
        "head": kinds()["head"],
        "freeze": kinds()["freeze"],
        "train": TrainPlan,
        "preprocess": Preprocess,
        "preprocess.tokens": Tokens,
    }
    paths = {name: Recipe.model_fields[name] for name in ("seed", "input")}
    for group, owner in groups.items():
        paths |= {f"{group}.{name}": field for name, field in owner.model_fields.items()}
    del paths["train.data"], paths["preprocess.tokens.digest"]
    return paths


def _unknown(path: str, known: list[str], where: str) -> RecipeError:
    return RecipeError(f"there is no setting '{path}'", where=where, hint=_hint(path, known))


def _hint(path: str, known: list[str]) -> str:
    if path in ("data", "train.data"):
        return "the data are named by --data"
    whole = next((one for one in known if path.startswith(f"{one}.")), None)
    if whole is not None:
        return _WHOLE.get(whole, f"set {whole} as a whole")
    group, _, leaf = path.partition(".")
    if group in kinds() and not any(one.startswith(f"{group}.") for one in known):
        return (
            "head and freeze are the edits that can be set; write others into a recipe, such as --dry-run writes"
        )
    members = [one for one in known if one.startswith(f"{group}.")]
    if members and not leaf:
        return f"set one of {', '.join(members)}"
    return _near(path, known) or f"one of {', '.join(members or known)}"


def _near(path: str, known: list[str]) -> str:
    """Say which paths are meant: those of the same last word, or else those nearest to it."""
    leaf = path.rpartition(".")[2]
    same = [one for one in known if one.rpartition(".")[2] == leaf]
    if same:
        return f"did you mean {' or '.join(same)}?"
    if "." in path:
        return nearest(path, known)
    leaves = {one.rpartition(".")[2]: one for one in known}
    near = nearest(path, leaves, count=1).removeprefix("did you mean ").removesuffix("?")
    return f"did you mean {leaves[near]}?" if near in leaves else ""
