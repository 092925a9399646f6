"""Where modules stand: in a sequence, under which name, and what their parent may read off them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from torchgraft.surgery.journal import Surgery

__all__ = ["free_name", "gate_like", "gives_pair", "is_sequence", "look_like", "moved_to", "place_in"]


def is_sequence(module: nn.Module) -> bool:
    """Tell whether a module passes its input through its children in order, and does nothing else."""
    from torch import nn

    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward


def place_in(home: str, sequence: nn.Module, name: str | None, module: nn.Module, surgery: Surgery) -> str:
    """Put a module at the end of a Sequential."""
    last = list(sequence._modules)[-1] if len(sequence._modules) else None
    return surgery.insert(home, name or free_name(str(len(sequence._modules)), sequence), module, after=last)


def gives_pair(module: nn.Module) -> bool:
    """Tell whether a module gives its tensor in a tuple, whether or not there is a second one."""
    from torch import nn

    return isinstance(module, (nn.MultiheadAttention, nn.RNNBase))


def gate_like(wrapper: nn.Module, neighbour: nn.Module, model: nn.Module) -> None:
    """Bring the gate of a wrapper to where its neighbour is, or the model where that has no parameters."""
    for part in (neighbour, model):
        like = next((one for one in part.parameters() if one.is_floating_point()), None)
        if like is not None:
            for gate in wrapper._parameters.values():
                moved_to(gate, like)
            return


def moved_to(tensor: Any, like: Any) -> None:
    """Bring a new tensor to where the model is; for one on meta it keeps its values, which nothing else has."""
    kind = like.dtype if tensor.is_floating_point() else tensor.dtype
    tensor.data = tensor.data.to(device=tensor.device if like.is_meta else like.device, dtype=kind)


def look_like(wrapper: nn.Module, neighbour: nn.Module) -> None:
    """Give a module the plain attributes of what it stands for: the parent may read them off its child."""
    from torch import fx

    told = {name: value for name, value in vars(neighbour).items() if not name.startswith("_")}
    copied: dict[str, Any] = {}
    for name, value in told.items():
        plain = value is None or isinstance(value, (bool, int, float, str, tuple))
        if plain and not hasattr(wrapper, name):
            setattr(wrapper, name, value)
            copied[name] = value
    if isinstance(wrapper, fx.GraphModule):  # which copies, with itself, only the attributes that are named here
        wrapper.meta["_user_preserved_attributes"] = copied


def free_name(name: str, *modules: nn.Module) -> str:
    """Give a name that none of the modules has yet: itself, or with the least number from 2 on."""
    number, free = 2, name
    while any(hasattr(module, free) for module in modules):
        free, number = f"{name}_{number}", number + 1
    return free
