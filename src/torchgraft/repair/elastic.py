"""A pass on fake tensors that does not break where sizes disagree: it resizes what disagrees, and goes on.

Every layer that meets a size it does not take is resized in the copy that runs; so one pass finds all consumers of
a new shape, where a trace would find the first. Where two tensors meet and disagree, the layers that decide the
size of the one that did not change are resized. What can't be resized is given what it took before: a projection
is noted in front of it, or behind what made the tensor.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from torchgraft.repair.agree import agreeing, changed_behind, climbed, disagreeing, put, shapes_of
from torchgraft.repair.bench import LAYERS, NORMS, held_size, within
from torchgraft.repair.flow import LAST_OPS, NORM_OPS, WEIGHTED_OPS, Node, dims_of, sources
from torchgraft.repair.ghosts import fake_inputs
from torchgraft.repair.mould import Mould
from torchgraft.rng import rng_kept
from torchgraft.trace import Trace, Value
from torchgraft.trace.quiet import unprinted
from torchgraft.trace.tree import tensors

__all__ = ["Elastic", "Shapes"]

_TRIES = 12
"""So often one call is tried again after something in it was resized."""

_PAIRS = 64
"""So many tensors that meet in one operation are made to agree."""

_MEETS = frozenset(
    {"add", "add_", "__add__", "__iadd__", "__radd__", "sub", "sub_", "__sub__", "__isub__", "__rsub__"}
    | {"mul", "mul_", "__mul__", "__imul__", "__rmul__", "div", "__truediv__", "maximum", "minimum", "lerp"}
    | {"addcmul", "where", "cat", "concat"}
)
"""Operations where tensors meet that must agree in size."""

Shapes = tuple[tuple[int, ...], tuple[int, ...]]
"""What arrives, and what is wanted: the two sides of a projection."""


class _AnewError(BaseException):
    """What has been run already gives something else now: the pass is to be made again."""


class _AgainError(Exception):
    """Something of a frame was resized: its call is to be made again."""

    def __init__(self, frame: _Frame) -> None:
        super().__init__(frame.path)
        self.frame = frame


@dataclass(eq=False)
class _Frame:
    """A module call that is under way."""

    path: str
    module: nn.Module
    number: int
    failing: list[Node] = field(default_factory=list)
    last: Node | None = None


class Elastic(TorchFunctionMode):
    """Runs a fake copy of a model until its sizes agree, and keeps what that took.

    Attributes:
        mould: the copy, which keeps what was resized in it.
        fronts: modules in front of which a projection stands.
        backs: modules behind which one stands.

    Args:
        model: the model; it is copied, never run.
        before: a trace from before the edit, which says what every place was given and gave.
        place: where the edit put a module.
        wanted: what the place gave before.
        inside: change nothing outside of the place, and put no projection anywhere.
        partners: where two tensors meet, resize the layers that made the one that did not change; without, the
            changed one is projected.
    """

    def __init__(
        self,
        model: nn.Module,
        before: Trace,
        place: str,
        wanted: Value | None = None,
        *,
        inside: bool = False,
        partners: bool = True,
    ) -> None:
        super().__init__()
        self.before = before
        self.place = place
        self._inside = inside
        self._partners = partners
        self._gave, self._given = shapes_of(before, "gave"), shapes_of(before, "given")
        self._restores = wanted is not None and all(before.values[n] is not wanted for n in before.outputs)
        if wanted is not None:
            self._gave[place] = [[wanted.shape]]
        self.fronts: dict[str, Shapes] = {}
        self.backs: dict[str, Shapes] = {}
        self.mould = Mould(model)
        self._alive: list[Tensor] = []
        self._nodes: dict[int, Node] = {}
        self._stands: dict[int, Tensor] = {}  # what a tensor would be, once what makes it is changed
        self._stack: list[_Frame] = []
        self._counts: dict[str, int] = {}
        self._touched = False
        for path, module in self.mould.modules.items():
            module.__dict__["forward"] = self._wrapped(module.forward, path, module)

    # passes

    def settle(self, *, train: bool, rounds: int = 24) -> bool:
        """Run passes until one changes nothing more; tell whether it then runs to the end."""
        self.mould.twin.train(train)
        for _ in range(rounds):
            self._touched = False
            runs = self._pass()
            if not self._touched:
                return runs
        return False

    def _pass(self) -> bool:
        self._nodes, self._counts, self._stack, self._stands = {}, {}, [], {}
        self._alive = self.mould.tensors()
        with rng_kept(), unprinted(), torch.no_grad(), self.mould.mode:
            inputs = fake_inputs(self.before, self.mould.mode)
            for one in inputs:
                self._note(one, Node(tuple(one.shape)))
            try:
                with self:
                    result = self.mould.twin(*inputs)
            except (_AnewError, Exception):  # whatever the model raises: the check that follows says it
                return False
        self._outputs_restored(result)
        return True

    def _outputs_restored(self, result: Any) -> None:
        """See to it that what the model gives has the shape it had."""
        if self._restores and not self.mould.twin.training:
            nodes = [self._nodes[id(one)] for one in tensors(result) if id(one) in self._nodes]
            shapes = self.before.output_shapes()
            if len(nodes) == len(shapes) == 1 and nodes[0].shape != shapes[0]:
                self._touched = self._behind(climbed(nodes[0]), shapes[0]) or self._touched

    # module calls

    def _wrapped(self, forward: Callable[..., Any], path: str, module: nn.Module) -> Callable[..., Any]:
        @functools.wraps(forward)
        def call(*args: Any, **kwargs: Any) -> Any:
            number = self._counts.get(path, 0)
            self._counts[path] = number + 1
            frame = _Frame(path, module, number)
            self._stack.append(frame)
            try:
                result = self._called(frame, forward, args, kwargs)
            finally:
                del self._stack[self._stack.index(frame) :]
            return self._left(frame, result)

        return call

    def _called(self, frame: _Frame, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        for _ in range(_TRIES):
            try:
                return forward(*self._entered(frame, args), **kwargs)
            except _AgainError as again:
                if again.frame is not frame:
                    raise
            except Exception:  # whatever the forward raises for want of agreement
                if not self._remedied(frame, args, kwargs):
                    raise
            self._recount(frame)
        return forward(*self._entered(frame, args), **kwargs)

    def _recount(self, frame: _Frame) -> None:
        """Forget the calls inside of a call that is made again."""
        for path in list(self._counts):
            if path != frame.path and within(path, frame.path) and frame.path:
                del self._counts[path]
        if not frame.path:
            self._counts = {"": 1}

    def _entered(self, frame: _Frame, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Put what a projection in front of a module gives in place of its first argument."""
        if frame.path not in self.fronts or not args or not isinstance(args[0], Tensor):
            return args
        wanted = self.fronts[frame.path][1]
        self.fronts[frame.path] = (tuple(args[0].shape), wanted)
        return (self._projected(args[0], wanted), *args[1:])

    def _projected(self, given: Tensor, shape: tuple[int, ...], *, changed: bool = False) -> Tensor:
        if tuple(given.shape) == shape:
            return given
        made = self._empty(shape, given)
        node = Node(shape, op="projection", inputs=(self._node(given),), changed=changed)
        return self._note(made, node)

    def _empty(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        with torch._C.DisableTorchFunction():
            return torch.empty(shape, dtype=like.dtype, device=like.device)

    def _left(self, frame: _Frame, result: Any) -> Any:
        """Compare what a call gave with what it gave before the edit, or project it to that."""
        if frame.path in self.backs and isinstance(result, Tensor):
            wanted = self.backs[frame.path][1]
            self.backs[frame.path] = (tuple(result.shape), wanted)
            result = self._projected(result, wanted)
        calls = self._gave.get(frame.path, [])
        shapes = calls[frame.number] if frame.number < len(calls) else []
        for number, one in enumerate(tensors(result)):
            node = self._node(one)
            if isinstance(result, Tensor):
                node.gave.append(frame.path)
            if number < len(shapes):
                node.changed = tuple(one.shape) != shapes[number]
        return result

    # operations

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = str(getattr(func, "__name__", func))
        try:
            result = func(*args, **kwargs)
        except Exception:
            if not self._stack:
                raise
            frame = self._stack[-1]
            frame.failing = [self._node(one) for one in tensors((args, kwargs))]
            args, kwargs = self._mended(frame, name, args, kwargs)
            result = func(*args, **kwargs)
            frame.failing = []
        self._record(name, args, kwargs, result)
        return result

    def _record(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        if not tensors(result):
            return
        nodes = tuple(self._node(one) for one in tensors((args, kwargs)))
        path, dims = self._stack[-1].path if self._stack else "", dims_of(name, args, kwargs)
        changed = any(node.changed for node in nodes)
        for one in tensors(result):
            node = Node(tuple(one.shape), name, path, nodes, dims, changed=changed)
            self._note(one, node)
            if self._stack:
                self._stack[-1].last = node

    def _node(self, tensor: Tensor) -> Node:
        if id(tensor) not in self._nodes:
            self._note(tensor, Node(tuple(tensor.shape), param=self.mould.names.get(id(tensor))))
        return self._nodes[id(tensor)]

    def _note(self, tensor: Tensor, node: Node) -> Tensor:
        if id(tensor) not in self._nodes:
            self._alive.append(tensor)  # an id must not be used again while the pass runs
        self._nodes[id(tensor)] = node
        return tensor

    # what disagrees

    def _mended(
        self, frame: _Frame, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Give arguments with which an operation works that failed, if there are any."""
        if self._inside and not within(frame.path, self.place):
            return args, kwargs
        if self._leaf_fitted(frame, name, args):
            self._touched = True
            raise _AgainError(frame)
        args, kwargs = put(args, self._stands), put(kwargs, self._stands)
        axis = dims_of(name, args, kwargs)
        for _ in range(_PAIRS if name in _MEETS else 0):
            given = tensors((args, kwargs))
            pair = disagreeing([tuple(one.shape) for one in given], axis[0] if axis else None)
            changed = None if pair is None else self._met(frame, given[pair[0]], given[pair[1]], axis)
            if changed is None:
                break
            self._touched = True
            self._stands |= changed
            args, kwargs = put(args, changed), put(kwargs, changed)
        return args, kwargs

    def _leaf_fitted(self, frame: _Frame, name: str, args: tuple[Any, ...]) -> bool:
        """Resize the layer or norm that was called, if what arrives is what it does not take."""
        layer = frame.module
        attention = isinstance(layer, nn.MultiheadAttention) and name == "multi_head_attention_forward"
        fits = isinstance(layer, (*LAYERS, *NORMS)) and name in (*WEIGHTED_OPS, *NORM_OPS)
        arrives = next(iter(tensors(args)), None)
        if not (fits or attention) or arrives is None or arrives.dim() < 2:
            return False
        if isinstance(layer, LAYERS[1:]) and arrives.dim() != layer.weight.dim():
            return False
        size = int(arrives.shape[-1 if name in LAST_OPS or attention else 1])
        return size != held_size(layer) and self.mould.resize(frame.path, inputs=size)

    def _met(
        self, frame: _Frame, one: Tensor, other: Tensor, axis: tuple[int, ...] | None
    ) -> dict[int, Tensor] | None:
        """Make two tensors agree that meet; give the one that stands in for one of them by its id."""
        pairs = [(one, other), (other, one)]
        pairs.sort(key=lambda pair: (not self._node(pair[0]).constant, self._node(pair[0]).changed))
        for mine, theirs in pairs:
            wanted = agreeing(tuple(mine.shape), tuple(theirs.shape), axis[0] if axis else None)
            if wanted and self._resized_to(frame, mine, wanted):
                return {id(mine): self._projected(mine, wanted, changed=True)}
        for mine, theirs in () if self._inside else pairs[::-1]:
            wanted = agreeing(tuple(mine.shape), tuple(theirs.shape), axis[0] if axis else None)
            if wanted and self._behind(climbed(self._node(mine)), wanted):
                return {id(mine): self._projected(mine, wanted)}
        return None

    def _resized_to(self, frame: _Frame, tensor: Tensor, wanted: tuple[int, ...]) -> bool:
        """Resize what decides the size of the dimensions that differ."""
        node = self._node(tensor)
        dims = [dim for dim, size in enumerate(tensor.shape) if size != wanted[dim]]
        if not node.constant and (len(dims) > 1 or not (self._partners or within(frame.path, self.place))):
            return False
        inside = within(frame.path, self.place)

        def allowed(path: str) -> bool:
            return within(path, self.place) == inside

        for dim in dims:
            found = sources(node, dim, self.mould.modules, allowed)
            if not found or not all(self.mould.may(source, wanted[dim]) for source in found):
                return False
            for source in found:
                self.mould.apply(source, wanted[dim])
        return True

    # where nothing can be resized

    def _remedied(self, frame: _Frame, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Give a call that failed what it was given before, by a projection in front of it or of an operation."""
        if self._inside:
            return False
        # Where it is Python's own code that fails, such as an unpacking, the last operation led to it.
        failing, frame.failing = frame.failing or [one for one in (frame.last,) if one is not None], []
        if self._in_front(frame, args):
            self._touched = True
            return True
        if any(self._behind(changed_behind(node), None) for node in failing):
            self._touched = True
            raise _AnewError
        return False

    def _in_front(self, frame: _Frame, args: tuple[Any, ...]) -> bool:
        calls = self._given.get(frame.path, [])
        if len(calls) != 1 or frame.path in self.fronts or not args or not isinstance(args[0], Tensor):
            return False
        if within(self.place, frame.path) or not calls[0]:
            return False
        wanted, arrives = calls[0][0], tuple(args[0].shape)
        if wanted == arrives or wanted[:1] != arrives[:1]:
            return False
        self.fronts[frame.path] = (arrives, wanted)
        return True

    def _behind(self, nodes: Iterator[Node], wanted: tuple[int, ...] | None) -> bool:
        """Note a projection behind the first module that gave one of the tensors; None: to what it gave before."""
        for one in nodes:
            for path in filter(None, one.gave[::-1]):
                calls = self._gave.get(path, [])
                if len(calls) != 1 or len(calls[0]) != 1:
                    continue
                shape = wanted or calls[0][0]
                known = self.backs.get(path)
                decided = known is not None and (wanted is not None or known[1] == shape)
                if not decided and shape != one.shape and shape[:1] == one.shape[:1]:
                    self.backs[path] = (one.shape, shape)
                    return True
        return False
