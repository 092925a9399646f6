"""The dry step: one real small batch through forward, loss and backward, twice, on a double of the model."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torchgraft.probes.records import Broke, Criterion, Gradient, Place, Seen, Spread

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from torchgraft.probes.batch import Batch
    from torchgraft.probes.double import Double
    from torchgraft.probes.witness import Witness

__all__ = ["Step", "dry_step"]


@dataclass
class Step:
    """What a real step showed.

    Attributes:
        samples: how many went through.
        given: whether the loss was given; else it was chosen by the targets.
        outputs: the tensors that training mode gave.
        kind: the class of the whole output, such as Tensor or InceptionOutputs.
        entries: how one reaches the tensors of an output that is none itself, the main scores first.
        refused: the loss did not take the whole output, so it was given the main tensor of it.
        criteria: the loss functions of torch that were called.
        spreads: two shapes of the loss that were broadcast to a third.
        losses: the loss in both steps; the parameters move a little between them.
        loss_shape: of the loss, which should be one number; None where it is no tensor.
        attached: whether the loss depends on a parameter that can be trained.
        gradients: of each trainable parameter.
        order: names of the parameters by their first use.
        cuts: where gradients were lost on the way, in order.
        held: attributes that keep the graph of a step alive after it.
        written: parameters that the forward pass itself wrote to.
        odd: the first operation that made NaN or infinity out of finite values.
        overwritten: where an in-place operation spoilt what the backward pass needs: (who needs it, who wrote).
        grown: path of a module and name of a function that the second pass registered as its hook once more.
        stale: names of the model's parameters that held a gradient before.
        course: the losses over real steps of the optimizer on this one batch, where one was given.
        broke: where it broke off.
    """

    samples: int = 0
    given: bool = False
    outputs: tuple[Seen, ...] = ()
    kind: str = ""
    entries: tuple[str, ...] = ()
    refused: bool = False
    criteria: tuple[Criterion, ...] = ()
    spreads: tuple[Spread, ...] = ()
    losses: tuple[float, ...] = ()
    loss_shape: tuple[int, ...] | None = ()
    attached: bool = True
    gradients: tuple[Gradient, ...] = ()
    order: tuple[str, ...] = ()
    cuts: tuple[Place, ...] = ()
    held: tuple[str, ...] = ()
    written: tuple[str, ...] = ()
    odd: Place | None = None
    overwritten: tuple[Place, Place] | None = None
    grown: tuple[tuple[str, str], ...] = ()
    stale: tuple[str, ...] = ()
    course: tuple[float, ...] | None = None
    broke: Broke | None = None


def dry_step(
    double: Double, batch: Batch, *, loss: Any = None, optimizer: Any = None, stale: tuple[str, ...] = ()
) -> Step:
    """Run a batch through forward, loss and backward twice, then through some steps of an optimizer.

    Args:
        double: a copy that may be spoilt; it holds the model's values again after.
        batch: what goes through.
        loss: `loss(outputs, targets)`; chosen by the targets when left out.
        optimizer: what will train the model; a copy of it takes the steps.
        stale: what is known of gradients that were there before.
    """
    from torchgraft.probes.course import course
    from torchgraft.probes.double import seeded

    notes = Step(samples=batch.size, given=loss is not None, stale=stale)
    seeded()
    _two_steps(double, batch, loss, notes)
    _explain(double, batch, loss, notes)
    double.restore()
    if optimizer is not None and notes.broke is None and notes.attached:
        notes.course = course(double, batch.few(max(2, batch.size // 2)), loss, optimizer)
        double.restore()
    return notes


def _two_steps(double: Double, batch: Batch, loss: Any, notes: Step) -> None:
    from torchgraft.probes.witness import Witness

    double.module.train()
    witness = Witness(double.module)
    value = _pass(double, batch, loss, notes, witness, "")
    notes.criteria, notes.spreads = tuple(witness.criteria), tuple(witness.spreads)
    notes.order, notes.cuts = tuple(witness.order), tuple(witness.cuts)
    notes.written = tuple(name for name in double.moved() if name in dict(double.module.named_parameters()))
    if value is None or not _backward(value, notes, witness, ""):
        return
    first = _norms(double.module)
    notes.gradients = tuple(_gradient(double.module, name, norm, None) for name, norm in first.items())
    notes.held = _held(double)
    _nudge(double.module)
    del value
    hooks = _hooks(double.module)
    again = _pass(double, batch, loss, notes, Witness(double.module), "second ")
    notes.grown = _grown(hooks, _hooks(double.module))
    if again is None or not _backward(again, notes, witness, "second "):
        return
    later = _norms(double.module)
    notes.gradients = tuple(_gradient(double.module, name, norm, later.get(name)) for name, norm in first.items())


def _pass(double: Double, batch: Batch, loss: Any, notes: Step, witness: Witness, nth: str) -> torch.Tensor | None:
    """Run forward and loss; give the loss where it can be followed back."""
    import torch

    from torchgraft.probes.arrival import seen
    from torchgraft.probes.loss import entries_of, forward, judged
    from torchgraft.trace.tree import tensors

    stage, output, value = "forward", None, None
    try:
        with torch.enable_grad(), witness.watching():
            output = forward(double.module, batch)
            stage = "loss"
            witness.judging = True
            value, refused = judged(output, batch, loss)
            notes.refused = notes.refused or refused
    except Exception as error:  # whatever the user's code raises is what is to be told
        notes.broke = witness.broke(nth + stage, error)
        value = None
    if not nth and stage == "loss":
        notes.kind = type(output).__name__
        notes.entries = () if isinstance(output, torch.Tensor) else entries_of(output)
        notes.outputs = tuple(seen(one) for one in tensors(output))
    return None if notes.broke else _noted(value, notes)


def _noted(value: Any, notes: Step) -> Tensor | None:
    import torch

    if not isinstance(value, torch.Tensor):
        notes.loss_shape, notes.attached = None, False
        return None
    notes.loss_shape = tuple(value.shape)
    notes.attached = value.requires_grad
    if value.numel() == 1:
        notes.losses = (*notes.losses, float(value.detach()))
        return value if value.requires_grad else None
    return value.mean() if value.requires_grad else None


def _backward(value: Tensor, notes: Step, witness: Witness, nth: str) -> bool:
    try:
        value.backward()  # type: ignore[no-untyped-call]
    except Exception as error:
        broke = witness.broke(f"{nth}backward", error)
        notes.broke = Broke(broke.stage, "", "backward", broke.error, broke.message)
        return False
    return True


def _norms(module: nn.Module) -> dict[str, float | None]:
    """Give the norm of the gradient of each trainable parameter, and take the gradients off."""
    found: dict[str, float | None] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            grad = parameter.grad
            plain = grad.coalesce().values() if grad is not None and grad.is_sparse else grad
            found[name] = None if plain is None else float(plain.float().norm())
    return found


def _gradient(module: nn.Module, name: str, norm: float | None, later: float | None) -> Gradient:
    return Gradient(name, norm, later, dict(module.named_parameters())[name].dim() > 1)


NUDGE = 1e-3
"""The share of its norm that each parameter is moved by between the two steps: enough to leave an exact zero."""


def _nudge(module: nn.Module) -> None:
    import torch

    with torch.no_grad():
        for parameter in module.parameters():
            grad = parameter.grad
            size = float(grad.float().norm()) if grad is not None and not grad.is_sparse else 0.0
            if grad is not None and 0 < size < float("inf"):
                length = float(parameter.float().norm()) or 1.0
                parameter.add_(grad, alpha=-NUDGE * length / size)
            parameter.grad = None


def _hooks(module: nn.Module) -> dict[tuple[str, str], int]:
    """Count the hooks of each module by the name of the function."""
    found: dict[tuple[str, str], int] = {}
    for path, one in module.named_modules():
        for hook in (*one._forward_hooks.values(), *one._forward_pre_hooks.values()):
            key = (path, str(getattr(hook, "__name__", type(hook).__name__)))
            found[key] = found.get(key, 0) + 1
    return found


def _grown(before: dict[tuple[str, str], int], after: dict[tuple[str, str], int]) -> tuple[tuple[str, str], ...]:
    """Name the hooks that were there before and are there more often now; one that is new may be the only one."""
    return tuple(key for key, count in after.items() if count > before.get(key, 0) > 0)


def _held(double: Double) -> tuple[str, ...]:
    """Name the attributes whose tensors still hang on the graph, but for those that torch's own hooks renew."""
    found = []
    for path, module in double.module.named_modules():
        own = any(_of_torch(hook) for hook in module._forward_pre_hooks.values())
        for name, value in vars(module).items():
            if name not in ("_parameters", "_modules") and not own and _on_graph(value):
                entries = value if name == "_buffers" else {name: value}
                found += [f"{path}.{key}".lstrip(".") for key, one in entries.items() if _on_graph(one)]
    return tuple(found)


def _of_torch(hook: Any) -> bool:
    return str(getattr(hook, "__module__", None) or type(hook).__module__).startswith("torch.")


def _on_graph(value: Any, depth: int = 0) -> bool:
    import torch

    if isinstance(value, torch.Tensor):
        return value.grad_fn is not None
    if depth > 2 or not isinstance(value, (dict, list, tuple, set, deque)):
        return False
    return any(_on_graph(one, depth + 1) for one in (value.values() if isinstance(value, dict) else value))


# where it went wrong: another pass, only after a fault


def _explain(double: Double, batch: Batch, loss: Any, notes: Step) -> None:
    from torchgraft.probes.cause import first_odd, overwritten

    odd = any(one.odd for one in notes.outputs) or any(value != value for value in notes.losses)
    if odd:
        double.restore()
        notes.odd = first_odd(double, batch, loss)
    if notes.broke is not None and notes.broke.stage == "backward" and not notes.held:
        double.restore()
        notes.overwritten = overwritten(double, batch, loss)
