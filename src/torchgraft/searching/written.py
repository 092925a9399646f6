"""Numbers of the training plan, written into a recipe file whose order and comments stay as they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import yaml

from torchgraft import yamlfile
from torchgraft.errors import RecipeError, StoreError
from torchgraft.recipe import Recipe
from torchgraft.trainplan import TrainPlan

__all__ = ["with_batch", "with_rate", "write_over"]


def with_batch(text: str, batch: int) -> str:
    """Give the text of a recipe with another `train.batch`.

    Raises:
        RecipeError: it can't be found where it stands.
    """
    before = Recipe.from_yaml(text)
    new = _set(text, _train(text), "batch", str(batch))
    return _checked(new, before, {"batch": batch})


def with_rate(text: str, factor: float) -> str:
    """Give the text of a recipe with every learning rate of its plan times a factor, to two digits.

    Raises:
        RecipeError: they can't be found where they stand.
    """
    before = Recipe.from_yaml(text)
    assert before.train is not None
    plan = scaled(before.train, factor)
    names = ("optimizer", "groups", "unfreeze")
    update = {name: getattr(plan, name) for name in names}
    new = text
    try:
        for part in ("groups", "unfreeze"):
            new = _each(new, part, factor)
        new = _optimizer(new, plan)
    except RecipeError:  # such as an alias whose anchor stood where a number was replaced
        raise _unplaced(update) from None
    return _checked(new, before, update)


def scaled(plan: TrainPlan, factor: float) -> TrainPlan:
    """Give a plan with every learning rate times a factor, to two digits."""

    def rate(value: float | None) -> float | None:
        return None if value is None else _rounded(value * factor)

    settings = {**plan.optimizer.settings, "lr": _rounded(plan.optimizer.lr * factor)}
    return plan.model_copy(
        update={
            "optimizer": plan.optimizer.model_copy(update={"settings": settings}),
            "groups": tuple(one.model_copy(update={"lr": rate(one.lr)}) for one in plan.groups),
            "unfreeze": tuple(one.model_copy(update={"lr": rate(one.lr)}) for one in plan.unfreeze),
        }
    )


def write_over(path: Path, text: str) -> None:
    """Put a new text in the place of a recipe file, whole or not at all.

    Raises:
        StoreError: it can't be written there.
    """
    beside = path.with_name(f".{path.name}.new")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise StoreError(
            f"the recipe can't be written: {error.strerror}", where=str(path), hint="choose a folder of your own"
        ) from error


def _rounded(value: float) -> float:
    return float(f"{value:.1e}")


def number(value: float) -> str:
    """Write a rate as a recipe has it."""
    return yamlfile.dump(value).split("\n")[0]


# places in the text


def _root(text: str) -> yaml.MappingNode:
    node = yamlfile.read(text, "recipe.yaml").node
    assert isinstance(node, yaml.MappingNode)  # a recipe was read from it before
    return node


def _entry(node: yaml.Node | None, *path: str) -> yaml.Node | None:
    """Give the value at a path of keys."""
    for name in path:
        if not isinstance(node, yaml.MappingNode):
            return None
        node = next((value for key, value in node.value if key.value == name), None)
    return node


def _train(text: str) -> yaml.MappingNode:
    node = _entry(_root(text), "train")
    if not isinstance(node, yaml.MappingNode):
        raise RecipeError("the recipe does not say how to train", where="train", hint="train: {data: folder:…}")
    return node


def _set(text: str, home: yaml.MappingNode, name: str, value: str) -> str:
    """Put a value in the place of that which stands there, or add an entry."""
    known = _entry(home, name)
    if known is not None:
        return _replaced(text, known, value)
    at = home.value[0][0].start_mark
    if home.flow_style:
        return f"{text[: at.index]}{name}: {value}, {text[at.index :]}"
    return f"{text[: at.index]}{name}: {value}\n{' ' * at.column}{text[at.index :]}"


def _replaced(text: str, node: yaml.Node, value: str) -> str:
    """Put a value in the place of a node; a block, whose end is where the next begins, keeps the line after it."""
    start, end = node.start_mark.index, node.end_mark.index
    old = text[start:end]
    tail = old[len(old.rstrip()) :]
    return f"{text[:start]}{value}{tail}{text[end:]}"


def _optimizer(text: str, plan: TrainPlan) -> str:
    """Set the optimizer's own rate, however it is written."""
    name, rate = plan.optimizer.name, number(plan.optimizer.lr)
    train = _train(text)
    node = _entry(train, "optimizer")
    if isinstance(node, yaml.MappingNode):
        own = _entry(node, "settings") if _entry(node, "name") is not None else node.value[0][1]
        if isinstance(own, yaml.MappingNode) and own.value:
            return _set(text, own, "lr", rate)
    return _set(text, train, "optimizer", f"{{{name}: {{lr: {rate}}}}}")


def _each(text: str, part: str, factor: float) -> str:
    """Scale the rates of a list; from the last to the first, so that places before stay where they are."""
    places = {node.start_mark.index: node for node in _rates(_entry(_train(text), part))}
    for _, node in sorted(places.items(), reverse=True):
        text = _replaced(text, node, number(_rounded(float(node.value) * factor)))
    return text


def _rates(node: yaml.Node | None) -> Iterator[yaml.ScalarNode]:
    items = node.value if isinstance(node, yaml.SequenceNode) else [node]
    for item in items:
        rate = _entry(item, "lr")
        if isinstance(rate, yaml.ScalarNode) and rate.value not in ("", "null", "~"):
            yield rate


def _checked(text: str, before: Recipe, update: Mapping[str, object]) -> str:
    """Read the new text again: it must say what was meant, and nothing else may be another."""
    assert before.train is not None
    meant = before.model_copy(update={"train": before.train.model_copy(update=dict(update))})
    if Recipe.from_yaml(text) != meant:
        raise _unplaced(update)
    return text


def _unplaced(update: Mapping[str, object]) -> RecipeError:
    return RecipeError(
        "the numbers can't be put into the recipe as it is written",
        where="train",
        hint="write them by hand: " + ", ".join(f"train.{name}" for name in update),
    )
