"""What outputs are judged by: the loss that was given, or the one that the targets ask for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

    from torchgraft.probes.batch import Batch

__all__ = ["entries_of", "forward", "judged", "main_of"]


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
