"""What outputs are judged by: the loss that was given, or the one that the targets ask for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

    from torchgraft.probes.batch import Batch

__all__ = ["AUXILIARY", "by_task", "entries_of", "forward", "judged", "loss_by", "main_of", "named_outputs"]


AUXILIARY = 0.3
"""The weight of the loss of an auxiliary head (Szegedy et al., 2015)."""


def by_task(task: str, scores: Tensor, targets: Tensor, *, smoothing: float = 0.0) -> Tensor:
    """Give the loss of one output: cross-entropy of `classes`, BCE of `labels`, mean squares of a `regression`.

    Args:
        task: what the output is for.
        scores: `[N, C, …]`.
        targets: class numbers `[N, …]`; a 0 or 1 for each label; or quantities, as many as there are outputs.
        smoothing: of the classes (Szegedy et al., 2016).
    """
    from torch.nn import functional as F

    if task == "labels":
        return F.binary_cross_entropy_with_logits(scores.float(), targets)
    if task == "regression":
        same = targets.numel() == scores.numel()
        return F.mse_loss(scores.float(), targets.reshape(scores.shape) if same else targets)
    return F.cross_entropy(scores.float(), targets, label_smoothing=smoothing)


def loss_by(tasks: Mapping[str, str], *, smoothing: float = 0.0) -> Callable[[Any, Any], Tensor]:
    """Give the loss of whole outputs by the tasks of a head: `loss(outputs, targets)`.

    Auxiliary outputs are added with their weight. Heads by name take a dict of targets by the same names.

    Args:
        tasks: by the name of the output; '' is the only one's.
        smoothing: of the classes.
    """

    def one(outputs: Any, targets: Any) -> Tensor:
        if "" in tasks:
            return by_task(tasks[""], outputs, targets, smoothing=smoothing)
        if not isinstance(targets, Mapping) or tasks.keys() - targets.keys():
            raise RuntimeError(f"the model gives a dict, so the targets are a dict too, with {', '.join(tasks)}")
        parts = [by_task(task, outputs[name], targets[name], smoothing=smoothing) for name, task in tasks.items()]
        return sum(parts[1:], parts[0])

    def loss(output: Any, targets: Any) -> Tensor:
        main, *others = (one(found, targets) for found in named_outputs(output, tasks))
        return main + AUXILIARY * sum(others[1:], others[0]) if others else main

    return loss


def named_outputs(output: Any, tasks: Mapping[str, str]) -> list[Any]:
    """Give the main output of whatever a model returns, then the auxiliary ones: tensors, or dicts by name.

    Raises:
        TypeError: there is none.
    """
    import torch

    def wanted(one: Any) -> bool:
        if "" in tasks:
            return isinstance(one, torch.Tensor)
        return isinstance(one, Mapping) and tasks.keys() <= one.keys()

    if wanted(output):
        return [output]
    held = output if isinstance(output, (Mapping, tuple, list)) else getattr(output, "__dict__", {})
    found = [one for one in (held.values() if isinstance(held, Mapping) else held) if wanted(one)]
    if not found:
        raise TypeError(f"the output, a {type(output).__name__}, holds no {', '.join(tasks) or 'tensor'}")
    return found


def forward(module: nn.Module, batch: Batch) -> Any:
    """Run a training pass; a detection model takes its targets along, as torchvision's do."""
    if _is_detection(batch.targets):
        return batch.run(module, batch.targets)
    return batch.run(module)


def _is_detection(targets: Any) -> bool:
    return isinstance(targets, (list, tuple)) and bool(targets) and all(isinstance(t, Mapping) for t in targets)


def judged(output: Any, batch: Batch, loss: Any = None) -> tuple[Any, bool]:
    """Give the loss, and whether it was taken of the main tensor since it refused the whole output."""
    import torch

    targets = batch.targets
    if loss is None:
        own = _own_loss(output)
        if own is not None:
            return own, False
        return _chosen(main_of(output), targets), not isinstance(output, torch.Tensor) and targets is not None
    try:
        return (loss(output) if targets is None else loss(output, targets)), False
    except (TypeError, AttributeError, ValueError):
        if isinstance(output, torch.Tensor):
            raise
        return loss(main_of(output), targets), True


def main_of(output: Any) -> Tensor:
    """Find the main scores of an output: `logits`, `out`, or the first tensor."""
    from torchgraft.trace.tree import tensors

    entries = output if isinstance(output, Mapping) else getattr(output, "__dict__", {})
    named = next((entries[name] for name in ("logits", "out") if name in entries), None)
    found = tensors(named if named is not None else output)
    if not found:
        raise TypeError(f"the output, a {type(output).__name__}, holds no tensor")
    return found[0]


def entries_of(output: Any) -> tuple[str, ...]:
    """Write how one reaches each tensor of an output, main scores first: `out["out"]`, `out.logits`, `out[0]`."""
    import torch

    named = getattr(output, "_fields", None) or tuple(getattr(output, "__dict__", ()))
    if isinstance(output, Mapping):
        found = {f'out["{name}"]': one for name, one in output.items()}
    elif isinstance(output, (tuple, list)) and not named:
        found = {f"out[{number}]": one for number, one in enumerate(output)}
    else:
        found = {f"out.{name}": getattr(output, name, None) for name in named}
    tensors = {name: one for name, one in found.items() if isinstance(one, torch.Tensor)}
    main = main_of(output) if tensors else None
    return tuple(sorted(tensors, key=lambda name: tensors[name] is not main))


def _own_loss(output: Any) -> Any:
    """Take the loss that a model gives itself: `loss` of a dict or an object, or a dict of losses alone."""
    import torch

    entries = output if isinstance(output, Mapping) else getattr(output, "__dict__", {})
    if isinstance(entries.get("loss"), torch.Tensor):
        return entries["loss"]
    scalars = [one for one in entries.values() if isinstance(one, torch.Tensor) and one.dim() == 0]
    return sum(scalars) if scalars and len(scalars) == len(entries) else None


def _chosen(scores: Tensor, targets: Any) -> Tensor:
    """Choose a loss by the targets: cross-entropy for classes, squares for numbers, and squares alone for none."""
    import torch
    from torch.nn import functional as F

    if not isinstance(targets, torch.Tensor):
        return scores.float().square().mean()
    columns = scores.shape[1] if scores.dim() > 1 else 1
    if columns > 1 and (not targets.is_floating_point() or _are_shares(scores, targets)):
        return F.cross_entropy(scores, targets)
    if _are_switches(targets) and targets.numel() == scores.numel():
        return F.binary_cross_entropy_with_logits(scores, targets.to(scores.dtype).reshape(scores.shape))
    if targets.numel() == scores.numel():
        return F.mse_loss(scores, targets.to(scores.dtype).reshape(scores.shape))
    return F.cross_entropy(scores, targets)


def _are_shares(scores: Tensor, targets: Tensor) -> bool:
    """Tell whether targets are probabilities of the classes."""
    near = targets.shape == scores.shape and bool(((targets.sum(1) - 1).abs() < 1e-3).all())
    return near and bool((targets >= 0).all())


def _are_switches(targets: Tensor) -> bool:
    return bool(((targets == 0) | (targets == 1)).all())
