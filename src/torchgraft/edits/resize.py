"""Resize: other input or output sizes of one layer, keeping the weights that overlap."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, PrivateAttr, model_validator

from torchgraft.edits.base import Edit
from torchgraft.errors import EditError
from torchgraft.rng import drawn_from
from torchgraft.schema import Count
from torchgraft.surgery.journal import twin
from torchgraft.surgery.overlap import copy_overlap, fill
from torchgraft.surgery.sizes import gives, is_single, takes, told
from torchgraft.surgery.tied import Slot, holders
from torchgraft.surgery.tuners import is_adapter

if TYPE_CHECKING:
    from torch import nn

    from torchgraft.surgery.journal import Surgery

__all__ = ["SIZES", "Resize", "depthwise", "resized"]


_Place = Annotated[int, Field(strict=True, ge=0)]
"""The number of a row or column, counted from 0."""


class Resize(Edit):
    """Give a convolution, linear layer, norm, embedding or attention of torch other sizes.

    What both sizes share keeps its weights. New input slices start at zero, so that what the layer computed
    from the old inputs stays; new outputs are drawn as torch draws them. A norm has one size, its inputs. Where
    the groups of a convolution no longer fit, it gets fewer that compute the same from the old inputs. A weight
    that another layer holds too, such as the words of a language model, is resized in both and stays tied, and
    the model's configuration follows.

    Attributes:
        at: the layer.
        inputs: how many channels or features it takes.
        outputs: how many it gives.
        rows: which of its old outputs (features of a norm, entries of an embedding) are kept, in this order,
            before any new ones; the first that fit when left out. Alone, it says the new size too.
        columns: which of its old inputs are kept, in this order; alone, it says the new number of inputs.
        start: what new outputs, features or entries start as: as torch draws them, at zero, or at the mean of all
            old ones, as new words of a vocabulary should.
        drops: how many of its old weights have no place any more; written when the edit is applied.
    """

    written: ClassVar[frozenset[str]] = frozenset({"drops"})
    at: str
    inputs: Count | None = None
    outputs: Count | None = None
    rows: tuple[_Place, ...] = ()
    columns: tuple[_Place, ...] = ()
    start: Literal["drawn", "zero", "mean"] = "drawn"
    drops: Annotated[int, Field(ge=0)] = 0
    _trained: bool = PrivateAttr(default=True)
    _had: int | None = PrivateAttr(default=None)

    @property
    def trained(self) -> bool:
        """Whether the layer is one of the base's, whose weights are worth something."""
        return self._trained

    def untrained(self) -> Self:
        """Say that the layer is new, so that nothing is lost with its weights."""
        made = self.model_copy()
        made._trained = False
        return made

    def followed(self, step: Resize, layer: nn.Module) -> Resize:
        """Let another layer that is resized along with this one keep what belongs to the rows kept here.

        Raises:
            EditError: it can't be told which of its rows or columns do, such as behind a join.
        """
        if not self.rows or not self._had:
            return step
        had, has = self._had, len(self.rows)
        new = (self.inputs if is_single(layer) else self.outputs) or self.inputs or self.outputs or has
        if is_single(layer) or (hasattr(layer, "groups") and depthwise(layer)):
            if gives(layer) == had and new in (step.inputs, step.outputs):
                return step.model_copy(update={"rows": self.rows})
        elif step.outputs is None and step.inputs and (takes(layer) or 0) % had == 0 == step.inputs % new:
            wide = step.inputs // new
            if takes(layer) == had * wide:
                columns = tuple(place * wide + one for place in self.rows for one in range(wide))
                return step.model_copy(update={"columns": columns})
        elif step.inputs is None and (gives(layer), step.outputs) == (had, new):
            return step.model_copy(update={"rows": self.rows})
        raise EditError(
            f"which weights of {step.at} belong to the kept rows of {self.at} can't be told",
            where=step.at,
            hint="resize the layers behind one by one: resize(at, columns=…), together by apply_all",
        )

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not (self.inputs or self.outputs or self.rows or self.columns):
            raise ValueError("a resize names inputs, outputs or both, or the rows or columns that are kept")
        return self

    def apply(self, surgery: Surgery) -> Resize:
        """Build the layer anew and copy what overlaps; the old tensors are not written.

        Raises:
            EditError: the layer has no sizes, or the rows and columns are none of its own or do not fit.
        """
        old = surgery.module(self.at)
        edit = self._complete(old)
        partners = [one for one in _partners(surgery.model, old) if one.module is not old]
        made, kept = edit._renewed(surgery, old, self.at)
        surgery.put(self.at, made)
        surgery.added.pop()
        for partner in partners:
            edit._follow(surgery, old, partner, made)
        told(surgery, self.at, old, made, edit.rows)
        held = sum(parameter.numel() for parameter in old.parameters())
        done = edit.model_copy(update={"drops": max(held - kept, 0) if self.trained else 0})
        done._had = gives(old)
        return done

    def _complete(self, old: nn.Module) -> Resize:
        """Write out the sizes that rows and columns say.

        Raises:
            EditError: they are none of the layer's own, or more than fit.
        """
        rows, columns = gives(old), takes(old)
        self._check("rows", self.rows, rows, self._size_of_rows(old), old)
        self._check("columns", self.columns, columns, self.inputs, old)
        update: dict[str, Any] = {}
        if self.rows and self._size_of_rows(old) is None:
            update["inputs" if is_single(old) else "outputs"] = len(self.rows)
        if self.columns and self.inputs is None:
            update["inputs"] = len(self.columns)
        return self.model_copy(update=update)

    def _size_of_rows(self, old: nn.Module) -> int | None:
        return (self.inputs or self.outputs) if is_single(old) else self.outputs

    def _check(
        self, word: str, asked: tuple[int, ...], size: int | None, room: int | None, old: nn.Module
    ) -> None:
        if not asked:
            return
        grouped = getattr(old, "groups", 1) > 1 and not (
            word == "rows" and depthwise(old) and gives(old) == takes(old)
        )
        apart = grouped or size is None or (word == "columns" and is_single(old))
        odd = [place for place in asked if size is not None and place >= size]
        if apart or odd or len(asked) > (room or len(asked)):
            raise EditError(
                f"{word} of a {type(old).__name__}{' in groups' if grouped else ''} can't be chosen"
                if apart
                else f"{self.at} has {size} {word}, so there is none {odd[0]}"
                if odd
                else f"{len(asked)} {word} do not fit into {room}",
                where=self.at,
                hint="resize it without"
                if apart
                else "they are counted from 0"
                if odd
                else "name fewer, or leave the size out: it follows from what is kept",
            )

    def _renewed(self, surgery: Surgery, old: nn.Module, path: str) -> tuple[nn.Module, int]:

        with drawn_from(surgery.seed):
            plain = resized(old, self.inputs, self.outputs, path)
        first = next((tensor for tensor in old.parameters()), None)
        if first is not None:
            plain = plain.to(device=first.device, dtype=first.dtype)
        flags = {name: parameter.requires_grad for name, parameter in old.named_parameters()}
        for name, parameter in plain.named_parameters():
            parameter.requires_grad_(flags.get(name, True))
        kept = copy_overlap(old, plain, self.rows, self.columns)
        before = gives(old)
        if self.start != "drawn" and before is not None:
            fill(old, plain, len(self.rows) or before, self.start)
        made = _dressed(old, plain, path)
        if "padding_idx" in vars(plain):
            padding = vars(old)["padding_idx"]
            moved = self.rows.index(padding) if padding in self.rows else None
            vars(made)["padding_idx"] = moved if self.rows else vars(plain)["padding_idx"]
        return made, kept

    def _follow(self, surgery: Surgery, old: nn.Module, partner: Slot, made: nn.Module) -> None:
        """Resize another layer that holds the same weight, and tie it again."""
        path = next(path for path, one in surgery.model.named_modules() if one is partner.module)
        turned = is_single(old) != is_single(partner.module)  # an embedding's entries are a linear layer's outputs
        sizes = (self.outputs, self.inputs) if turned else (self.inputs, self.outputs)
        other = self.model_copy(update={"inputs": sizes[0], "outputs": sizes[1]})
        again, _ = other._renewed(surgery, partner.module, path)
        again._parameters[partner.name] = made._parameters["weight"]
        surgery.put(path, again)
        surgery.added.pop()

    def sentence(self) -> str:
        """Say what the sizes are now."""
        parts = [f"{self.inputs} inputs" if self.inputs else "", f"{self.outputs} outputs" if self.outputs else ""]
        kept = [_listed(name, getattr(self, name)) for name in ("rows", "columns") if getattr(self, name)]
        told = f"{self.at} is resized to {' and '.join(part for part in parts if part) or 'what is kept'}"
        return f"{told}, keeping {' and '.join(kept)}" if kept else told


SIZES = frozenset(
    {"in_features", "out_features", "in_channels", "out_channels", "groups", "num_embeddings", "embedding_dim"}
    | {"num_features", "num_channels", "num_groups", "normalized_shape"}
    | {"embed_dim", "kdim", "vdim", "num_heads", "head_dim"}
)
"""Attributes that say how large a layer is."""


def _partners(model: nn.Module, layer: nn.Module) -> list[Slot]:
    """Give who else holds the weight of an embedding or linear layer."""
    from torch import nn

    weight = layer._parameters.get("weight")
    if weight is None or not isinstance(layer, (nn.Linear, nn.Embedding)):
        return []
    return [one for one in holders(model, weight) if isinstance(one.module, (nn.Linear, nn.Embedding))]


def _dressed(old: nn.Module, plain: nn.Module, path: str) -> nn.Module:
    """Give a twin of the old layer, whatever its class, with the sizes and tensors of the plain one."""
    made = twin(old, path)
    for name in SIZES:
        if name in vars(plain):
            vars(made)[name] = vars(plain)[name]
    made._parameters.update(plain._parameters)
    made._buffers.update(plain._buffers)
    made._modules.update({name: part for name, part in plain._modules.items() if name in made._modules})
    return made


def _listed(name: str, places: tuple[int, ...]) -> str:
    return f"{name} {', '.join(map(str, places[:6]))}{', …' if places[6:] else ''}"


def resized(old: nn.Module, inputs: int | None, outputs: int | None, path: str) -> nn.Module:
    """Build a plain layer of torch with the new sizes, newly drawn.

    Raises:
        EditError: the layer is of no kind that has sizes.
    """
    from torch import nn

    for cls in type(old).__mro__:
        if cls is getattr(nn, cls.__name__, None) and cls.__name__ in _KINDS:
            made: nn.Module = cls(**_KINDS[cls.__name__](old, inputs, outputs))
            return made
    raise EditError(
        f"a {type(old).__name__} has no sizes that can be changed",
        where=path,
        hint="merge its adapter first" if is_adapter(old) else "replace it with a module of your own",
    )


def _linear(old: Any, inputs: int | None, outputs: int | None) -> dict[str, Any]:
    sizes = {"in_features": inputs or old.in_features, "out_features": outputs or old.out_features}
    return {**sizes, "bias": old.bias is not None}


def _batch_norm(old: Any, inputs: int | None, outputs: int | None) -> dict[str, Any]:
    kept = ("eps", "momentum", "affine", "track_running_stats")
    return {"num_features": inputs or outputs, **{name: getattr(old, name) for name in kept}}


def _layer_norm(old: Any, inputs: int | None, outputs: int | None) -> dict[str, Any]:
    affine, bias = old.elementwise_affine, getattr(old, "bias", None) is not None
    shape = (*old.normalized_shape[:-1], inputs or outputs)
    return {"normalized_shape": shape, "eps": old.eps, "elementwise_affine": affine, "bias": bias}


def _rms_norm(old: Any, inputs: int | None, outputs: int | None) -> dict[str, Any]:
    shape = (*old.normalized_shape[:-1], inputs or outputs)
    return {"normalized_shape": shape, "eps": old.eps, "elementwise_affine": old.elementwise_affine}


def _group_norm(old: Any, inputs: int | None, outputs: int | None) -> dict[str, Any]:
    size = inputs or outputs or old.num_channels
    groups = max(n for n in range(1, old.num_groups + 1) if size % n == 0)
    return {"num_groups": groups, "num_channels": size, "eps": old.eps, "affine": old.affine}


def _embedding(old: Any, inputs: int | None, outputs: int | None) -> dict[str, Any]:
    sizes = {"num_embeddings": inputs or old.num_embeddings, "embedding_dim": outputs or old.embedding_dim}
    padding = old.padding_idx
    return {**sizes, "padding_idx": padding if padding is None or padding < sizes["num_embeddings"] else None}


def _attention(old: Any, inputs: int | None, outputs: int | None) -> dict[str, Any]:
    """Keep the width of a head where the new size allows it, so that the old heads stay; else their number."""
    size = inputs or outputs or old.embed_dim
    if size % old.head_dim and size % old.num_heads:
        raise EditError(
            f"{size} features can be parted neither into heads of {old.head_dim} nor into {old.num_heads} heads",
            where="attention",
            hint="project them to what the attention takes",
        )
    heads = size // old.head_dim if size % old.head_dim == 0 else old.num_heads
    bias = old.in_proj_bias is not None
    return {
        "embed_dim": size,
        "num_heads": heads,
        "bias": bias,
        "dropout": old.dropout,
        "batch_first": old.batch_first,
    }


def _convolution(old: Any, inputs: int | None, outputs: int | None) -> dict[str, Any]:
    """Keep the geometry; a depthwise convolution stays depthwise, so its outputs follow its inputs."""
    times = old.out_channels // old.in_channels
    follows = depthwise(old) and (times == 1 or outputs is None)
    inputs, outputs, groups = inputs or old.in_channels, outputs or old.out_channels, old.groups
    if follows:
        groups = inputs = inputs if inputs != old.in_channels or times > 1 else outputs
        outputs = inputs * times
    elif groups > 1:
        groups = _groups(old, inputs, outputs)
    kept = ("kernel_size", "stride", "padding", "dilation", "padding_mode")
    sizes = {"in_channels": inputs, "out_channels": outputs, "groups": groups, "bias": old.bias is not None}
    return {**sizes, **{name: getattr(old, name) for name in kept}}


def depthwise(old: Any) -> bool:
    """Tell whether every input channel of a convolution has outputs of its own."""
    return bool(old.groups > 1 and old.groups == old.in_channels and old.out_channels % old.in_channels == 0)


def _groups(old: Any, inputs: int, outputs: int) -> int:
    """Choose groups that hold every old one whole: as wide as before, or so many times wider."""
    wide = old.in_channels // old.groups, old.out_channels // old.groups
    for times in range(1, old.groups):
        side = wide[0] * times, wide[1] * times
        if not inputs % side[0] and not outputs % side[1] and inputs // side[0] == outputs // side[1]:
            return int(inputs // side[0])
    return 1


_KINDS: dict[str, Callable[[Any, int | None, int | None], dict[str, Any]]] = {
    "Linear": _linear,
    "Conv1d": _convolution,
    "Conv2d": _convolution,
    "Conv3d": _convolution,
    "BatchNorm1d": _batch_norm,
    "BatchNorm2d": _batch_norm,
    "BatchNorm3d": _batch_norm,
    "SyncBatchNorm": _batch_norm,
    "LayerNorm": _layer_norm,
    "RMSNorm": _rms_norm,
    "GroupNorm": _group_norm,
    "Embedding": _embedding,
    "MultiheadAttention": _attention,
}
