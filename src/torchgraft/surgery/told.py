"""What models tell of themselves in plain attributes and configurations, and how that follows an edit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torchgraft.surgery.journal import every

if TYPE_CHECKING:
    from torch import nn

    from torchgraft.surgery.journal import Surgery

__all__ = [
    "Told",
    "class_names",
    "configs",
    "follow_classes",
    "follow_task",
    "name_classes",
    "share_bias",
    "ties",
    "untie",
]

_COUNTS = ("num_classes", "n_classes", "nb_classes", "num_labels")
"""Attributes by which models say how many classes they have."""

_PROBLEMS = {
    "classes": "single_label_classification",
    "labels": "multi_label_classification",
    "regression": "regression",
}
"""What transformers' models call the tasks, and choose their own loss by."""


class Told:
    """The modules of a model as it was before an edit, walked once, and what they hold that tells of the whole.

    Attributes:
        modules: each once.
        configs: each configuration that modules of transformers hold, once.
    """

    def __init__(self, model: nn.Module) -> None:
        self.modules = every(model)
        found = (vars(module).get("config") for module in self.modules)
        self.configs = list({id(one): one for one in found if hasattr(one, "__dict__")}.values())


def configs(model: nn.Module) -> list[Any]:
    """Give each configuration that modules of transformers hold, once."""
    return Told(model).configs


def class_names(told: Told, count: int) -> list[str]:
    """Give the names of the old classes, where a configuration tells them."""
    for config in told.configs:
        names = vars(config).get("id2label")
        if isinstance(names, dict) and len(names) == count:
            return [str(names.get(number, number)) for number in range(count)]
    return []


def follow_classes(
    surgery: Surgery, before: int, now: int, kept: Mapping[int, int], *, told: Told | None = None
) -> None:
    """Let attributes and configurations tell the new number of classes, or of words.

    A new class that keeps the weights of an old one keeps its name too.
    """
    told = told or Told(surgery.model)
    for module in told.modules:
        own = vars(module)
        for name in () if own.keys().isdisjoint(_COUNTS) else _COUNTS:
            if own.get(name) == before:
                surgery.set(module, name, now)
    for config in told.configs:
        names = vars(config).get("id2label")
        if isinstance(names, dict) and len(names) == before:
            words = [names[kept[n]] if n in kept else f"LABEL_{n}" for n in range(now)]
            _call(surgery, config, words)
        if vars(config).get("vocab_size") == before:
            surgery.set(config, "vocab_size", now)


def name_classes(surgery: Surgery, told: Told, names: Sequence[str], count: int) -> None:
    """Let configurations that name `count` classes call the first ones so."""
    for config in told.configs:
        held = vars(config).get("id2label")
        if names and isinstance(held, dict) and len(held) == count:
            _call(surgery, config, [*names, *(held[number] for number in range(len(names), count))])


def _call(surgery: Surgery, config: Any, words: Sequence[str]) -> None:
    surgery.set(config, "id2label", dict(enumerate(words)))
    surgery.set(config, "label2id", {word: number for number, word in enumerate(words)})


def follow_task(surgery: Surgery, told: Told, task: str) -> None:
    """Let the configuration of transformers' classifiers name the task, which their own loss goes by."""
    for config in told.configs:
        known = vars(config).get("problem_type")
        if "problem_type" in vars(config) and known != _PROBLEMS[task] and (known or task != "classes"):
            surgery.set(config, "problem_type", _PROBLEMS[task])


def ties(surgery: Surgery, told: Told, paths: Sequence[str]) -> tuple[str, ...]:
    """Name the parameters elsewhere that output layers share, such as a table of words."""
    gone = {id(p) for path in paths if path for p in surgery.module(path).parameters() if p.dim() > 1}
    held = sum(id(one) in gone for module in told.modules for one in module._parameters.values())
    if held == len(gone):
        return ()
    named = surgery.model.named_parameters(remove_duplicate=False)
    return tuple(name for name, p in named if id(p) in gone and not name.startswith(tuple(f"{p}." for p in paths)))


def share_bias(surgery: Surgery, told: Told, old: nn.Module, new: nn.Module) -> None:
    """Let whoever held the old output layer's bias too, such as BERT's head of words, hold the new one's."""
    from torch import nn

    last = new[-1] if isinstance(new, nn.Sequential) else new
    was, now = (getattr(one, "bias", None) for one in (old, last))
    for module in told.modules if isinstance(was, nn.Parameter) else ():
        if module is old:
            continue
        for name in [name for name, one in module._parameters.items() if one is was]:
            surgery.hold(module, name, now)


def untie(surgery: Surgery, told: Told) -> None:
    """Let configurations say that the table of words is not shared any more, so that nothing ties it again."""
    for config in told.configs:
        if vars(config).get("tie_word_embeddings"):
            surgery.set(config, "tie_word_embeddings", False)
    for module in told.modules:
        if vars(module).get("all_tied_weights_keys"):
            surgery.set(module, "all_tied_weights_keys", {})
