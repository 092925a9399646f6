"""Where the tokens of a transformer look: the weights of every attention, whichever way it is computed."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from torchgraft.errors import SelectionError
from torchgraft.features.hooks import Capture, capture
from torchgraft.features.layout import Grids

if TYPE_CHECKING:
    from torchgraft.graft import Graft

__all__ = ["Attention", "attention_maps", "on_image", "rollout"]


@dataclass(frozen=True)
class Attention:
    """The weights of one attention.

    Attributes:
        path: of the module whose forward computes it.
        kind: its class.
        call: which attention of that module it is, from 1.
        weights: `[N, heads, queries, keys]`, rows that sum to 1; of windows, N counts every window.
    """

    path: str
    kind: str
    call: int
    weights: Tensor


def attention_maps(
    graft: Graft,
    *inputs: Any,
    at: str | Sequence[str] | None = None,
    keep: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Attention, ...]:
    """Give the weights of every attention in a pass: fused, torch's own, or written out.

    The weights of `scaled_dot_product_attention` are computed from its queries and keys, those of
    `nn.MultiheadAttention` by asking it for them; a softmax over the last of four dimensions is taken as one.

    Args:
        graft: the model.
        inputs: what the forward takes; a dict of arguments by name.
        at: selectors of modules: only the attention in them.
        keep: what is kept of the weights.

    Raises:
        SelectionError: there is no attention, or a selector matches nothing.
    """
    wanted = [at] if isinstance(at, str) else list(at or ["**"])
    chosen = capture(graft, *wanted, stop=False)
    paths = {alias for _, names, _ in chosen.chosen for alias in names}
    stack: list[tuple[str, nn.Module]] = [("", chosen.module)]
    with _followed(chosen.module, stack), _Watching(stack, paths, keep or _same) as found:
        _ = _run(chosen, inputs)
    if not found.seen:
        raise SelectionError(
            "there is no attention here",
            where=", ".join(wanted),
            hint="a vision transformer has one in each block; of other models, draw the maps: --kind maps",
        )
    return tuple(found.seen)


def _run(chosen: Capture, inputs: tuple[Any, ...]) -> Any:
    return chosen.run(*inputs)


def _same(weights: Tensor) -> Tensor:
    return weights


@contextmanager
def _followed(model: nn.Module, stack: list[tuple[str, nn.Module]]) -> Iterator[None]:
    """Keep the innermost module that runs on top of the stack."""

    def push(path: str, module: nn.Module, args: Any) -> None:
        stack.append((path, module))

    def pop(module: nn.Module, args: Any, output: Any) -> None:
        stack.pop()

    with ExitStack() as opened:
        for path, module in model.named_modules():
            opened.callback(module.register_forward_pre_hook(functools.partial(push, path)).remove)
            opened.callback(module.register_forward_hook(pop, always_call=True).remove)
        yield


class _Watching(TorchFunctionMode):
    """Writes down the weights of each attention that is computed."""

    def __init__(
        self, stack: list[tuple[str, nn.Module]], paths: set[str], keep: Callable[[Tensor], Tensor]
    ) -> None:
        super().__init__()
        self.seen: list[Attention] = []
        self._stack, self._paths, self._keep = stack, paths, keep

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is functional.multi_head_attention_forward:
            result, weights = func(*args, **{**kwargs, "need_weights": True, "average_attn_weights": False})
            self._note(weights)
            if kwargs.get("need_weights", True) and kwargs.get("average_attn_weights", True):
                return result, weights.mean(-3) if weights is not None else None
            return result, weights if kwargs.get("need_weights", True) else None
        result = func(*args, **kwargs)
        if func is functional.scaled_dot_product_attention:
            self._note(_weights(*args, **kwargs))
        elif func in _SOFTMAX and result.dim() == 4 and _last_dim(args, kwargs):
            self._note(result.detach())
        return result

    def _note(self, weights: Tensor | None) -> None:
        assert weights is not None  # it was asked for
        path, module = self._stack[-1]
        if weights.dim() < 4:
            weights = weights.unsqueeze(0)
        inside = {path[:end] for end, letter in enumerate(path) if letter == "."} | {path}
        if self._paths.isdisjoint(inside):
            return
        call = 1 + sum(one.path == path for one in self.seen)
        self.seen.append(Attention(path, type(module).__name__, call, self._keep(weights.detach()).clone()))


_SOFTMAX = (functional.softmax, torch.softmax, Tensor.softmax)


def _last_dim(args: Any, kwargs: Any) -> bool:
    dim = kwargs.get("dim", args[1] if len(args) > 1 else None)
    return dim in (-1, 3)


def _weights(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Compute the weights of `scaled_dot_product_attention` (Vaswani et al., 2017, equation 1)."""
    if enable_gqa:
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
    scores = query @ key.transpose(-2, -1) * (scale if scale is not None else 1 / math.sqrt(query.shape[-1]))
    if is_causal:
        seen = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        scores = scores.masked_fill(~seen, -math.inf)
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, -math.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
    return scores.softmax(-1)


def rollout(attentions: Sequence[Attention]) -> Tensor:
    """Follow attention through all layers to the input (Abnar and Zuidema, 2020): `[N, queries, keys]`.

    Each layer is half the mean of its heads and half itself, which stands for the residual; the layers are
    multiplied from the first to the last.

    Args:
        attentions: of each layer, in order, all over the same tokens.

    Raises:
        SelectionError: the layers do not attend to the same tokens, such as windows.
    """
    shapes = {one.weights.shape[0:1] + one.weights.shape[2:] for one in attentions}
    if len(shapes) != 1 or len(set(next(iter(shapes))[1:])) != 1:
        raise SelectionError(
            "these attentions are not over the same tokens: "
            + ", ".join(sorted(str(list(one)) for one in shapes)),
            where="rollout",
            hint="attention in windows, or to another sequence, can't be followed through the layers",
        )
    found: Tensor | None = None
    for one in attentions:
        heads = one.weights.float().mean(1)
        step = (heads + torch.eye(heads.shape[-1], device=heads.device)) / 2
        found = step if found is None else step @ found
    if found is None:
        raise SelectionError("there is no attention to follow", where="rollout")
    return found


def on_image(weights: Tensor, grids: Grids) -> Tensor | None:
    """Lay attention on the image: what the class token sees, or all tokens on the mean where there is none.

    Args:
        weights: `[…, L, L]`.
        grids: how tokens lie.

    Returns:
        `[…, H, W]`; None where the keys are no places of the image.
    """
    grid = grids.of_tokens(weights.shape[-1])
    if grid is None or weights.shape[-1] != weights.shape[-2]:
        return None
    height, width, extra = grid
    row = weights[..., 0, :] if extra else weights.mean(-2)
    return row[..., extra:].reshape(*row.shape[:-1], height, width)
