"""Tables of positions: what ties a model to one image size, interpolated for another.

Three kinds of models: torchvision's VisionTransformer, models with timm's `set_input_size`, which is called on a
copy whose changes are carried over, and any model that adds a parameter to its tokens or its map.
"""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any

from torchgraft.errors import EditError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from torchgraft.surgery.journal import Surgery
    from torchgraft.trace import Trace, Tracer

__all__ = ["resized"]

_ROUNDS = 16
"""So many tables are interpolated before a model is given up."""

_SIZES = ("img_size", "image_size", "input_size", "input_resolution")


def resized(surgery: Surgery, shape: tuple[int, ...]) -> None:
    """Make the model take images of the shape `[N, C, H, W]`; nothing is done where it does already.

    Raises:
        EditError: what ties the model to its size is not understood, or does not go with this one.
    """
    look = _Look(surgery, shape)
    run = look.first()
    if run.mismatch is None:
        return
    ways = [_vision_transformers, _by_themselves, _declared, _added]
    for way in ways:
        before = surgery.count
        way(surgery, look)
        run = look() if surgery.count > before else run
        if run.mismatch is None:
            return
    assert run.mismatch is not None
    raise EditError(
        f"the model can't take images of {shape[2]}×{shape[3]}: {run.mismatch.message.splitlines()[0]}",
        where=run.mismatch.path or "(the model itself)",
        hint="choose a multiple of the size it was made for, or resize the images",
    )


class _Look:
    """Traces the model as it stands under the surgeon's hand, on images of a shape."""

    def __init__(self, surgery: Surgery, shape: tuple[int, ...]) -> None:
        self._surgery = surgery
        self.shape = shape
        self._tracer: Tracer | None = None
        self._last: tuple[int, Trace] | None = None

    def first(self) -> Trace:
        """Give the trace from before the edit, where it was taken on images of this shape."""
        known = self._surgery.look(False)
        same = len(known.inputs) == 1 and known.values[known.inputs[0]].shape == self.shape
        if same and not self._surgery.count:
            self._last = (0, known)
        return self()

    def __call__(self) -> Trace:
        """Trace the model, where it changed since the last time."""
        import torch

        from torchgraft.trace import Tracer

        if self._last is not None and self._last[0] == self._surgery.count:
            return self._last[1]
        model = self._surgery.model
        first = next((one.dtype for one in model.parameters() if one.is_floating_point()), torch.float32)
        self._tracer = self._tracer or Tracer(model)
        run = self._tracer.trace(torch.empty(self.shape, device="meta", dtype=first))
        self._last = (self._surgery.count, run)
        return run


# torchvision


def _vision_transformers(surgery: Surgery, look: _Look) -> None:
    """Interpolate as torchvision's `interpolate_embeddings` does; it takes square images only."""
    from torchvision.models import VisionTransformer

    shape = look.shape
    for module in list(surgery.model.modules()):
        if isinstance(module, VisionTransformer) and shape[2] == shape[3] and shape[2] % module.patch_size == 0:
            side, encoder = shape[2] // module.patch_size, module.encoder
            table = encoder.pos_embedding
            extra = module.seq_length - (module.image_size // module.patch_size) ** 2
            made = _interpolated(table, extra, (side, side), align=True)
            _give(surgery, encoder, "_parameters", "pos_embedding", made)
            surgery.set(module, "seq_length", side**2 + extra)
            surgery.set(module, "image_size", shape[2])


# timm


def _by_themselves(surgery: Surgery, look: _Look) -> None:
    """Call a model's own `set_input_size` on a copy, and carry over what it changed."""
    shape = look.shape
    model: Any = surgery.model
    if not callable(getattr(model, "set_input_size", None)):
        return
    shared = {id(one): one for one in _weights(model)}
    try:
        other = copy.deepcopy(model, dict(shared))
        other.set_input_size(img_size=tuple(shape[2:]))
    except Exception:  # whatever the model's own code raises for a size that it can't take
        return
    theirs = dict(other.named_modules())
    for path, module in list(model.named_modules()):
        if path in theirs and type(theirs[path]) is type(module):
            _carry(surgery, module, theirs[path])


def _weights(model: nn.Module) -> list[Tensor]:
    """List the weights of layers, which no change of the image size touches."""
    from torch import nn

    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    return [one for part in model.modules() if isinstance(part, kinds) for one in part.parameters(recurse=False)]


def _carry(surgery: Surgery, module: nn.Module, other: nn.Module) -> None:
    """Give a module the tensors and plain attributes in which the other one differs."""
    for box in ("_parameters", "_buffers"):
        held, made = vars(module)[box], vars(other)[box]
        new = {name: one if _differs(held.get(name), one) else held.get(name) for name, one in made.items()}
        if held.keys() != new.keys() or any(new[name] is not held[name] for name in new):
            surgery.set(module, box, new)
    for name, value in vars(other).items():
        old = vars(module).get(name)
        if _plain(value) and _plain(old) and name in vars(module) and value != old:
            surgery.set(module, name, value)


def _differs(old: Tensor | None, new: Tensor | None) -> bool:
    import torch

    if old is None or new is None:
        return old is not new
    if old is new or (old.shape == new.shape and old.is_meta):
        return False
    return old.shape != new.shape or not torch.equal(old, new)


def _plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_plain, value))
    return isinstance(value, (int, float, str, bool, type(None)))


# any model


def _declared(surgery: Surgery, look: _Look) -> None:
    """Let attributes that name the image size say the new one: some models only compare with it."""
    shape = look.shape
    for module in surgery.model.modules():
        for name in _SIZES:
            value = vars(module).get(name)
            new = _same_form(value, shape[2:])
            if new is not None and new != value:
                surgery.set(module, name, new)


def _same_form(value: Any, size: tuple[int, ...]) -> Any:
    if isinstance(value, int) and not isinstance(value, bool) and size[0] == size[1]:
        return size[0]
    if isinstance(value, (list, tuple)) and len(value) == 2 and all(isinstance(one, int) for one in value):
        return list(size) if isinstance(value, list) else tuple(size)
    return None


def _added(surgery: Surgery, look: _Look) -> None:
    """Interpolate each parameter that is added to tokens or to a map of another size."""
    from torchgraft.surgery.forward import plain

    shape = look.shape
    met: set[str] = set()
    for _ in range(_ROUNDS):
        run = look()
        at = run.mismatch
        if at is None or plain(at.op) not in ("add", "mul") or len(at.params) != 1 or len(at.inputs) != 1:
            return
        name = at.params[0]
        home, _, own = name.rpartition(".")
        module = surgery.module(home) if home else surgery.model
        box = "_parameters" if own in module._parameters else "_buffers"
        made = _for_arrived(vars(module)[box][own], run.values[at.inputs[0]].shape, shape[2:])
        if made is None or name in met:
            return
        met.add(name)
        _give(surgery, module, box, own, made)


def _for_arrived(table: Tensor, arrives: tuple[int, ...], size: tuple[int, ...]) -> Tensor | None:
    """Interpolate a table for what arrives; None where it holds no positions."""
    if table.dim() == 4 and len(arrives) == 4 and table.shape[1] == arrives[1]:
        return _stretched(table, (arrives[2], arrives[3]), align=False)
    if table.dim() == 4 and len(arrives) == 4 and table.shape[-1] == arrives[-1]:
        return _stretched(table.permute(0, 3, 1, 2), (arrives[1], arrives[2]), align=False).permute(0, 2, 3, 1)
    if table.dim() not in (2, 3) or len(arrives) != 3 or table.shape[-1] != arrives[-1]:
        return None
    tokens, wanted = table.shape[-2], arrives[-2]
    for extra in range(min(tokens, wanted)):
        side = math.isqrt(tokens - extra)
        grid = _grid(wanted - extra, size)
        if side * side == tokens - extra and grid is not None:
            return _interpolated(table, extra, grid, align=False)
    return None


def _grid(cells: int, size: tuple[int, ...]) -> tuple[int, int] | None:
    """Give the grid of so many cells with the proportions of the image; None where there is none."""
    height = math.isqrt(cells * size[0] // size[1])
    if height and cells % height == 0 and height * size[1] == cells // height * size[0]:
        return height, cells // height
    return None


def _interpolated(table: Tensor, extra: int, grid: tuple[int, int], *, align: bool) -> Tensor:
    """Interpolate a table of tokens `[…, extra + h·w, D]` of a square grid; the extra tokens stay."""
    import torch

    with torch.no_grad():
        flat = table.reshape(-1, table.shape[-2], table.shape[-1])
        side = math.isqrt(flat.shape[1] - extra)
        plane = flat[:, extra:].transpose(1, 2).reshape(flat.shape[0], -1, side, side)
        new = _stretched(plane, grid, align=align).flatten(2).transpose(1, 2)
        return torch.cat([flat[:, :extra], new], dim=1).reshape(*table.shape[:-2], -1, table.shape[-1])


def _stretched(plane: Tensor, size: tuple[int, int], *, align: bool) -> Tensor:
    import torch
    from torch.nn import functional

    with torch.no_grad():
        made = functional.interpolate(plane.detach().float(), size=size, mode="bicubic", align_corners=align)
        return made.to(plane.dtype)


def _give(surgery: Surgery, module: nn.Module, box: str, name: str, tensor: Tensor) -> None:
    """Hold another tensor in the place of a parameter or buffer."""
    from torch import nn

    held = vars(module)[box]
    old = held[name]
    new = nn.Parameter(tensor, requires_grad=old.requires_grad) if isinstance(old, nn.Parameter) else tensor
    surgery.set(module, box, {**held, name: new})
