"""Models built without memory for their parameters, and weights put straight into their places.

A skeleton has its parameters on the meta device and its buffers real: what `__init__` computes into a buffer is
right, and no initialisation is paid for (on meta it moves no value). `torch.device("meta")` around the build would
make the buffers empty as well, and models that read their own tables while they are built (RegNet) would fail.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torchgraft.rng import drawn_from
from torchgraft.weights.plan import tensors_of

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["draw", "drawable", "emptied", "on_meta", "parameters_on_meta", "place", "placing", "straight"]

_TWIN = "_torchgraft_on_meta"
"""Where a real parameter keeps its stand-in while a skeleton is built, so that what is tied stays tied."""


class _Here(threading.local):
    """What holds in this thread: other threads build their models as ever."""

    building = False
    loading = False


_here = _Here()
_lock = threading.RLock()


@contextmanager
def parameters_on_meta() -> Iterator[None]:
    """Let modules register their parameters on the meta device, as long as the block runs, in this thread."""
    from torch import nn

    usual = nn.Module.register_parameter

    def register(self: nn.Module, name: str, param: nn.Parameter | None) -> None:
        usual(self, name, _twin(param) if _here.building and param is not None else param)

    drawn = {name: one for name, one in vars(nn.init).items() if name.endswith("_") and not name.startswith("_")}
    with _lock, _set("building", True):
        nn.Module.register_parameter = register  # type: ignore[method-assign]
        vars(nn.init).update({name: _unless_on_meta(one) for name, one in drawn.items()})
        try:
            yield
        finally:
            nn.Module.register_parameter = usual  # type: ignore[method-assign]
            vars(nn.init).update(drawn)


@contextmanager
def placing() -> Iterator[None]:
    """Let `load_state_dict` put tensors into a skeleton as they are, as long as the block runs, in this thread."""
    from torch import nn

    usual = nn.Module.load_state_dict

    def load(self: nn.Module, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        if not _here.loading or not any(one.is_meta for one in self.parameters()):
            return usual(self, state_dict, strict, assign)
        with _set("loading", False):
            return place(self, state_dict, strict=strict)

    with _lock, _set("loading", True):
        nn.Module.load_state_dict = load  # type: ignore[method-assign]
        try:
            yield
        finally:
            nn.Module.load_state_dict = usual  # type: ignore[method-assign]


def straight(build: Callable[[], nn.Module]) -> nn.Module:
    """Build a model and load its weights straight into place, where the function does both.

    A model that can't be built so (its `__init__` reads values of parameters, or runs a forward pass), or whose
    weights are copied by hand, is built again the usual way: the same tensors, at twice the memory.
    """
    try:
        with parameters_on_meta(), placing():
            module = build()
    except (RuntimeError, TypeError):
        return build()
    return build() if on_meta(module) else module


def on_meta(module: nn.Module) -> list[str]:
    """Name the parameters and buffers that have no values."""
    both = (module.named_parameters(), module.named_buffers())
    return [name for tensors in both for name, one in tensors if one.is_meta]


def emptied(module: nn.Module) -> nn.Module:
    """Move the parameters of a model that was built the usual way to meta; its buffers stay as they are."""
    for part, name, one in _held(module):
        if one is part._parameters.get(name) and not one.is_meta:
            part._parameters[name] = _twin(one)
    return module


def place(model: nn.Module, state: Mapping[str, Any], *, strict: bool = False, copy: bool = False) -> Any:
    """Put tensors into a model in place of its own, which may lie on meta; no value moves where nothing differs.

    Each tensor gets the type, the order in memory, `requires_grad` and the attributes of the one whose place it
    takes, and the device where that is a real one. What is one parameter in the model stays one, and what is two
    shares no memory.

    Args:
        model: what is filled.
        state: the tensors by the model's names; the model keeps them, so they should belong to nothing else.
        strict: as of `load_state_dict`.
        copy: copy what belongs to something else.

    Returns:
        what `load_state_dict` returns.
    """
    from torch import nn

    own = tensors_of(model)
    homes: dict[int, list[tuple[nn.Module, str]]] = {}
    for part, name, one in _held(model):
        homes.setdefault(id(one), []).append((part, name))
    with _set("building", False):
        done = nn.Module.load_state_dict(model, _fitted(own, state, copy=copy), strict=strict, assign=True)
        for one in {id(one): one for one in own.values()}.values():
            places = homes.get(id(one), [])
            if len(places) > 1 or one.__dict__:
                _tie(one, places)
    return done


def drawable(model: nn.Module, names: Sequence[str]) -> set[str]:
    """Give those names of tensors on meta whose modules can draw them anew: all that these hold, and by their own
    `reset_parameters`."""
    found: set[str] = set()
    for path, part in model.named_modules(remove_duplicate=False):
        direct = [f"{path}.{name}" if path else name for name in (*part._parameters, *part._buffers)]
        if callable(getattr(part, "reset_parameters", None)) and all(
            one in names for one, tensor in zip(direct, _direct(part), strict=True) if tensor is not None
        ):
            found.update(direct)
    return found & set(names)


def draw(model: nn.Module, names: Sequence[str], *, seed: int) -> None:
    """Draw tensors on meta anew by `reset_parameters` of their modules, on the CPU; see `drawable`."""
    import torch

    with drawn_from(seed), torch.no_grad():
        for path, part in model.named_modules():
            mine = [
                name
                for name in (*part._parameters, *part._buffers)
                if (f"{path}.{name}" if path else name) in names
            ]
            if not mine:
                continue
            for name in mine:
                empty = getattr(part, name)
                made = torch.empty_like(empty, device="cpu")
                new = torch.nn.Parameter(made, empty.requires_grad) if name in part._parameters else made
                setattr(part, name, new)
            part.reset_parameters()


def _direct(part: nn.Module) -> list[Tensor | None]:
    return [*part._parameters.values(), *part._buffers.values()]


def _held(model: nn.Module) -> Iterator[tuple[nn.Module, str, Tensor]]:
    """Give every tensor of a model with the module that holds it, under each of its names."""
    for part in list(model.modules()):
        for name, one in [*part._parameters.items(), *part._buffers.items()]:
            if one is not None:
                yield part, name, one


def _unless_on_meta(draw: Callable[..., Any]) -> Callable[..., Any]:
    """Let a function of torch.nn.init leave tensors on meta alone: its way there is long, and moves no value."""

    def drawn(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
        return tensor if tensor.is_meta else draw(tensor, *args, **kwargs)

    return drawn


def _twin(param: nn.Parameter) -> nn.Parameter:
    """Give the stand-in of a parameter on meta: one for each, so that ties stay."""
    import torch
    from torch.nn.parameter import is_lazy

    if param.is_meta or is_lazy(param):
        return param
    if (made := param.__dict__.get(_TWIN)) is None:
        empty = torch.empty_strided(param.size(), param.stride(), dtype=param.dtype, device="meta")
        made = torch.Tensor._make_subclass(type(param), empty, param.requires_grad)
        made.__dict__.update(param.__dict__)
        param.__dict__[_TWIN] = made
    return made


def _takes(own: Tensor | None, given: Any) -> bool:
    import torch
    from torch.nn.parameter import is_lazy

    return (
        own is not None
        and isinstance(given, torch.Tensor)
        and not is_lazy(own)
        and own.shape == given.shape
        and given.layout == torch.strided
        and not given.is_quantized
    )


def _fitted(own: Mapping[str, Tensor], state: Mapping[str, Any], *, copy: bool) -> dict[str, Any]:
    """Make given tensors like those whose place they take; what is tied gets one, the last that is given."""
    taken: set[int] = set()
    tied = {id(own[name]): name for name, one in state.items() if _takes(own.get(name), one)}
    made = {key: _like(own[name], state[name], taken, copy=copy) for key, name in tied.items()}
    return {name: made[id(own[name])] if _takes(own.get(name), one) else one for name, one in state.items()}


def _like(own: Tensor, given: Tensor, taken: set[int], *, copy: bool) -> Tensor:
    """Give a tensor with another's type, order in memory and device, and memory of its own."""
    import torch

    made = given.detach().to(device=None if own.is_meta else own.device, dtype=own.dtype)
    ordered = made.stride() == own.stride() or (made.is_contiguous() and own.is_contiguous())
    storage = made.untyped_storage()
    shared = storage.data_ptr() in taken or storage.nbytes() != made.nbytes
    borrowed = copy and storage.data_ptr() == given.untyped_storage().data_ptr()
    if not ordered or shared or borrowed:
        fresh = torch.empty_strided(own.size(), own.stride(), dtype=made.dtype, device=made.device)
        made = fresh.copy_(made)
    if made.numel():
        taken.add(made.untyped_storage().data_ptr())
    return made


def _tie(old: Tensor, homes: list[tuple[nn.Module, str]]) -> None:
    """Hold what took a tensor's place under all of its names, with its attributes; of several the last counts."""
    now = [getattr(part, name) for part, name in homes]
    new = [one for one in now if one is not old]
    if not new:
        return
    attributes = {name: value for name, value in old.__dict__.items() if name != _TWIN}
    new[-1].__dict__.update(attributes)
    for (part, name), one in zip(homes, now, strict=True):
        if one is not new[-1]:
            setattr(part, name, new[-1])


@contextmanager
def _set(name: str, value: bool) -> Iterator[None]:
    """Let a switch of this thread have a value for a while."""
    before = getattr(_here, name)
    setattr(_here, name, value)
    try:
        yield
    finally:
        setattr(_here, name, before)
