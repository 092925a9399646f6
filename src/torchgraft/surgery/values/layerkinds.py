"""Which kind of layer holds a parameter, and of which parts its tensor is made: what an initialisation goes by."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from torchgraft.errors import EditError
from torchgraft.select.seen import walk

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["Kind", "Place", "is_transposed_linear", "parts", "places", "refuse_computed"]

Kind = Literal["conv", "linear", "norm", "embedding", "recurrent", "attention", "other", "bias"]


@dataclass(frozen=True)
class Place:
    """A parameter and where it is held.

    Attributes:
        name: its first name in the model, whatever name it was selected by.
        path: the path of the module that holds it.
        own: its name within that module.
        home: that module.
        kind: the kind of layer, or `bias`.
        part_of: whether the layer is the output projection of an attention of torch.
        tensor: the parameter itself.
    """

    name: str
    path: str
    own: str
    home: nn.Module
    kind: Kind
    part_of: bool
    tensor: nn.Parameter


def places(model: nn.Module, names: Iterable[str]) -> list[Place]:
    """Give the place of each named parameter, in the order of the names; a tied one under each of its names."""
    from torch import nn

    homes = dict(walk(model))
    first: dict[int, str] = {}
    for path, module in homes.items():  # quicker than `named_parameters`, which walks by generators
        for own, parameter in module._parameters.items():
            first.setdefault(id(parameter), f"{path}.{own}" if path else own)
    found = []
    for name in names:
        path, _, own = name.rpartition(".")
        home, parent = homes[path], homes[path.rpartition(".")[0]] if path else None
        tensor = home._parameters[own]
        if tensor is not None:
            part = isinstance(parent, nn.MultiheadAttention)
            found.append(Place(first[id(tensor)], path, own, home, _kind(home, own), part, tensor))
    return found


def _kind(home: nn.Module, own: str) -> Kind:
    from torch import nn
    from torch.nn.modules.batchnorm import _NormBase
    from torch.nn.modules.conv import _ConvNd

    if own == "bias" or own.startswith("bias_") or own.endswith("_bias"):
        return "bias"
    table: tuple[tuple[Kind, tuple[type[nn.Module], ...]], ...] = (
        ("conv", (_ConvNd,)),
        ("linear", (nn.Linear, nn.Bilinear)),
        ("norm", (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)),
        ("embedding", (nn.Embedding, nn.EmbeddingBag)),
        ("recurrent", (nn.RNNBase, nn.RNNCellBase)),
        ("attention", (nn.MultiheadAttention,)),
    )
    for kind, classes in table:
        if isinstance(home, classes):
            return kind
    name = type(home).__name__
    if is_transposed_linear(home):
        return "linear"
    return "norm" if "norm" in name.lower() and own == "weight" else "other"


def is_transposed_linear(home: nn.Module) -> bool:
    """Tell whether a layer is GPT-2's `Conv1D` of transformers: a linear layer that keeps `[inputs, outputs]`."""
    return type(home).__name__ == "Conv1D" and hasattr(home, "nf") and hasattr(home, "nx")


def parts(place: Place, tensor: Tensor) -> list[Tensor]:
    """Give the views of a tensor that are weights of their own, each as `[outputs, inputs, …]`.

    The gates of a recurrent layer and the queries, keys and values of an attention are matrices that lie in one
    tensor. A transposed convolution keeps `[inputs, outputs / groups, …]`, whose outputs torch.nn.init takes
    for the fan in; it is turned here, group by group.
    """
    from torch import nn

    home = place.home
    if place.kind == "recurrent":
        return list(tensor.chunk(tensor.shape[0] // _hidden(home, place.own, tensor), 0))
    if isinstance(home, nn.MultiheadAttention) and place.own == "in_proj_weight":
        return list(tensor.chunk(3, 0))
    if isinstance(home, (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)) and place.kind == "conv":
        return [group.transpose(0, 1) for group in tensor.chunk(home.groups, 0)]
    if is_transposed_linear(home) and tensor.dim() == 2:
        return [tensor.t()]
    return [tensor]


def _hidden(home: nn.Module, own: str, tensor: Tensor) -> int:
    """Give the rows of one gate; a projection of an LSTM has no gates."""
    return tensor.shape[0] if own.startswith("weight_hr") else int(home.hidden_size)  # type: ignore[arg-type]


def refuse_computed(place: Place) -> None:
    """Refuse a tensor that others are computed from, that has no values of its own yet, or that is no weight.

    Raises:
        EditError: it is one of a parametrization, a scripted module, a lazy or a quantised layer.
    """
    from torch import jit
    from torch.nn.parameter import is_lazy

    def refused(what: str, hint: str) -> EditError:
        return EditError(f"{place.name} can't be initialised: {what}", where=place.path or place.name, hint=hint)

    if isinstance(place.home, jit.ScriptModule):
        raise refused("its module is scripted", "initialise the Python module that it was scripted from")
    if ".parametrizations." in f".{place.path}." or place.own.endswith(("weight_g", "weight_v", "weight_orig")):
        raise refused(
            "the weight of the layer is computed from it",
            "take the parametrization off first (torch.nn.utils.parametrize.remove_parametrizations), or replace "
            "the layer",
        )
    if is_lazy(place.tensor):
        raise refused("its size is not known before the first pass", "run the model once, or give the sizes")
    if not (place.tensor.is_floating_point() or place.tensor.is_complex()):
        raise refused(f"it holds {str(place.tensor.dtype).removeprefix('torch.')}", "dequantise the layer first")
