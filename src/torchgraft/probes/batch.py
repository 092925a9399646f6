"""A few samples out of whatever holds data: a batch, a dict, a Dataset, a DataLoader, any iterable of batches."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from torchgraft.errors import DataError
from torchgraft.probes.arguments import is_named, several
from torchgraft.wording import named

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["READ", "TARGETS", "Batch", "Lengths", "first_batch"]

TARGETS = ("labels", "label", "targets", "target", "y")
"""What the targets are called in a batch that is a dict."""

INPUTS = ("pixel_values", "images", "image", "inputs", "input", "x", "data")
"""What a single input is called in a batch that is a dict, where the model calls it otherwise."""

READ = 16
"""So many samples are read from a data set, spread over its length."""


@dataclass(frozen=True)
class Lengths:
    """How a loader cuts its data: samples, batch size, whether the rest is dropped or the order shuffled."""

    samples: int
    batch: int
    drop_last: bool
    shuffled: bool = True


@dataclass(frozen=True)
class Batch:
    """One batch, sorted into what the model and what the loss takes.

    Attributes:
        args: positional arguments of the model.
        kwargs: its arguments by name.
        targets: what the loss compares with; None where there is nothing.
        lengths: how the loader cuts the data, where one was given.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)
    targets: Any = None
    lengths: Lengths | None = None

    @property
    def inputs(self) -> list[Tensor]:
        """List the tensors that the model is given."""
        from torchgraft.trace.tree import tensors

        return tensors((self.args, self.kwargs))

    @property
    def size(self) -> int:
        """Count the samples."""
        if self.args and isinstance(self.args[0], list):
            return len(self.args[0])
        return next((int(one.shape[0]) for one in self.inputs if one.dim()), 1)

    def few(self, count: int) -> Batch:
        """Give the first `count` samples."""
        size = self.size
        if count >= size:
            return self
        cut: Callable[[Any], Any] = lambda tree: _cut(tree, size, count)  # noqa: E731
        return replace(
            self,
            args=tuple(cut(one) for one in self.args),
            kwargs={name: cut(one) for name, one in self.kwargs.items()},
            targets=cut(self.targets),
        )

    def apart(self, device: Any = None) -> Batch:
        """Give the same in tensors of its own, on a device if one is named: passes may write."""
        from torchgraft.trace.tree import mapped

        def own(one: Tensor) -> Tensor:
            return one.detach().to(device or one.device).clone()

        args, kwargs, targets = mapped(own, (self.args, self.kwargs, self.targets))
        return replace(self, args=args, kwargs=kwargs, targets=targets)

    def run(self, module: nn.Module, *more: Any) -> Any:
        """Call a module with the inputs, in tensors of their own."""
        fresh = self.apart()
        return module(*fresh.args, *more, **fresh.kwargs)


def first_batch(data: Any, model: nn.Module) -> Batch:
    """Read one batch. A loader and its generators are left as they are; an iterator loses the batch.

    Args:
        data: `(inputs, targets)`, a dict, a Dataset, a DataLoader, or an iterable of batches.
        model: its forward tells which entries of a dict it takes.

    Raises:
        DataError: nothing of the kind, or empty.
    """
    from torch.utils.data import DataLoader, Dataset

    if isinstance(data, DataLoader):
        return replace(_sorted(_from_loader(data), model), lengths=_lengths(data))
    if isinstance(data, Dataset) and hasattr(data, "__len__"):
        return _sorted(_from_dataset(data), model)
    if not _is_batch(data):
        data = _from_iterable(data)
    return _sorted(data, model)


def _is_batch(data: Any) -> bool:
    if isinstance(data, Mapping) or hasattr(data, "shape"):
        return True
    return isinstance(data, (tuple, list)) and bool(data) and any(hasattr(one, "shape") for one in data)


def _from_iterable(data: Any) -> Any:
    detection = isinstance(data, tuple) and len(data) == 2 and all(isinstance(one, list) for one in data)
    if detection:
        return data
    try:
        return next(iter(data))
    except TypeError:
        raise DataError(
            f"{named(data)} is no data",
            where="data",
            hint="give a batch (inputs, targets), a DataLoader, a Dataset or a source such as folder:./images",
        ) from None
    except StopIteration:
        raise DataError("the data are empty", where="data", hint="give at least one batch") from None


def _from_dataset(data: Any) -> Any:
    """Read samples from all over a set, since many sets are sorted by class."""
    from torch.utils.data import default_collate

    count = len(data)
    if not count:
        raise DataError("the data set is empty", where="data", hint="give at least one sample")
    places = sorted({round(place * (count - 1) / max(READ - 1, 1)) for place in range(READ)})
    return default_collate([data[place] for place in places])


def _from_loader(loader: Any) -> Any:
    """Read a loader's first batch in this process, from its own sampler and with its own collate function."""
    from torch.utils.data import IterableDataset

    with _generators_kept(loader):
        sampler = loader.batch_sampler if loader.batch_sampler is not None else loader.sampler
        if isinstance(loader.dataset, IterableDataset):
            samples = _some(loader.dataset, loader.batch_size)
            return loader.collate_fn(samples if loader.batch_size else samples[0])
        try:
            chosen = next(iter(sampler))
        except StopIteration:
            raise DataError("the loader gives no batch", where="data", hint="check its length") from None
        if loader.batch_sampler is None:
            return loader.collate_fn(loader.dataset[chosen])
        chosen = list(chosen)[:READ]
        many = getattr(loader.dataset, "__getitems__", None)
        return loader.collate_fn(many(chosen) if many else [loader.dataset[place] for place in chosen])


def _some(samples: Any, count: int | None) -> list[Any]:
    found = [sample for sample, _ in zip(samples, range(min(count or 1, READ)), strict=False)]
    if not found:
        raise DataError("the data set is empty", where="data", hint="give at least one sample")
    return found


@contextmanager
def _generators_kept(loader: Any) -> Iterator[None]:
    """Keep the generators of a loader and of its samplers: reading a batch draws from them."""
    holders = (loader, loader.sampler, loader.batch_sampler, getattr(loader.batch_sampler, "sampler", None))
    found = {id(one): one for one in (getattr(holder, "generator", None) for holder in holders) if one is not None}
    states = [(one, one.get_state()) for one in found.values()]
    try:
        yield
    finally:
        for generator, state in states:
            generator.set_state(state)


def _lengths(loader: Any) -> Lengths | None:
    from torch.utils.data import SequentialSampler

    plain = hasattr(loader.dataset, "__len__") and loader.batch_size
    if not plain:
        return None
    shuffled = not isinstance(loader.sampler, SequentialSampler)
    return Lengths(len(loader.sampler), int(loader.batch_size), bool(loader.drop_last), shuffled)


def _sorted(batch: Any, model: nn.Module) -> Batch:
    """Sort a batch into arguments and targets."""
    batch = _as_tensors(batch)
    if isinstance(batch, Mapping):
        return _of_mapping(dict(batch), model)
    if isinstance(batch, (tuple, list)):
        if len(batch) == 1:
            return Batch((batch[0],))
        return _with_targets(tuple(batch[:-1]), batch[-1], model)
    return Batch((batch,))


def _with_targets(inputs: tuple[Any, ...], targets: Any, model: nn.Module) -> Batch:
    """Sort inputs that lie in one dict or tuple: by the names of the forward, or one after the other."""
    first = inputs[0]
    if len(inputs) == 1 and is_named(first, model):
        return Batch((), dict(first), targets)
    if len(inputs) == 1 and several(first, model):
        return Batch(tuple(first), targets=targets)
    return Batch(inputs, targets=targets)


def _of_mapping(batch: dict[str, Any], model: nn.Module) -> Batch:
    takes = inspect.signature(model.forward).parameters
    open_ended = any(one.kind is one.VAR_KEYWORD for one in takes.values())
    targets = next((batch[name] for name in TARGETS if name in batch), None)
    kwargs = {name: one for name, one in batch.items() if name in takes or (open_ended and name not in TARGETS)}
    if kwargs:
        return Batch((), kwargs, targets)
    name = next((name for name in INPUTS if name in batch), None)
    if name is None:
        raise DataError(
            f"the model takes none of {', '.join(batch)}",
            where="data",
            hint=f"name the entries as its forward does: {', '.join(takes)}",
        )
    return Batch((batch[name],), targets=targets)


def _as_tensors(tree: Any) -> Any:
    """Turn numpy arrays into tensors of the same dtype, as `torch.from_numpy` does."""
    import numpy as np
    import torch

    if isinstance(tree, (np.ndarray, np.generic)):
        return torch.as_tensor(tree)
    if isinstance(tree, Mapping):
        return {name: _as_tensors(one) for name, one in tree.items()}
    if isinstance(tree, (tuple, list)) and not hasattr(tree, "_fields"):
        return type(tree)(_as_tensors(one) for one in tree)
    return tree


def _cut(tree: Any, size: int, count: int) -> Any:
    import torch

    if isinstance(tree, torch.Tensor):
        return tree[:count] if tree.dim() and tree.shape[0] == size else tree
    if isinstance(tree, Mapping):
        return {name: _cut(one, size, count) for name, one in tree.items()}
    if isinstance(tree, Sequence) and not isinstance(tree, str):
        if any(isinstance(one, torch.Tensor) and one.dim() and one.shape[0] == size for one in tree):
            return type(tree)(_cut(one, size, count) for one in tree)  # type: ignore[call-arg]
        return tree[:count] if len(tree) == size else tree
    return tree
