"""Adapter layers of PEFT, made one by one around layers of a model that PEFT itself never sees.

`peft.inject_adapter_in_model` works on a shell that holds the layers and nothing else; what it put in their places
is lifted out. So the model is changed by surgery alone, and what PEFT does to flags on the way is taken back.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torchgraft.errors import EditError

if TYPE_CHECKING:
    from torch import nn

__all__ = ["KINDS", "Kind", "adapters", "is_adapter", "layer_kind"]


@dataclass(frozen=True)
class Kind:
    """A kind of adapter: PEFT's configuration, what that calls our settings, and the layers it serves.

    `fixed` are settings that make it this kind.
    """

    config: str
    layers: frozenset[str]
    rank: str = ""
    alpha: str = ""
    dropout: str = ""
    fixed: Mapping[str, Any] | None = None


_LORA = frozenset({"Linear", "Conv1d", "Conv2d", "Conv3d", "Embedding", "Conv1D"})
_LYCORIS = frozenset({"Linear", "Conv1d", "Conv2d"})

KINDS: dict[str, Kind] = {
    "lora": Kind("LoraConfig", _LORA | {"MultiheadAttention"}, "r", "lora_alpha", "lora_dropout"),
    "rslora": Kind(
        "LoraConfig", _LORA | {"MultiheadAttention"}, "r", "lora_alpha", "lora_dropout", {"use_rslora": True}
    ),
    "dora": Kind("LoraConfig", _LORA, "r", "lora_alpha", "lora_dropout", {"use_dora": True}),
    "loha": Kind("LoHaConfig", _LYCORIS, "r", "alpha", "module_dropout"),
    "lokr": Kind("LoKrConfig", _LYCORIS, "r", "alpha", "module_dropout"),
    "ia3": Kind(
        "IA3Config", frozenset({"Linear", "Conv2d", "Conv3d", "Conv1D"}), fixed={"feedforward_modules": []}
    ),
    "oft": Kind("OFTConfig", frozenset({"Linear", "Embedding"}), "oft_block_size", dropout="module_dropout"),
    "hra": Kind("HRAConfig", frozenset({"Linear", "Conv2d"}), "r"),
    "miss": Kind("MissConfig", frozenset({"Linear"}), "r", dropout="miss_dropout"),
}
"""Those of PEFT that work layer by layer, start as the identity and merge, each on the layers where all of that
is so; OFT on a padded convolution, for one, does not start as the identity (peft 0.21)."""


def layer_kind(module: nn.Module) -> str:
    """Name the layer of torch, or transformers' Conv1D, that a module is and computes as; else nothing."""
    from torch import nn

    if isinstance(module, nn.MultiheadAttention):
        return "MultiheadAttention" if module._parameters.get("in_proj_weight") is not None else ""
    if module._parameters.get("weight") is None:
        return ""
    if type(module).__name__ == "Conv1D" and hasattr(module, "nf"):
        return "Conv1D"
    for kind in (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Embedding):
        convolves = getattr(type(module), "_conv_forward", None) is getattr(kind, "_conv_forward", None)
        if isinstance(module, kind) and type(module).forward is kind.forward and convolves:
            return kind.__name__
    return ""


def is_adapter(module: nn.Module) -> bool:
    """Tell whether a module is an adapter layer of PEFT, without importing it."""
    return any(cls.__name__ == "BaseTunerLayer" for cls in type(module).__mro__)


def adapters(kind: str, layers: Sequence[nn.Module], settings: Mapping[str, Any]) -> list[nn.Module]:
    """Build an adapter layer around each layer; the layers, their tensors and flags stay what they are.

    Args:
        kind: one of KINDS.
        layers: what is adapted.
        settings: `rank`, `alpha` and `dropout`; those that the kind does not have are left out.

    Raises:
        EditError: PEFT is not installed, or refuses a layer.
    """
    peft = _peft()
    asked = _named(KINDS[kind], settings)
    attentions = [one for one in layers if layer_kind(one) == "MultiheadAttention"]
    others = [one for one in layers if layer_kind(one) != "MultiheadAttention"]
    made: dict[int, nn.Module] = {}
    config = getattr(peft, KINDS[kind].config)
    if others:
        made |= _injected(peft, config(target_modules=r"layer_\d+", **asked), others)
    if attentions:
        names = [f"layer_{number}.in_proj_weight" for number in range(len(attentions))]
        made |= _injected(peft, config(target_modules=[], target_parameters=names, **asked), attentions)
    return [made[id(layer)] for layer in layers]


def _named(kind: Kind, settings: Mapping[str, Any]) -> dict[str, Any]:
    ours = {kind.rank: settings["rank"], kind.alpha: settings["alpha"], kind.dropout: settings["dropout"]}
    ours.pop("", None)
    return {**ours, **({"r": 0} if kind.config == "OFTConfig" else {}), **(kind.fixed or {})}


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise EditError(
            "adapters are made by PEFT, which is not installed",
            where="adapter",
            hint="pip install 'torchgraft[peft]'",
        ) from error
    return peft


def _injected(peft: Any, config: Any, layers: Sequence[nn.Module]) -> dict[int, nn.Module]:
    """Let PEFT work on a shell, and give what it put in the place of each layer, by the layer's id."""
    from torch import nn

    shell = nn.Module()
    for number, layer in enumerate(layers):
        shell.add_module(f"layer_{number}", layer)
    flags = [(parameter, parameter.requires_grad) for parameter in shell.parameters()]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            peft.inject_adapter_in_model(config, shell)
    except (ValueError, TypeError, RuntimeError, NotImplementedError, AttributeError, ZeroDivisionError) as error:
        raise EditError(
            f"PEFT refuses: {str(error).splitlines()[0]}",
            where="adapter",
            hint="adapt other layers, or another rank",
        ) from error
    finally:
        for parameter, flag in flags:
            parameter.requires_grad = flag
    return {id(layer): shell.get_submodule(f"layer_{number}") for number, layer in enumerate(layers)}
