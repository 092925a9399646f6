"""See what the layers of a model give, are given, and get back: `with g.capture("layer2") as seen:`."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from torchgraft.errors import TorchgraftError
from torchgraft.features.keeping import Keeping, lasting, storages
from torchgraft.features.layout import Sides
from torchgraft.features.seen import Record, Seen, places
from torchgraft.features.stopping import Awaited, Watch, awaited
from torchgraft.probes.arguments import is_named
from torchgraft.rng import rng_kept
from torchgraft.select import modules
from torchgraft.trace.tree import mapped, tensors

if TYPE_CHECKING:
    from torchgraft.graft import Graft
    from torchgraft.trace import Trace

__all__ = ["Capture", "capture"]

_WRAPPERS = (DataParallel, DistributedDataParallel)
_FAKE = torch._C._TorchDispatchModeKey.FAKE


def capture(
    of: Graft | nn.Module,
    *at: str,
    inputs: bool = False,
    gradients: bool = False,
    detach: bool = True,
    device: str | torch.device | None = None,
    samples: slice | Sequence[int] | None = None,
    channels: slice | Sequence[int] | None = None,
    part: Callable[[Tensor], Tensor] | None = None,
    stop: bool = True,
) -> Capture:
    """See what layers give: `with g.capture("layer2", "layer3.*") as seen: g.module(x)`, then `seen["layer2"]`.

    What was seen is of the latest pass: another pass of the model begins anew.

    Args:
        of: a graft, or any module; one that torch compiled runs uncompiled inside of the block.
        at: selectors of modules; all of them where none is named.
        inputs: see what the layers are given instead.
        gradients: see what comes back in a backward pass too, as `seen.gradients["layer2"]`: also where every
            parameter before the layer is frozen.
        detach: take values out of the autograd graph; otherwise a loss can be made of them.
        device: where the values go, such as "cpu"; they stay where they are unless it is said.
        samples: which samples to keep, such as `slice(0, 4)` or `[0, 3]`.
        channels: which channels to keep.
        part: what else to take of each tensor, such as `lambda one: one.mean((2, 3))`.
        stop: end a pass in evaluation mode as soon as all is seen, where the graft's trace tells that nothing
            asked for follows. The model has no output then. A bare module is never stopped.

    Raises:
        SelectionError: a selector matches no module.
    """
    keeping = Keeping(samples, channels, None if device is None else torch.device(device), part)
    return Capture(of, at, keeping, inputs=inputs, gradients=gradients, detach=detach, stop=stop)


class Capture(AbstractContextManager[Seen]):
    """Hooks on the layers asked for, as long as the `with` block lasts; see `capture`.

    Attributes:
        module: the model itself, without what wraps it.
    """

    def __init__(
        self,
        of: Graft | nn.Module,
        at: Sequence[str],
        keeping: Keeping,
        *,
        inputs: bool,
        gradients: bool,
        detach: bool,
        stop: bool,
    ) -> None:
        self._graft = None if isinstance(of, nn.Module) else of
        self.module, prefixes = _unwrapped(of if isinstance(of, nn.Module) else of.module)
        self._at = tuple(_stripped(one, prefixes, self.module) for one in at)
        self._keeping, self._inputs, self._gradients, self._detach = keeping, inputs, gradients, detach
        self._stop = stop and not gradients
        self._open: ExitStack | None = None
        self._awaited: Awaited | None = None
        self._held: set[int] = set()
        self._arguments: set[int] = set()
        self._sides = Sides(None)
        self.chosen = self._select()
        aliases = {alias: path for path, names, _ in self.chosen for alias in names}
        self.seen = Seen(aliases, self._title, self.run)

    @property
    def _title(self) -> str:
        return self._graft.name if self._graft is not None else type(self.module).__name__

    def _select(self) -> list[tuple[str, list[str], nn.Module]]:
        """Give each module that is asked for once, with its first path and all of its names."""
        roles = self._graft.roles if self._graft is not None else None
        found = modules(self.module, self._at or "**", roles=roles)
        chosen: dict[int, list[str]] = {}
        wanted = {id(self.module.get_submodule(path)) for path in found}
        for path, module in self.module.named_modules(remove_duplicate=False):
            if id(module) in wanted:
                chosen.setdefault(id(module), []).append(path)
        return [(names[0], names, self.module.get_submodule(names[0])) for names in chosen.values()]

    # the block

    def __enter__(self) -> Seen:
        if self._open is not None:
            raise TorchgraftError("this capture is open already", where="capture", hint="make one for each block")
        self.seen.clear()
        trace = self._trace()
        self._sides = Sides(trace)
        self._awaited = self._told_by(trace)
        self._held = storages(*self.module.parameters(), *self.module.buffers())
        with ExitStack() as opened:
            opened.enter_context(_eager())
            watch = Watch.of(self.module)
            watch.join(self, stops=self._awaited is not None)
            opened.callback(watch.leave, self)
            handle = self.module.register_forward_pre_hook(self._begin, with_kwargs=True, prepend=True)
            opened.callback(handle.remove)
            for path, _, module in self.chosen:
                opened.callback(self._hook(path, module, watch).remove)
            self._open = opened.pop_all()
        return self.seen

    def __exit__(self, *_: object) -> None:
        opened, self._open = self._open, None
        if opened is not None:
            opened.close()

    @property
    def over(self) -> bool:
        """Whether this pass has nothing more to show."""
        return self._awaited is not None and self._awaited.over

    def _trace(self) -> Trace | None:
        """Give the graft's trace, where it is of use and can be had."""
        keeping = self._keeping
        if self._graft is None or not (self._useful_to_stop() or keeping.channels or keeping.measured):
            return None
        try:
            return self._graft.trace()
        except TorchgraftError:  # its input is not known: nothing is stopped then
            return None

    def _useful_to_stop(self) -> bool:
        """Tell whether a part of the model may follow all that is asked for."""
        chosen = {id(module) for _, _, module in self.chosen}
        return self._stop and any(id(one) not in chosen for one in self.module.children())

    def _told_by(self, trace: Trace | None) -> Awaited | None:
        if trace is None or not self._useful_to_stop():
            return None
        return awaited(trace, {path for path, _, _ in self.chosen}, inputs=self._inputs)

    def _hook(self, path: str, module: nn.Module, watch: Watch) -> Any:
        hook = functools.partial(self._before if self._inputs else self._after, path, watch)
        if self._inputs:
            return module.register_forward_pre_hook(hook, with_kwargs=True)
        return module.register_forward_hook(hook)

    # in a pass

    def _begin(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        if not _aside():
            self.seen.clear()
            self._arguments = storages(*tensors((args, kwargs)))
            if self._awaited is not None:
                self._awaited.begin(module, (args, kwargs))

    def _before(self, path: str, watch: Watch, module: nn.Module, args: Any, kwargs: Any) -> Any:
        if _aside():
            return None
        named = {**{str(place): one for place, one in enumerate(args)}, **kwargs}
        alone = args[0] if len(args) == 1 and not kwargs else named if kwargs else args
        passed = self._note(path, module, alone)
        self._look(path, watch)
        if passed is alone:
            return None
        if not kwargs:
            return (passed,) if len(args) == 1 else passed, {}
        return tuple(passed[str(place)] for place in range(len(args))), {name: passed[name] for name in kwargs}

    def _after(self, path: str, watch: Watch, module: nn.Module, args: Any, output: Any) -> Any:
        if _aside():
            return None
        passed = self._note(path, module, output)
        self._look(path, watch)
        return None if passed is output else passed

    def _look(self, path: str, watch: Watch) -> None:
        if self._awaited is not None:
            self._awaited.saw(path)
            if self._awaited.over:
                watch.look(path)

    def _note(self, path: str, module: nn.Module, value: Any) -> Any:
        """Write a value down, and give what goes on through the model in its stead: mostly itself."""
        side = self._sides.of(path)
        held = self._held | self._arguments
        if self._detach and not self._gradients:
            kept = mapped(lambda one: self._keeping.detached(one, side(one), held), value)
            self.seen.add(path, type(module).__name__, kept, dict(places(kept)))
            return value
        pairs = [self._live(one, side(one), held) for one in tensors(value)]
        kept = _put(value, [kept for _, kept, _ in pairs])
        record = self.seen.add(path, type(module).__name__, kept, dict(places(kept)))
        if self._gradients:
            self._await_gradients(record, [source for source, _, _ in pairs], side)
        if all(source is passed for source, _, passed in pairs):
            return value
        return _put(value, [passed for _, _, passed in pairs])

    def _live(self, tensor: Tensor, side: int, held: set[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Give a tensor in the graph, what is kept of it, and what goes on, which alone is written to."""
        grows = torch.is_grad_enabled() and (tensor.is_floating_point() or tensor.is_complex())
        if grows and self._gradients and not tensor.requires_grad:
            tensor = lasting(tensor.detach(), held).requires_grad_()
        if not grows or not tensor.requires_grad:
            return tensor, self._keeping.detached(tensor, side, held), tensor
        passed = lasting(tensor, held)
        kept = self._keeping.detached(tensor, side, held) if self._detach else self._keeping.of(tensor, side)
        return tensor, kept, passed

    def _await_gradients(self, record: Record, sources: list[Tensor], side: Callable[[Tensor], int]) -> None:
        if not torch.is_grad_enabled():
            self.seen.why_no_gradient = "the pass ran under no_grad: run it with gradients on"
        for place, source in zip(record.tensors, sources, strict=True):
            if source.requires_grad:
                record.sources.append(source)
                source.register_hook(  # type: ignore[no-untyped-call]
                    functools.partial(self._came, record, place, side(source))
                )

    def _came(self, record: Record, place: str, side: int, gradient: Tensor) -> None:
        kept = self._keeping.detached(gradient, side, frozenset())
        before = record.gradients.get(place)
        record.gradients[place] = kept if before is None else before + kept

    # running

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model in evaluation mode and leave it as it was: flags, buffers, random numbers.

        Gradients are off, unless they or live values are asked for. Tensors are moved to the model's device.

        Args:
            args: what the forward takes; a dict of arguments by name goes in by name.
            kwargs: further arguments by name.

        Returns:
            the output; what tells so where the pass was stopped.
        """
        if len(args) == 1 and not kwargs and is_named(args[0], self.module):
            named: dict[str, Any] = dict(args[0])
            return self._run((), named)
        return self._run(args, kwargs)

    def _run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        first = next(self.module.parameters(), None)
        if first is not None:
            args, kwargs = mapped(lambda one: one.to(first.device), (args, kwargs))
        grad = self._gradients or not self._detach
        with ExitStack() as opened:
            if self._open is None:
                opened.enter_context(self)
            opened.enter_context(still(self.module))
            opened.enter_context(torch.inference_mode(False) if grad else ExitStack())
            opened.enter_context(torch.set_grad_enabled(grad))
            return self.module(*args, **kwargs)


@contextmanager
def still(module: nn.Module) -> Iterator[None]:
    """Put a model in evaluation mode, and put its flags, buffers and the random numbers back afterwards."""
    flags = [(one, one.training) for one in module.modules()]
    homes = [(one._buffers, dict(one._buffers)) for one in module.modules()]
    buffers = [(one, one._version, one.detach().clone()) for one in module.buffers() if not one.is_inference()]
    try:
        with rng_kept():
            module.eval()
            yield
    finally:
        for one, flag in flags:
            one.training = flag
        for home, held in homes:
            home.update(held)
        with torch.no_grad():
            for buffer, version, before in buffers:
                if buffer._version != version:
                    buffer.copy_(before)


def _unwrapped(module: nn.Module) -> tuple[nn.Module, tuple[str, ...]]:
    """Give the model inside of what torch wraps around it, and the names that such paths begin with."""
    prefixes: tuple[str, ...] = ()
    while True:
        if isinstance(module, _WRAPPERS):
            module, prefixes = module.get_submodule("module"), (*prefixes, "module.")
        elif isinstance(inner := vars(module).get("_modules", {}).get("_orig_mod"), nn.Module):
            module, prefixes = inner, (*prefixes, "_orig_mod.")
        else:
            return module, prefixes


def _stripped(selector: str, prefixes: Sequence[str], module: nn.Module) -> str:
    for prefix in prefixes:
        if prefix[:-1] not in module._modules:
            selector = selector.removeprefix(prefix)
    return selector


def _put(tree: Any, new: Sequence[Tensor]) -> Any:
    """Build a structure again with other tensors, in the order of `tensors`."""
    left = iter(new)
    return mapped(lambda _: next(left), tree)


def _aside() -> bool:
    """Tell whether this is no pass of the user's: a checkpoint computes again, or fake tensors trace the model."""
    return torch._C._current_graph_task_id() != -1 or torch._C._get_dispatch_mode(_FAKE) is not None


def _eager() -> AbstractContextManager[Any]:
    """Keep compiled functions from running, since they know of no hooks; where none were, do nothing."""
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else ExitStack()
