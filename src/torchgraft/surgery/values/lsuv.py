"""LSUV: weights scaled so that every layer's output has unit variance on a batch (Mishkin and Matas, 2016).

One pass does it: each layer, when the pass comes to it, is scaled until its output has variance 1, and what comes
after takes that output. The pass runs in evaluation mode on a copy that shares the parameters which stay and has
buffers, flags and hooks of its own, so nothing of it is seen on the model.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torchgraft.errors import EditError

if TYPE_CHECKING:
    from torch import nn

    from torchgraft.surgery.values.layerkinds import Place
    from torchgraft.trace import Trace

__all__ = ["Target", "normal_batch", "scales"]

Target = tuple["Place", "nn.Parameter", Mapping[str, float | str]]
"""A place, the new parameter that it starts from, and the arguments of its rule: tolerance, steps."""


def scales(model: nn.Module, targets: Sequence[Target], batch: Any) -> dict[str, float]:
    """Find the factor of each new weight, by name; a layer that the pass does not reach has none.

    Args:
        model: in which all other new tensors are held already; it is not changed.
        targets: the layers that are scaled.
        batch: a tensor, a tuple of arguments, or a dict of them by name.

    Raises:
        EditError: the pass does not get through, or the output of a layer is constant.
    """
    import torch

    from torchgraft.rng import rng_kept

    made = _stand_in(model, {id(place.tensor): new for place, new, _ in targets})
    found: dict[str, float] = {}
    for place, _, rule in targets:
        made.get_submodule(place.path).register_forward_hook(_scaler(place, rule, found), with_kwargs=True)
    try:
        with rng_kept(), torch.no_grad():
            torch.manual_seed(0)
            _run(made, batch)
    except EditError:
        raise
    except Exception as error:  # whatever a model raises for a batch that it does not take
        raise EditError(
            f"the model does not run on the batch: {str(error).splitlines()[0] if str(error) else error!r}",
            where="init, lsuv",
            hint="hand over a batch of its inputs alone, without labels: init(…, batch=inputs)",
        ) from error
    if not found:
        raise EditError(
            "the pass in evaluation mode runs none of the layers that lsuv is to scale",
            where="init, lsuv",
            hint="name layers that the pass runs",
        )
    return found


def _run(model: nn.Module, batch: Any) -> None:
    if isinstance(batch, Mapping):
        model(**batch)
    elif isinstance(batch, (tuple, list)):
        model(*batch)
    else:
        model(batch)


def _stand_in(model: nn.Module, new: Mapping[int, nn.Parameter]) -> nn.Module:
    """Copy a model but for its parameters: those that stay are shared, new ones take the place of the old."""
    import torch

    memo: dict[int, Any] = {}
    for one in model.parameters():
        memo[id(one)] = torch.nn.Parameter(new[id(one)].detach()) if id(one) in new else one
    memo[id(memo)] = list(model.parameters())  # deepcopy keeps what it met alive here
    try:
        made = copy.deepcopy(model, memo)
    except Exception as error:  # tensors with a graph, locks, generators in attributes
        raise EditError(
            f"the model can't be copied for the pass: {str(error).splitlines()[0]}",
            where="init, lsuv",
            hint="take orthogonal instead, or free the model of what a pass left in its attributes",
        ) from error
    for module in made.modules():
        for hooks in (module._forward_hooks, module._forward_pre_hooks):
            own = [key for key, hook in hooks.items() if not _is_of_torch(hook)]
            for key in own:
                del hooks[key]
    return made.eval()


def _is_of_torch(hook: Any) -> bool:
    """Tell whether a hook is torch's own, such as that of weight norm, without which the pass is another."""
    return str(getattr(hook, "__module__", None) or type(hook).__module__).startswith("torch.")


def _scaler(place: Place, rule: Mapping[str, float | str], found: dict[str, float]) -> Callable[..., Any]:
    """Make the hook that scales a layer when the pass first comes to it, and gives its new output."""
    tolerance, steps = float(rule.get("tolerance", 0.1)), int(rule.get("steps", 10))

    def scale(module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        weight = module._parameters[place.own]
        if place.name in found or weight is None:
            return None
        original, factor = weight.detach().clone(), 1.0
        for _ in range(steps):
            variance = float(output.double().var(correction=0))
            if not variance > 0 or not math.isfinite(variance):
                raise _flat(place, variance)
            if abs(variance - 1) < tolerance:
                break
            factor /= math.sqrt(variance)
            weight.copy_(original * factor)
            output = module.forward(*args, **kwargs)
        found[place.name] = factor
        return output

    return scale


def _flat(place: Place, variance: float) -> EditError:
    return EditError(
        f"the output of {place.path or 'the model'} has variance {variance:g} on the batch, no factor makes it 1",
        where="init, lsuv",
        hint="initialise the layers before it too, or hand over a batch that is not constant",
    )


def normal_batch(model: nn.Module, trace: Trace, *, samples: int, seed: int) -> Any:
    """Draw a standard-normal batch of the shapes that a trace was given; numbers of tokens are drawn evenly.

    Args:
        model: what takes the batch: it gives the device, and how many tokens there are.
        trace: of the model as it stands.
        samples: how many; what has no batch dimension keeps its shape.
        seed: what it is drawn from.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    device = next((one.device for one in model.parameters()), torch.device("cpu"))
    made = []
    for number in trace.inputs:
        value = trace.values[number]
        batched = bool(value.shape) and value.shape[0] == trace.batch
        shape = (samples, *value.shape[1:]) if batched else value.shape
        dtype: torch.dtype = getattr(torch, value.dtype)
        if dtype.is_floating_point:
            one = torch.randn(shape, generator=generator, device="cpu")
        elif dtype == torch.bool:
            one = torch.ones(shape, device="cpu")
        else:
            one = torch.randint(0, _rows(model, trace, number), shape, generator=generator, device="cpu")
        made.append(one.to(device=device, dtype=dtype))
    return made[0] if len(made) == 1 else tuple(made)


def _rows(model: nn.Module, trace: Trace, number: int) -> int:
    """Give how many tokens the smallest table knows that takes an input; 2 where none does: a mask, a segment."""
    tables = [op.params[0] for op in trace.ops if op.name == "embedding" and number in op.inputs and op.params]
    held = dict(model.named_parameters(remove_duplicate=False))
    return min((held[name].shape[0] for name in tables if name in held), default=2)
