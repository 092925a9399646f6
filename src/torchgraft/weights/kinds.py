"""Weights that are no plain state dict, told by the names and sizes of their tensors."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["peculiar"]

_Test = Callable[[Mapping[str, "Tensor"]], int]


def peculiar(state: Mapping[str, Tensor]) -> tuple[str, str] | None:
    """Say what is peculiar about weights, and what to do; None for a plain state dict."""
    for test, what, hint in _KINDS:
        if count := test(state):
            return what.format(count=count, size=len(state)), hint
    return None


def _named(pattern: str) -> _Test:
    return lambda state: sum(re.search(pattern, name) is not None for name in state)


def _placeholders(state: Mapping[str, Tensor]) -> int:
    """Count empty tensors where most are empty: a model has hardly any of its own."""
    empty = sum(one.numel() == 0 for one in state.values())
    return empty if empty * 2 > len(state) else 0


_KINDS: tuple[tuple[_Test, str, str], ...] = (
    (
        _placeholders,
        "{count} of {size} tensors are empty: DeepSpeed ZeRO-3 keeps the values in other files",
        "make whole weights by the zero_to_fp32.py that lies beside the checkpoint",
    ),
    (
        _named(r"(^|\.)(_flat_param|flat_param_\d+)$"),
        "its parameters are flattened by FSDP",
        "save a full state dict: FSDP.set_state_dict_type(model, StateDictType.FULL_STATE_DICT)",
    ),
    (
        _named(r"\.(lora_[AB]|lora_embedding_[AB]|lora_magnitude_vector|hada_w\d_[ab]|ia3_l)(\.|$)"),
        "{count} of {size} tensors are those of an adapter (LoRA or kin), not of a model",
        "merge it into its base and save that: PeftModel.from_pretrained(base, FOLDER).merge_and_unload()",
    ),
    (
        _named(r"\.(qweight|qzeros|absmax|quant_map|quant_state\.\w+|SCB|_packed_params\._packed_params)$"),
        "its weights are codes of a quantised model",
        "take the weights from before the quantisation",
    ),
    (
        _named(r"\.weight_mask$"),
        "it was pruned: torch keeps each weight as weight_orig and weight_mask",
        "torch.nn.utils.prune.remove(module, 'weight') for each of them, before it is saved",
    ),
    (
        _named(r"\.weight_u$|\.parametrizations\.weight\.0\._u$"),
        "it was saved with spectral norm, which keeps a weight in parts",
        "take it off before the model is saved: remove_spectral_norm, remove_parametrizations(module, 'weight'); "
        "or put it on this model first",
    ),
    (
        _named(r"\.weight_g$|\.parametrizations\.weight\.original1$"),
        "it was saved with weight norm, which keeps a weight as its length and its direction",
        "take it off before the model is saved: remove_weight_norm, remove_parametrizations(module, 'weight'); "
        "or put it on this model first",
    ),
    (
        _named(r"/(kernel|gamma|beta|moving_mean|moving_variance):?\d*$"),
        "its names are those of TensorFlow, where matrices lie the other way round",
        "convert them first: transformers and timm bring converters for their models",
    ),
)
