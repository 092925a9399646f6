"""What models tell of themselves in plain attributes and configurations, and how that follows an edit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from torchgraft.edits.surgery import Surgery

__all__ = ["class_names", "configs", "follow_classes", "follow_task", "share_bias", "ties", "untie"]

_COUNTS = ("num_classes", "n_classes", "nb_classes", "num_labels")
"""Attributes by which models say how many classes they have."""

_PROBLEMS = {
    "classes": "single_label_classification",
    "labels": "multi_label_classification",
    "regression": "regression",
}
"""What transformers' models call the tasks, and choose their own loss by."""


def configs(model: nn.Module) -> list[Any]:
    """Give each configuration that modules of transformers hold, once."""
    found = (vars(module).get("config") for module in model.modules())
    return list({id(one): one for one in found if hasattr(one, "__dict__")}.values())


def class_names(model: nn.Module, count: int) -> list[str]:
    """Give the names of the old classes, where a configuration tells them."""
    for config in configs(model):
        names = vars(config).get("id2label")
        if isinstance(names, dict) and len(names) == count:
            return [str(names.get(number, number)) for number in range(count)]
    return []


def follow_classes(surgery: Surgery, before: int, now: int, kept: Mapping[int, int]) -> None:
    """Let attributes and configurations tell the new number of classes, or of words.

    A new class that keeps the weights of an old one keeps its name too.
    """
    for module in surgery.model.modules():
        for name in _COUNTS:
            if vars(module).get(name) == before:
                surgery.set(module, name, now)
    for config in configs(surgery.model):
        names = vars(config).get("id2label")
        if isinstance(names, dict) and len(names) == before:
            words = [names[kept[n]] if n in kept else f"LABEL_{n}" for n in range(now)]
            surgery.set(config, "id2label", dict(enumerate(words)))
            surgery.set(config, "label2id", {word: number for number, word in enumerate(words)})
        if vars(config).get("vocab_size") == before:
            surgery.set(config, "vocab_size", now)


def follow_task(surgery: Surgery, task: str) -> None:
    """Let the configuration of transformers' classifiers name the task, which their own loss goes by."""
    for config in configs(surgery.model):
        told = vars(config).get("problem_type")
        if "problem_type" in vars(config) and told != _PROBLEMS[task] and (told or task != "classes"):
            surgery.set(config, "problem_type", _PROBLEMS[task])


def ties(surgery: Surgery, paths: Sequence[str]) -> tuple[str, ...]:
    """Name the parameters elsewhere that output layers share, such as a table of words."""
    gone = {id(p) for path in paths if path for p in surgery.module(path).parameters() if p.dim() > 1}
    named = surgery.model.named_parameters(remove_duplicate=False)
    return tuple(name for name, p in named if id(p) in gone and not name.startswith(tuple(f"{p}." for p in paths)))


def share_bias(surgery: Surgery, old: nn.Module, new: nn.Module) -> None:
    """Let whoever held the old output layer's bias too, such as BERT's head of words, hold the new one's."""
    from torch import nn

    last = new[-1] if isinstance(new, nn.Sequential) else new
    was, now = (getattr(one, "bias", None) for one in (old, last))
    for module in surgery.model.modules() if isinstance(was, nn.Parameter) else ():
        for name in [name for name, one in module._parameters.items() if one is was]:
            surgery.hold(module, name, now)


def untie(surgery: Surgery) -> None:
    """Let configurations say that the table of words is not shared any more, so that nothing ties it again."""
    for config in configs(surgery.model):
        if vars(config).get("tie_word_embeddings"):
            surgery.set(config, "tie_word_embeddings", False)
    for module in surgery.model.modules():
        if vars(module).get("all_tied_weights_keys"):
            surgery.set(module, "all_tied_weights_keys", {})
