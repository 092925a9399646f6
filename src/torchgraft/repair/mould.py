"""A fake copy of a model whose layers and raw parameters can be given other sizes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily

from torchgraft.edits.resize import SIZES, Resize, resized
from torchgraft.errors import EditError
from torchgraft.repair.bench import gives_size, held_size, within
from torchgraft.repair.flow import Source
from torchgraft.repair.ghosts import ghost
from torchgraft.trace.ghost import fake

__all__ = ["Mould", "Table"]


@dataclass(frozen=True)
class Table:
    """The new shape of a raw parameter, the dimensions that changed, and whether it multiplies what it meets."""

    shape: tuple[int, ...]
    dims: tuple[int, ...]
    scales: bool


class Mould:
    """A copy of a model that takes other sizes, and keeps which.

    Attributes:
        twin: the copy.
        modules: its modules by path.
        names: the names of its parameters and buffers by `id`.
        sizes: layers that got other sizes: their inputs and outputs.
        params: raw parameters that got another shape.
    """

    def __init__(self, model: nn.Module) -> None:
        self.mode = FakeTensorMode(allow_non_fake_inputs=True)
        self.twin, self.names = ghost(model, self.mode)
        self.modules = dict(self.twin.named_modules())
        self.sizes: dict[str, tuple[int | None, int | None]] = {}
        self.params: dict[str, Table] = {}
        self._alive: list[Tensor] = []  # an id must not be used again

    def tensors(self) -> list[Tensor]:
        """Give all parameters and buffers."""
        return [*self.twin.parameters(), *self.twin.buffers()]

    def resizes(self, model: nn.Module, place: str) -> list[Resize]:
        """List what changed in the end: a layer may have been resized to and fro. What lies in `place` is new."""
        modules = dict(model.named_modules())
        steps = []
        for path, (inputs, outputs) in self.sizes.items():
            takes = inputs if inputs != held_size(modules[path]) else None
            gives = outputs if outputs != gives_size(modules[path]) else None
            if takes or gives:
                step = Resize(at=path, inputs=takes, outputs=gives)
                steps.append(step.untrained() if within(path, place) else step)
        return steps

    def resize(self, path: str, *, inputs: int | None = None, outputs: int | None = None) -> bool:
        """Give a layer other sizes; tell whether that can be."""
        layer = self.modules[path]
        had = self.sizes.get(path, (None, None))
        if inputs is None and had[1] is not None and had[1] != outputs:
            return False  # it was decided otherwise already
        try:
            with unset_fake_temporarily(), torch._C.DisableTorchFunction(), torch.device("meta"):
                plain = resized(layer, inputs, outputs, path)
        except EditError:
            return False
        if outputs is not None and gives_size(plain) not in (None, outputs):
            return False
        self._dress(layer, plain, path)
        self.sizes[path] = (inputs or had[0], outputs or had[1])
        return True

    def _dress(self, layer: nn.Module, plain: nn.Module, path: str) -> None:
        for name in SIZES & vars(plain).keys():
            vars(layer)[name] = vars(plain)[name]
        for name, part in plain.named_children():
            if name in layer._modules:
                self._dress(layer.get_submodule(name), part, f"{path}.{name}")
        for box in ("_parameters", "_buffers"):
            for name, tensor in vars(plain)[box].items():
                if tensor is not None:
                    self._hold(layer, box, name, tensor, path)

    def _hold(self, holder: nn.Module, box: str, name: str, tensor: Tensor, path: str) -> None:
        old = vars(holder)[box].get(name)
        twin = fake(self.mode, tensor if old is None else tensor.to(old.dtype))
        if box == "_parameters":
            twin._is_param = True  # isinstance(twin, nn.Parameter) must hold
        if old is not None:
            self._alive.append(old)
        vars(holder)[box][name] = twin
        self.names[id(twin)] = f"{path}.{name}" if path else name

    def may(self, source: Source, size: int) -> bool:
        """Tell whether a layer or parameter may get a size: not if it was given another one before."""
        if source.param:
            known = self.params.get(source.param)
            return known is None or source.dim not in known.dims or known.shape[source.dim] == size
        return self.sizes.get(source.path, (None, None))[1] in (None, size)

    def apply(self, source: Source, size: int) -> None:
        """Give a layer's outputs, or one dimension of a parameter, another size."""
        if source.path:
            self.resize(source.path, outputs=size)
            return
        home, _, name = source.param.rpartition(".")
        holder = self.modules[home]
        box = "_parameters" if name in holder._parameters else "_buffers"
        old = vars(holder)[box][name]
        shape = (*old.shape[: source.dim], size, *old.shape[source.dim + 1 :])
        known = self.params.get(source.param, Table(shape, (), scales=False))
        self.params[source.param] = Table(shape, (*known.dims, source.dim), scales=known.scales or source.scales)
        with unset_fake_temporarily(), torch._C.DisableTorchFunction():
            made = torch.empty(shape, dtype=old.dtype, device="meta")
        self._hold(holder, box, name, made, home)
