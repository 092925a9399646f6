"""Round trip: does a model come back from its own file? What the state dict holds, and what it can't."""

from __future__ import annotations

import copy
import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pickle import UnpicklingError
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["RoundTrip", "roundtrip"]


@dataclass(frozen=True)
class RoundTrip:
    """What happens to a model that is saved and loaded.

    Attributes:
        lost: buffers of floats that are not persistent: no file holds them.
        shared: names of the state dict that are one memory: tied weights, or views of one another.
        objects: entries of the state dict that are no tensors.
        ran: whether it was really saved and loaded.
        changed: names whose tensors are others afterwards.
        parted: names that were one tensor before, and are several afterwards.
        failure: why it could not be saved or loaded.
    """

    lost: tuple[str, ...] = ()
    shared: tuple[tuple[str, ...], ...] = ()
    objects: tuple[str, ...] = ()
    ran: bool = False
    changed: tuple[str, ...] = ()
    parted: tuple[tuple[str, ...], ...] = ()
    failure: str = ""


def roundtrip(model: nn.Module, *, real: bool = True) -> RoundTrip:
    """Look at what a file of a model would hold; `real` also saves it in memory and loads it into a twin.

    The twin is a copy whose tensors were all wiped, so only what the file brings can be in it. The model itself
    is neither changed nor run; a real trip takes three times its memory for a moment.
    """
    from torch.nn.parameter import is_lazy

    state = dict(model.state_dict(keep_vars=True))
    tensors = {name: one for name, one in state.items() if hasattr(one, "untyped_storage")}
    looked = RoundTrip(
        lost=_lost(model),
        shared=_shared(tensors),
        objects=tuple(name for name in state if name not in tensors),
    )
    if not real or any(one.device.type == "meta" or is_lazy(one) for one in tensors.values()):
        return looked
    return _travelled(model, looked)


def _lost(model: nn.Module) -> tuple[str, ...]:
    return tuple(
        f"{path}.{name}" if path else name
        for path, module in model.named_modules()
        for name in module._non_persistent_buffers_set
        if (buffer := module._buffers.get(name)) is not None and buffer.is_floating_point()
    )


def _shared(tensors: Mapping[str, Tensor]) -> tuple[tuple[str, ...], ...]:
    """Group the names whose tensors lie in one storage."""
    from torch.nn.parameter import is_lazy

    homes: dict[int, list[str]] = {}
    for name, tensor in tensors.items():
        if tensor.device.type != "meta" and not is_lazy(tensor) and tensor.numel():
            homes.setdefault(tensor.untyped_storage().data_ptr(), []).append(name)
    return tuple(tuple(names) for names in homes.values() if len(names) > 1)


def _travelled(model: nn.Module, looked: RoundTrip) -> RoundTrip:
    import torch

    try:
        twin = _twin(model)
        _wipe(twin)
        kept = io.BytesIO()
        torch.save(model.state_dict(), kept)
        kept.seek(0)
        twin.load_state_dict(torch.load(kept, weights_only=True))
    except Exception as error:
        return replace(looked, ran=True, failure=_reason(error))
    before, after = _persistent(model), _persistent(twin)
    changed = tuple(name for name in before if name not in after or not _same(before[name], after[name]))
    shared = {frozenset(names) for names in _shared(after)}
    parted = tuple(names for names in looked.shared if frozenset(names) not in shared)
    return replace(looked, ran=True, changed=changed, parted=parted)


def _twin(model: nn.Module) -> nn.Module:
    """Copy a model; one that can't be copied as it is, such as a pruned one, as the real probes do."""
    from torchgraft.probes.double import Double

    try:
        return copy.deepcopy(model)
    except RuntimeError:  # an attribute has a graph: the weight that pruning computes
        return Double(model).module


def _reason(error: Exception) -> str:
    if isinstance(error, UnpicklingError):  # torch's own words advise to run the code in the file
        return "its state dict holds objects that are no plain data, and code from files is never run"
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def _persistent(model: nn.Module) -> dict[str, Tensor]:
    """Give what a file should hold, whatever the model's own `state_dict` says."""
    found: dict[str, Tensor] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        kept = {**module._parameters, **module._buffers}
        for name, tensor in kept.items():
            if tensor is not None and name not in module._non_persistent_buffers_set:
                found[f"{path}.{name}" if path else name] = tensor.detach()
    return found


def _wipe(twin: nn.Module) -> None:
    """Fill every tensor of a copy with another value than it has, so that what is not loaded shows."""
    import torch

    seen: set[int] = set()
    with torch.no_grad():
        for tensor in (*twin.parameters(), *twin.buffers()):
            if id(tensor) not in seen and tensor.layout == torch.strided and not tensor.is_quantized:
                seen.add(id(tensor))
                tensor.copy_(tensor.logical_not() if tensor.dtype == torch.bool else torch.zeros_like(tensor))


def _same(before: Tensor, after: Tensor) -> bool:
    import torch

    both_nan = (before != before) & (after != after) if before.shape == after.shape else torch.tensor(False)
    return before.shape == after.shape and bool(((before == after) | both_nan).all())
