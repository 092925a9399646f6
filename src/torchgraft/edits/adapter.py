"""Adapter: LoRA and its kin, small trained parts beside frozen layers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import Field, field_validator, model_validator

from torchgraft.edits.base import Edit
from torchgraft.errors import EditError
from torchgraft.paths import homes
from torchgraft.rng import drawn_from
from torchgraft.schema import Count, Flag, Names, Number
from torchgraft.select import modules, selected
from torchgraft.surgery.standing import look_like
from torchgraft.surgery.tuners import KINDS, adapters, is_adapter, layer_kind

if TYPE_CHECKING:
    from torch import nn

    from torchgraft.surgery.journal import Surgery
    from torchgraft.trace import Trace

__all__ = ["Adapter"]


class Adapter(Edit):
    """Put an adapter of PEFT around layers: the model computes what it did, and only they are trained.

    LoRA (Hu et al., 2021) with its scaled form rsLoRA and its decomposed one DoRA, LoHa and LoKr, IA3, OFT, HRA
    and MiSS. The base's tensors are the same ones, held as `base_layer`, and frozen as PEFT does it. A layer whose
    weight its parent reads itself, past the layer, would never use its adapter, and is left alone or refused.

    Attributes:
        at: the layers, or modules that hold some; left out, those that PEFT chooses for a model of transformers,
            or else every linear layer and pointwise convolution inside blocks, but not the head.
        kind: what is put around them.
        rank: of the small matrices; the size of a block for `oft`.
        alpha: the adapter's output is scaled by alpha / rank, or alpha / √rank with `rslora`.
        dropout: on what the adapter is given.
        freeze: whether everything of the base but the adapters is frozen.
        train: what of the base stays trainable all the same, such as `norms`.
        left: how many layers were left alone since their weights are read past them; written when applied.
        moved: which keys moved.
    """

    written: ClassVar[frozenset[str]] = frozenset({"left", "moved"})
    needs_fit: ClassVar[bool] = True
    at: Names = ()
    kind_: str = Field(default="lora", alias="kind")
    rank: Count = 8
    alpha: Number = 16
    dropout: Annotated[float, Field(strict=True, ge=0, lt=1)] = 0.0
    freeze: Flag = True
    train: Names = ()
    left: int = 0
    moved: dict[str, str] = Field(default_factory=dict)

    @field_validator("kind_")
    @classmethod
    def _known(cls, kind: str) -> str:
        if kind not in KINDS:
            raise ValueError(f"there is no adapter '{kind}' that works layer by layer; one of {', '.join(KINDS)}")
        return kind

    @model_validator(mode="after")
    def _has_dropout(self) -> Self:
        if self.dropout and not KINDS[self.kind_].dropout:
            raise ValueError(f"{self.kind_} has no dropout")
        return self

    def apply(self, surgery: Surgery) -> Adapter:
        """Build an adapter around each layer, and move all references at once.

        Raises:
            SelectionError: a selector matches nothing.
            EditError: PEFT is missing or refuses a layer, or a selector matches nothing that can be adapted.
        """

        search = _Search(self, surgery)
        chosen = self.at or search.default()
        layers = search.layers(chosen)
        named = selected(surgery.model, self.train, roles=surgery.roles) if self.train else {}
        stay = {*named, *surgery.newcomers()}
        settings = {"rank": self.rank, "alpha": self.alpha, "dropout": self.dropout}
        with drawn_from(surgery.seed):
            made = adapters(self.kind_, layers, settings)
        if self.freeze:
            surgery.set_grad([one for one in surgery.model.parameters() if id(one) not in stay], False)
        pairs = dict(zip(layers, made, strict=True))
        for old, new in pairs.items():
            look_like(new, old)
        paths = [(path, one) for path, one in surgery.model.named_modules(remove_duplicate=False) if one in pairs]
        surgery.trade(pairs)
        held = {id(one) for layer in layers for one in layer.parameters()}
        surgery.drawn += [one for new in made for one in new.parameters() if id(one) not in held]
        firsts = {id(one): path for path, one in reversed(paths)}
        surgery.added += [f"{firsts[id(old)]}.{name}" for old, new in pairs.items() for name in _small(old, new)]
        search.slow_path(layers)
        moved = {f"{path}.base_layer": path for path, _ in paths}
        return self.model_copy(update={"at": tuple(chosen), "left": search.left, "moved": moved})

    def sentence(self) -> str:
        """Say what is adapted."""
        where = ", ".join(self.at[:3]) + (f" and {len(self.at) - 3} more" if self.at[3:] else "")
        many = len(self.moved)
        told = (
            f"{many or ''} {self.kind_} adapter{'' if many == 1 else 's'} of rank {self.rank} at {where}".strip()
        )
        told += ", the rest of the base frozen" if self.freeze else ""
        told += f" but {', '.join(self.train)}" if self.freeze and self.train else ""
        return told + (
            f"; {self.left} {'stays' if self.left == 1 else 'stay'}, read past by the module around"
            if self.left
            else ""
        )


def _small(old: nn.Module, new: nn.Module) -> list[str]:
    """Name the parts of an adapter that hold something, all but the layer that it is put around."""
    return [name for name, one in new.named_children() if one is not old and any(True for _ in one.parameters())]


class _Search:
    """Finds the layers that an adapter can serve, and those that would never use theirs."""

    def __init__(self, edit: Adapter, surgery: Surgery) -> None:
        self.edit = edit
        self.surgery = surgery
        self.table: dict[str, nn.Module] = dict(surgery.model.named_modules(remove_duplicate=False))
        self.bypassed = bypassed(surgery.look(False), self.table)
        self.left = 0

    def layers(self, chosen: Iterable[str]) -> list[nn.Module]:
        """Give each layer that is selected once, in the model's order.

        Raises:
            EditError: a selector matches nothing that can be adapted.
        """
        found: dict[int, nn.Module] = {}
        skipped: set[int] = set()
        for text in chosen:
            paths = modules(self.surgery.model, text, roles=self.surgery.roles)
            inside = self._under(set(paths))
            reasons = {id(one): self._refusal(path, one) for path, one in inside.items()}
            serves = {id(one): one for one in inside.values() if not reasons[id(one)]}
            if not serves:
                self._refuse(text, inside, reasons)
            found |= serves
            skipped |= {id(one) for one in inside.values() if one in self.bypassed}
        within = {id(part) for one in found.values() for part in one.modules()}
        self.left = len(skipped - within)
        return [one for one in dict.fromkeys(self.table.values()) if id(one) in found]

    def _under(self, paths: set[str]) -> dict[str, nn.Module]:
        """Give the modules at the paths and all under them, but no part of an adapter."""
        return {
            path: one
            for path, one in self.table.items()
            if path and any(home in paths for home in (*homes(path), path))
            if not any(is_adapter(self.table[home]) for home in homes(path))
        }

    def _refusal(self, path: str, module: nn.Module) -> str:
        """Say why a module can't be adapted, or nothing where it can."""
        kind = layer_kind(module)
        if is_adapter(module):
            return "it has an adapter already: merge that first"
        if kind not in KINDS[self.edit.kind_].layers:
            return f"{self.edit.kind_} serves {', '.join(sorted(KINDS[self.edit.kind_].layers))}"
        if module in self.bypassed:
            return "its parent reads its weight past it, so the adapter would never be used"
        if kind == "MultiheadAttention":
            return self._attention_refusal(path)
        if getattr(module, "groups", 1) > 1 and (self.edit.kind_ not in ("loha", "lokr", "ia3")):
            return f"{self.edit.kind_} does not serve convolutions in groups"
        return ""

    def _attention_refusal(self, path: str) -> str:
        from torch import nn

        if isinstance(self.table.get(path.rpartition(".")[0]), nn.TransformerEncoderLayer):
            return "its TransformerEncoderLayer reads the weights of its attention itself; adapt the linear layers"
        return "an adapter of a MultiheadAttention has no dropout: dropout=0" if self.edit.dropout else ""

    def _refuse(self, text: str, inside: Mapping[str, nn.Module], reasons: Mapping[int, str]) -> None:
        weighted = [path for path, one in inside.items() if one._parameters or is_adapter(one)]
        read = [path for path in weighted if inside[path] in self.bypassed]
        path = text if text in weighted else next(iter([*read, *weighted]), text)
        reason = reasons.get(id(inside.get(path))) or "it holds no layers"
        raise EditError(
            f"'{text}' selects nothing that can be adapted: {path}: {reason}",
            where=text,
            hint="adapt the module that holds it, such as the attention itself, or select linear layers"
            if path in inside and inside[path] in self.bypassed
            else f"select {', '.join(f'**:{kind}' for kind in sorted(KINDS[self.edit.kind_].layers))}",
        )

    def default(self) -> tuple[str, ...]:
        """Choose the layers where the user names none.

        Raises:
            EditError: there are none in blocks.
        """
        named = _of_peft(self.surgery.model, self.edit.kind_)
        head = modules(self.surgery.model, "head", roles=self.surgery.roles)
        held = self._under(set(head))
        found = [
            path
            for path, one in self.table.items()
            if path and path not in held and not self._refusal(path, one)
            if (path.rpartition(".")[2] in named if named else self._in_block(path) and _is_pointwise(one))
        ]
        if not found:
            raise EditError(
                "no linear layer or pointwise convolution stands in a block",
                where="adapter",
                hint="name the layers: at='layer4.**:Conv2d'",
            )
        return tuple(found)

    def _in_block(self, path: str) -> bool:
        from torch import nn

        return any(isinstance(self.table[home], (nn.Sequential, nn.ModuleList)) for home in homes(path))

    def slow_path(self, layers: Iterable[nn.Module]) -> None:
        """Let torch's encoder layers call their parts: their fast path reads the weights itself."""
        from torch import nn

        adapted = set(layers)
        for module in self.table.values():
            if isinstance(module, nn.TransformerEncoderLayer) and {*module.modules()} & adapted:
                self.surgery.set(module, "activation_relu_or_gelu", 0)


def _is_pointwise(layer: nn.Module) -> bool:
    sizes: Any = vars(layer).get("kernel_size", (1,))
    return layer_kind(layer) in ("Linear", "Conv1D", "MultiheadAttention") or (
        layer_kind(layer).startswith("Conv") and all(size == 1 for size in sizes)
    )


def bypassed(run: Trace, table: Mapping[str, nn.Module]) -> set[nn.Module]:
    """Give the modules whose parameters another module's forward takes itself, past their own forward."""
    owners: dict[str, set[str]] = {}
    tensors: dict[int, set[str]] = {}
    for path, module in table.items():
        for tensor in module._parameters.values():
            if tensor is not None:
                tensors.setdefault(id(tensor), set()).add(path)
    for path, module in table.items():
        for name, tensor in module._parameters.items():
            if tensor is not None:
                owners[f"{path}.{name}"] = tensors[id(tensor)]
    odd = {
        owner
        for op in run.ops
        for name in op.params
        if name in owners and op.path not in owners[name]
        for owner in owners[name]
    }
    return {table[path] for path in odd if path}


def _of_peft(model: nn.Module, kind: str) -> frozenset[str]:
    """Give the names of the layers that PEFT adapts in models of this type; nothing where it knows none."""
    config: Any = vars(model).get("config")
    if not hasattr(config, "model_type"):
        return frozenset()
    from torchgraft.surgery.tuners import _peft

    constants = _peft().utils.constants
    name = "IA3" if kind == "ia3" else "LORA"
    table = getattr(constants, f"TRANSFORMERS_MODELS_TO_{name}_TARGET_MODULES_MAPPING")
    found: Any = table.get(config.model_type, ())
    return frozenset() if isinstance(found, str) else frozenset(one.rpartition(".")[2] for one in found)
