"""The witness of a real pass: where it is, which loss judges what, where gradients are cut off. Needs torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from torchgraft.probes.records import Broke, Criterion, Labels, Place, Spread
from torchgraft.trace.tree import tensors

__all__ = ["Refused", "Witness", "labels_of", "scores_of"]

CRITERIA = frozenset(
    [
        "cross_entropy",
        "nll_loss",
        "binary_cross_entropy",
        "binary_cross_entropy_with_logits",
        "mse_loss",
        "l1_loss",
        "smooth_l1_loss",
        "huber_loss",
        "kl_div",
    ]
)


class Refused(Exception):  # noqa: N818
    """An operation that would break, told before it runs: on a GPU it would end the whole process."""


class Witness(TorchFunctionMode):
    """Sees every operation of a pass, and the module whose forward is under way.

    Attributes:
        criteria: each loss function of torch that was called, and what it was given.
        spreads: operations of the loss where two shapes were broadcast to a third.
        cuts: operations that took what needs gradients and gave what has none, in order.
        order: names of parameters by their first use.
        judging: whether the loss is under way.
        last: the operation that is under way, and so the one that an error comes from; empty between two.
    """

    def __init__(self, module: nn.Module, *, each: Callable[[Any, Place], None] | None = None) -> None:
        super().__init__()
        self.criteria: list[Criterion] = []
        self.spreads: list[Spread] = []
        self.cuts: list[Place] = []
        self.order: dict[str, None] = {}
        self.judging = False
        self.last = ""
        self._module = module
        self._each = each
        self._names = {id(one): name for name, one in module.named_parameters()}
        self._stack: list[str] = []

    @contextmanager
    def watching(self) -> Iterator[Witness]:
        """Watch a pass of the double: its module calls too, by hooks that are taken off after."""
        handles = []
        for path, module in self._module.named_modules():
            if isinstance(module, torch.jit.ScriptModule):
                continue
            handles.append(module.register_forward_pre_hook(self._enter(path), prepend=True))
            handles.append(module.register_forward_hook(self._leave))
        try:
            with self:
                yield self
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, path: str) -> Callable[..., None]:
        def enter(*_: Any) -> None:
            self._stack.append(path)

        return enter

    def _leave(self, *_: Any) -> None:
        if self._stack:
            self._stack.pop()

    @property
    def path(self) -> str:
        """The innermost module whose forward is under way."""
        return "" if self.judging or not self._stack else self._stack[-1]

    def broke(self, stage: str, error: BaseException) -> Broke:
        """Say where a pass broke off."""
        said = str(error).strip() or type(error).__name__
        return Broke(stage, self.path, self.last, type(error).__name__, said)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = _name(func)
        if name == "__get__":
            return func(*args, **kwargs)
        self.last = name
        given = tensors((args, kwargs))
        self._look(name, args, kwargs, given)
        result = func(*args, **kwargs)
        self.last = ""  # it got through: what is raised next is not its fault
        made = tensors(result)
        self._judge(name, given, made)
        if self._each is not None and made:
            self._each(result, Place(name, self.path))
        return result

    def _look(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], given: list[Tensor]) -> None:
        for one in given:
            if id(one) in self._names:
                self.order.setdefault(self._names[id(one)])
        if name == "embedding":
            _refuse_ids(given)
        if name in CRITERIA and len(given) > 1 and args and isinstance(args[0], Tensor):
            self.criteria.append(_criterion(name, self.path, given, args, kwargs))
            if self.criteria[-1].out_of_range:
                raise Refused(f"labels from {self.criteria[-1].labels.low:g} to {self.criteria[-1].labels.high:g}")

    def _judge(self, name: str, given: list[Tensor], made: list[Tensor]) -> None:
        if self.judging and len(given) > 1 and len(made) == 1:
            shapes = tuple(tuple(one.shape) for one in given[:2])
            out = tuple(made[0].shape)
            if out not in shapes and len(out) > 1 and name in _PAIRED:
                self.spreads.append(Spread(name, shapes, out))
        lost = [one for one in made if one.is_floating_point()]
        if lost and any(one.requires_grad for one in given) and not any(one.requires_grad for one in lost):
            self.cuts.append(Place(name, self.path))


_PAIRED = frozenset(
    ["sub", "rsub", "__sub__", "__rsub__", "mul", "__mul__", "add", "__add__", "mse_loss", "l1_loss"]
)


def _name(func: Any) -> str:
    name = str(getattr(func, "__name__", func))
    holder = getattr(getattr(func, "__self__", None), "__name__", "")
    if name == "__get__":
        return "data" if holder == "data" else name
    return f"{holder}=" if name == "__set__" else name


def _refuse_ids(given: list[Tensor]) -> None:
    ids, table = (given[0], given[1]) if not given[0].is_floating_point() else (given[1], given[0])
    if ids.numel() and (int(ids.min()) < 0 or int(ids.max()) >= table.shape[0]):
        raise Refused(f"ids from {int(ids.min())} to {int(ids.max())} in a table of {table.shape[0]}")


def _criterion(
    name: str, path: str, given: list[Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Criterion:
    scores, targets = given[0].detach(), given[1].detach()
    dim = 1 if scores.dim() > 1 else 0
    ignore = kwargs.get("ignore_index", -100)
    return Criterion(
        name=name,
        path=path,
        scores=tuple(scores.shape),
        kind=scores_of(scores),
        classes=int(scores.shape[dim]) if scores.dim() else 1,
        labels=labels_of(targets, ignore=ignore),
        ignore=int(ignore),
        swapped=given[1].requires_grad and not given[0].requires_grad,
    )


def scores_of(scores: Tensor) -> str:
    """Tell what scores are by their values: probabilities, log-probabilities, unit (each in 0 … 1) or raw."""
    if not scores.is_floating_point() or not scores.numel() or not bool(torch.isfinite(scores).all()):
        return "raw"
    low, high = float(scores.min()), float(scores.max())
    dim = 1 if scores.dim() > 1 else 0
    several = scores.dim() > 0 and scores.shape[dim] > 1
    near = 1e-2 if scores.dtype in (torch.float16, torch.bfloat16) else 1e-4
    if several and low >= 0 and high <= 1 + near and bool(((scores.sum(dim) - 1).abs() < near).all()):
        return "probabilities"
    if several and high <= near and bool(((scores.exp().sum(dim) - 1).abs() < near).all()):
        return "log-probabilities"
    return "unit" if low >= 0 and high <= 1 and high > low else "raw"


def labels_of(targets: Tensor, *, ignore: float = -100) -> Labels:
    """Describe targets; those that the loss leaves out do not count."""
    kept = targets[targets != ignore] if not targets.is_floating_point() else targets
    plain = kept.float() if kept.dtype in (torch.bool, torch.float16, torch.bfloat16) else kept
    if plain.is_complex() or not plain.numel():
        return Labels(tuple(targets.shape), _dtype(targets), 0, 0, False, 0, False)
    whole = not plain.is_floating_point() or bool((plain == plain.round()).all())
    wide = plain.dim() > 1 and plain.shape == targets.shape and plain.shape[1] > 1
    sums = wide and bool(((plain.sum(1).float() - 1).abs() < 1e-3).all())
    return Labels(
        shape=tuple(targets.shape),
        dtype=_dtype(targets),
        low=float(plain.min()),
        high=float(plain.max()),
        whole=whole,
        distinct=_distinct(plain),
        sums=sums,
    )


def _distinct(values: Tensor) -> int:
    return len(set(values.reshape(-1)[: 2**16].tolist()))


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
