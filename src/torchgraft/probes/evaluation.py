"""One real pass in evaluation mode, with all that arrival, state difference and independence read off it."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from torchgraft.probes.records import Broke, Norm, Place

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from torchgraft.probes.batch import Batch
    from torchgraft.probes.double import Double

__all__ = ["Evaluation", "evaluation"]


@dataclass(frozen=True)
class Evaluation:
    """What one pass gave and left changed.

    Attributes:
        outputs: the tensors that came out; none where it broke off.
        moved: names of parameters and buffers whose bytes changed.
        random: the first operation that drew random numbers.
        norm: the first BatchNorm that data reached, if it was trained.
        broke: where it broke off.
    """

    outputs: tuple[Tensor, ...] = ()
    moved: tuple[str, ...] = ()
    random: Place | None = None
    norm: Norm | None = None
    broke: Broke | None = None


def evaluation(double: Double, batch: Batch, each: Callable[[Any, Place], None] | None = None) -> Evaluation:
    """Run a pass in evaluation mode; the double holds the model's values again after.

    Args:
        double: what runs.
        batch: what goes in.
        each: called with the result and the place of every operation.
    """
    import torch

    from torchgraft.probes.double import seeded
    from torchgraft.probes.witness import Witness
    from torchgraft.trace.tree import tensors

    seeded()
    before, drawn = torch.get_rng_state(), list[Place]()

    def look(result: Any, place: Place) -> None:
        if not drawn and not torch.equal(torch.get_rng_state(), before):
            drawn.append(place)
        if each is not None:
            each(result, place)

    norms: list[Norm | None] = []
    double.module.eval()
    witness, result, broke = Witness(double.module, each=look), None, None
    try:
        with _norms_seen(double, norms), torch.no_grad(), witness.watching():
            result = batch.run(double.module)
    except Exception as error:  # whatever the user's forward raises is what is to be told
        broke = witness.broke("evaluation", error)
    moved = tuple(double.moved())
    double.restore()
    outputs = tuple(one.detach() for one in tensors(result))
    return Evaluation(outputs, moved, drawn[0] if drawn else None, norms[0] if norms else None, broke)


def _norms_seen(double: Double, found: list[Norm | None]) -> Any:
    """Look at what reaches the first BatchNorm of a pass."""
    import contextlib

    import torch

    def look(module: nn.Module, given: tuple[Any, ...]) -> None:
        if not found:
            found.append(_norm(double.paths.get(id(module), ""), module, given[0]))

    stack = contextlib.ExitStack()
    for module in double.module.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            stack.callback(module.register_forward_pre_hook(look).remove)
    return stack


def _norm(path: str, module: Any, given: Tensor) -> Norm | None:
    """Compare what arrives with the running statistics; None where they were never trained."""
    mean, var = module.running_mean, module.running_var
    trained = mean is not None and (bool((mean != 0).any()) or bool((var != 1).any()))
    if not trained or given.dim() < 2:
        return None
    dims = [dim for dim in range(given.dim()) if dim != 1]
    std = (var + module.eps).sqrt()
    scale = given.float().std(dims, correction=0) / std
    offset = (given.float().mean(dims) - mean).abs() / std
    return Norm(path, median(scale.tolist()), median(offset.tolist()))
