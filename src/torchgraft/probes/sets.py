"""Sets: parameters, the optimizer's groups, freeze flags and modes, compared by identity and by name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torchgraft.errors import RecipeError
from torchgraft.probes.hidden import Hidden, hidden
from torchgraft.probes.unread import unread
from torchgraft.wording import named

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

__all__ = ["Group", "Held", "Norm", "Sets", "sets"]


@dataclass(frozen=True)
class Group:
    """One group of an optimizer: its settings, and the model's names of its parameters.

    `exchanged` are those of them that the group itself, by the names that it was loaded with, takes for others;
    `unread` are settings that the optimizer, a `kind`, does not know, with those that were meant.
    """

    number: int
    names: tuple[str, ...]
    size: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    exchanged: tuple[tuple[str, str], ...] = ()
    unread: tuple[tuple[str, str], ...] = ()
    kind: str = ""

    def setting(self, name: str, default: float = 0.0) -> float:
        """Give a setting as a number; one that is a tensor is read."""
        value = self.settings.get(name, default)
        value = value[0] if isinstance(value, tuple) else value
        return float(value) if value is not None else default


@dataclass(frozen=True)
class Held:
    """What optimizers hold, against the model.

    Attributes:
        kind: the optimizer's class.
        groups: its groups.
        absent: names of trainable parameters in no group.
        stale: sizes of parameters in a group that the model does not have (any more).
        twice: names of parameters that stand in the groups more than once.
        frozen: names of frozen parameters in a group.
        driven: of those, names that have a gradient still, so that every step moves them.
        remembered: of those, names that the optimizer has a state for (momentum, averages).
        misshapen: names whose state has another size than the parameter.
        apart: names whose state lies on another device than the parameter.
    """

    kind: str
    groups: tuple[Group, ...]
    absent: tuple[str, ...] = ()
    stale: tuple[tuple[int, ...], ...] = ()
    twice: tuple[str, ...] = ()
    frozen: tuple[str, ...] = ()
    driven: tuple[str, ...] = ()
    remembered: tuple[str, ...] = ()
    misshapen: tuple[str, ...] = ()
    apart: tuple[str, ...] = ()


@dataclass(frozen=True)
class Norm:
    """A norm with running statistics: is it frozen (no trainable parameter), and which mode is it in.

    Attributes:
        path: where it is.
        kind: its class.
        frozen: none of its parameters can be trained.
        training: it is in training mode.
        momentum: the share of the newest batch in the statistics; None: all batches count alike.
        tracks: whether a pass in training mode moves the statistics at all.
        pinned: it or what it lies in decides its mode itself, whatever `model.train()` says.
    """

    path: str
    kind: str
    frozen: bool
    training: bool
    momentum: float | None = 0.1
    tracks: bool = True
    pinned: bool = False

    @property
    def moves(self) -> bool:
        """Tell whether the next pass moves the statistics."""
        return self.training and self.tracks and self.momentum != 0


@dataclass(frozen=True)
class Sets:
    """What the model holds and what the optimizer holds.

    Attributes:
        trainable: names of trainable parameters.
        frozen: names of frozen parameters.
        norms: the norms with running statistics.
        training: whether the model itself is in training mode.
        modes: paths of the modules in training mode that training changes (norms with statistics, dropout).
        still: paths of such modules in evaluation mode.
        tied: names of parameters that have several.
        plain: names of norms' parameters and of biases, which weight decay should spare.
        hidden: modules and tensors in attributes that the model does not know.
        repeated: path of a module and name of a function that is its hook more than once, and how often.
        hooked: paths of modules with forward hooks.
        ignored: path of a module or parameter, and the attribute on it that was meant to freeze it and does not.
        overlaid: names of several parameters that lie in one memory, and are not one parameter.
        learnt: names of buffers that ask for gradients.
        gradients: whether operations are recorded for a backward pass here and now.
        held: what the optimizer holds, if one was given.
        kept: whether torchgraft's own loop trains the model, which keeps frozen parts still.
    """

    trainable: tuple[str, ...] = ()
    frozen: tuple[str, ...] = ()
    norms: tuple[Norm, ...] = ()
    training: bool = True
    modes: tuple[str, ...] = ()
    still: tuple[str, ...] = ()
    tied: tuple[tuple[str, ...], ...] = ()
    plain: tuple[str, ...] = ()
    hidden: tuple[Hidden, ...] = ()
    repeated: tuple[tuple[str, str, int], ...] = ()
    hooked: tuple[str, ...] = ()
    ignored: tuple[tuple[str, str], ...] = ()
    overlaid: tuple[tuple[str, ...], ...] = ()
    learnt: tuple[str, ...] = ()
    gradients: bool = True
    held: Held | None = None
    kept: bool = False


def sets(
    model: nn.Module, optimizer: torch.optim.Optimizer | Iterable[torch.optim.Optimizer] | None = None
) -> Sets:
    """Compare a model's parameters with an optimizer's, or with those of several; no value is read.

    Raises:
        RecipeError: what is given is no optimizer: a class, a name, a schedule.
    """
    import torch

    names: dict[int, list[str]] = {}
    parameters: dict[int, nn.Parameter] = {}
    modules = list(model.named_modules(remove_duplicate=False))
    for path, module in modules:
        for name, parameter in module._parameters.items():
            if parameter is not None:
                names.setdefault(id(parameter), []).append(f"{path}.{name}" if path else name)
                parameters[id(parameter)] = parameter
    modules = list({id(module): (path, module) for path, module in reversed(modules)}.values())[::-1]
    moded = [(path, module) for path, module in modules if _has_modes(module)]
    return Sets(
        trainable=tuple(names[key][0] for key, one in parameters.items() if one.requires_grad),
        frozen=tuple(names[key][0] for key, one in parameters.items() if not one.requires_grad),
        norms=tuple(_norms(modules)),
        training=model.training,
        modes=tuple(path for path, module in moded if module.training),
        still=tuple(path for path, module in moded if not module.training),
        tied=tuple(tuple(several) for several in names.values() if len(several) > 1),
        plain=tuple(_plain(modules)),
        hidden=hidden(modules),
        repeated=tuple(_repeated(modules)),
        ignored=tuple(_ignored(modules)),
        overlaid=tuple(_overlaid(parameters, names)),
        learnt=tuple(name for name, buffer in model.named_buffers() if buffer.requires_grad),
        gradients=torch.is_grad_enabled() and not torch.is_inference_mode_enabled(),
        hooked=tuple(path for path, module in modules if module._forward_hooks),
        held=None if optimizer is None else _held(_several(optimizer), parameters, names),
    )


# modes


def _tracks(module: nn.Module) -> bool:
    from torch.nn.modules.batchnorm import _NormBase

    return isinstance(module, _NormBase) and module.running_mean is not None


def _has_modes(module: nn.Module) -> bool:
    """Tell whether training mode changes what the module itself does."""
    from torch.nn.modules.dropout import _DropoutNd

    if isinstance(module, _DropoutNd):
        return module.p > 0
    if type(module).__name__ in ("StochasticDepth", "DropPath"):
        chance = getattr(module, "p", getattr(module, "drop_prob", 0))
        return isinstance(chance, (int, float)) and chance > 0
    return _tracks(module)


def _norms(modules: Sequence[tuple[str, nn.Module]]) -> Iterator[Norm]:
    """Describe the norms; one without parameters goes with the layer before it."""
    frozen = False
    pins = [path for path, module in modules if _decides(module)]
    for path, module in modules:
        own = [one for one in module._parameters.values() if one is not None]
        frozen = not any(one.requires_grad for one in own) if own else frozen
        if _tracks(module):
            made: Any = module
            pinned = any(not pin or path == pin or path.startswith(f"{pin}.") for pin in pins)
            kind = type(module).__name__
            yield Norm(path, kind, frozen, module.training, made.momentum, made.track_running_stats, pinned)


def _decides(module: nn.Module) -> bool:
    """Tell whether a module of the user's own says what `train()` does; libraries let norms follow it."""
    from torch import nn

    own = type(module).train is not nn.Module.train and not _is_of_library(module)
    return own or callable(vars(module).get("train"))


def _is_of_library(module: nn.Module) -> bool:
    return type(module).__module__.partition(".")[0] in ("torch", "torchvision", "timm", "transformers")


_MEANT = frozenset({"trainable", "frozen", "freeze", "is_frozen", "train", "eval"})
"""Attributes of other libraries, and methods; a class of the user's own may read the first four."""


def _ignored(modules: Sequence[tuple[str, nn.Module]]) -> Iterator[tuple[str, str]]:
    """Find attributes that were meant to freeze: a flag on a module, or misspelt on a parameter."""
    for path, module in modules:
        flags = [name for name, value in vars(module).items() if isinstance(value, bool)]
        yield from ((path, name) for name in flags if _means_to_freeze(name, own=not _is_of_library(module)))
        for name, parameter in module._parameters.items():
            for attribute in parameter.__dict__ if parameter is not None else ():
                if _means_to_freeze(attribute, own=False):
                    yield f"{path}.{name}" if path else name, attribute


def _means_to_freeze(name: str, *, own: bool) -> bool:
    """Tell whether an attribute was meant to freeze; a class of one's own (`own`) may know what it is for."""
    if name in _MEANT:
        return not own or name in ("train", "eval")
    near = name.startswith("re") and difflib.get_close_matches(name, ("requires_grad",), n=1, cutoff=0.8)
    return bool(near)


def _overlaid(parameters: Mapping[int, nn.Parameter], names: Mapping[int, list[str]]) -> Iterator[tuple[str, ...]]:
    """Find parameters that start at the same address with the same sizes, although they are two objects."""
    homes: dict[tuple[Any, ...], list[str]] = {}
    for key, one in parameters.items():
        if address := _address(one):
            homes.setdefault((one.device, address, one.shape, one.stride()), []).append(names[key][0])
    return (tuple(several) for several in homes.values() if len(several) > 1)


def _address(parameter: nn.Parameter) -> int:
    """Give where a parameter's values lie; 0 for one without values of its own: on meta, fake, sparse, lazy."""
    try:
        return parameter.data_ptr() if parameter.numel() else 0
    except (RuntimeError, ValueError, NotImplementedError):
        return 0


def _plain(modules: Sequence[tuple[str, nn.Module]]) -> Iterable[str]:
    """Give the names of biases and of the vectors of norms."""
    for path, module in modules:
        for name, parameter in module._parameters.items():
            if parameter is not None and (name == "bias" or "norm" in type(module).__name__.lower()):
                yield f"{path}.{name}" if path else name


# hooks


def _repeated(modules: Sequence[tuple[str, nn.Module]]) -> Iterable[tuple[str, str, int]]:
    """Find functions that stand among a module's hooks more than once: closures of one function count as it."""
    for path, module in modules:
        counts: dict[tuple[Any, tuple[Any, ...]], int] = {}
        for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values()):
            code = getattr(hook, "__code__", None)
            if code is not None and not str(getattr(hook, "__module__", "")).startswith("torch."):
                key = (code, _plain_values(hook))
                counts[key] = counts.get(key, 0) + 1
        yield from ((path, code.co_name, count) for (code, _), count in counts.items() if count > 1)


def _plain_values(hook: Any) -> tuple[Any, ...]:
    """Give the names and numbers that a hook was made with: two that differ in them are two hooks."""
    cells = (cell.cell_contents for cell in hook.__closure__ or () if _full(cell))
    return tuple(value for value in (*cells, *(hook.__defaults__ or ())) if isinstance(value, (str, int, float)))


def _full(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False


# the optimizer


def _several(given: Any) -> list[Any]:
    """Give the optimizers.

    Raises:
        RecipeError: something else is among them.
    """
    listed = list(given) if isinstance(given, Iterable) and not isinstance(given, (str, Mapping)) else [given]
    for one in listed:
        if isinstance(one, type) or not isinstance(getattr(one, "param_groups", None), list):
            raise _no_optimizer(one)
    return listed


def _no_optimizer(given: Any) -> RecipeError:
    hint = "give one that holds the model's parameters: torch.optim.SGD(model.parameters(), lr=0.1)"
    if hasattr(getattr(given, "optimizer", None), "param_groups"):
        hint = "give the optimizer that it moves: its .optimizer"
    elif isinstance(given, type):
        hint = f"make one: {given.__name__}(model.parameters(), …)"
    return RecipeError(f"{named(given)} is no optimizer", where="optimizer", hint=hint)


def _held(optimizers: list[Any], parameters: Mapping[int, nn.Parameter], names: Mapping[int, list[str]]) -> Held:
    raw = [(optimizer, group) for optimizer in optimizers for group in optimizer.param_groups]
    listed = [parameter for _, group in raw for parameter in group["params"]]
    counts: dict[int, int] = {}
    for parameter in listed:
        counts[id(parameter)] = counts.get(id(parameter), 0) + 1
    inside = [key for key in counts if key in parameters]
    frozen = [key for key in inside if not parameters[key].requires_grad]
    known = [pair for optimizer in optimizers for pair in optimizer.state.items()]
    states = {id(one): state for one, state in known if _is_memory(state)}
    return Held(
        kind=" and ".join(dict.fromkeys(type(optimizer).__name__ for optimizer in optimizers)),
        groups=tuple(_group(number, *one, names) for number, one in enumerate(raw)),
        absent=tuple(names[k][0] for k, one in parameters.items() if one.requires_grad and k not in counts),
        stale=tuple(tuple(one.shape) for one in {id(p): p for p in listed}.values() if id(one) not in parameters),
        twice=tuple(names[key][0] for key in inside if counts[key] > 1),
        frozen=tuple(names[key][0] for key in frozen),
        driven=tuple(names[key][0] for key in frozen if parameters[key].grad is not None),
        remembered=tuple(names[key][0] for key in frozen if key in states),
        misshapen=tuple(
            names[key][0] for key in inside if key in states and _misshapen(parameters[key], states[key])
        ),
        apart=tuple(names[key][0] for key in inside if key in states and _apart(parameters[key], states[key])),
    )


def _group(number: int, optimizer: Any, group: Mapping[str, Any], names: Mapping[int, list[str]]) -> Group:
    inside = tuple(names[id(one)][0] for one in group["params"] if id(one) in names)
    settings = {key: value for key, value in group.items() if key not in ("params", "names", "param_names")}
    odd, kind = unread(optimizer, group), type(optimizer).__name__
    return Group(number, inside, len(group["params"]), settings, tuple(_exchanged(group, names)), odd, kind)


def _exchanged(group: Mapping[str, Any], names: Mapping[int, list[str]]) -> Iterator[tuple[str, str]]:
    """Compare the names that an optimizer was loaded with to those of the parameters that it holds.

    `optimizer.load_state_dict` goes by position and takes the saved names over; a name counts only where it is
    that of another parameter of the model.
    """
    known = {name for several in names.values() for name in several}
    for one, called in zip(group["params"], group.get("param_names", ()), strict=False):
        own = names.get(id(one), [called])
        if called in known and called not in own:
            yield own[0], called


_LIKE_PARAMETERS = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "exp_inf", "momentum_buffer", "square_avg", "sum")
"""Entries of torch's optimizers' states that have the size of their parameter."""


def _is_memory(state: Mapping[str, Any]) -> bool:
    """Tell whether a state holds values; SGD without momentum has a None for it, fastai flags of its own."""
    return any(hasattr(value, "shape") for value in state.values())


def _misshapen(parameter: Tensor, state: Mapping[str, Any]) -> bool:
    return any(one.shape != parameter.shape for one in _like_parameter(state))


def _apart(parameter: Tensor, state: Mapping[str, Any]) -> bool:
    return any(one.device != parameter.device for one in _like_parameter(state))


def _like_parameter(state: Mapping[str, Any]) -> list[Tensor]:
    return [state[name] for name in _LIKE_PARAMETERS if hasattr(state.get(name), "shape")]
