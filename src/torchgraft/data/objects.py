"""What is handed over from Python as data: arrays, data sets and loaders of the user's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torchgraft.data.arrays import Form, form_of
from torchgraft.data.base import DataSet, Samples, Subset, Task, halves, made_split, parse_data, usual_size
from torchgraft.data.known import generators_kept, known_targets
from torchgraft.data.loaders import Loaded, first_inputs, targets_of_all
from torchgraft.data.told import Told, mask_of, tell
from torchgraft.errors import DataError

__all__ = ["ObjectSamples", "as_data_set"]

WHERE = "data"
WAYS = (
    "give (inputs, targets), ((inputs, targets), (val inputs, val targets)), a Dataset, a pair (train, val) of "
    "Datasets or DataLoaders, or a source such as folder:./images"
)
LOOKS = 64
"""So many inputs, spread over a set, are looked at for what they are."""


class _Zipped:
    """Inputs and targets side by side."""

    def __init__(self, items: Sequence[Any], targets: Sequence[Any]) -> None:
        self.items = items
        self.targets = targets

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return self.items[index], self.targets[index]


class ObjectSamples:
    """Samples out of a map-style set of the user's own; what it raises on one of them is a DataError."""

    def __init__(self, inner: Any, labels: Sequence[Any], form: Form) -> None:
        self.inner = inner
        self.labels = labels
        self.form = form

    def __len__(self) -> int:
        return len(self.inner)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        try:
            given, target = _two(self.inner[index])
            return self._shown(self.form.convert(given)), self.labels[index] if len(self.labels) else mask_of(
                target
            )
        except Exception as error:  # a data set of the user's raises what it likes
            raise _unread(self.inner, index, error) from error

    def _shown(self, made: Any) -> Any:
        """Bring a picture to the mode of all."""
        mode = "L" if self.form.channels == 1 else "RGB"
        return made.convert(mode) if self.form.kind == "image" and made.mode != mode else made


def as_data_set(
    data: Any, *, seed: int, task: Task | None = None, classes: Sequence[str] | None = None
) -> DataSet:
    """Make a data set of what was given.

    Args:
        data: a DataSet; a source by name; arrays, tensors or lists `(inputs, targets)`, or a pair of those; a
            torch Dataset, or a pair of them; a pair of DataLoaders, whose batches are taken as they are. A dict of
            `train` and `val` is such a pair. A datasets.Dataset or DatasetDict goes as `hf:` does.
        seed: draws the validation half where one thing is given.
        task: what the targets are; told by their type and shape where it is left out.
        classes: names of the classes, labels or quantities.

    Raises:
        DataError: it is none of these, or the two halves do not go together.
    """
    if isinstance(data, DataSet):
        return data
    if isinstance(data, str):
        return parse_data(data).open(seed=seed)
    if _is_hugging_face(data):
        from torchgraft.data.hf import of_object

        return of_object(data, seed=seed)
    pair = _pair(data)
    if pair is not None and all(_is_loader(one) for one in pair):
        return _of_loaders(pair, task, classes)
    inner = [_mapped(one) for one in (pair or (data,))]
    told = tell([_targets(one) for one in inner], task=task, classes=classes, where=WHERE)
    return _data_set(inner, _form(inner), told, seed)


# what is given


def _is_hugging_face(data: Any) -> bool:
    return type(data).__module__.partition(".")[0] == "datasets" and type(data).__name__ in (
        "Dataset",
        "DatasetDict",
    )


def _is_loader(data: Any) -> bool:
    from torch.utils.data import DataLoader

    return isinstance(data, DataLoader)


def _is_dataset(data: Any) -> bool:
    from torch.utils.data import Dataset

    return isinstance(data, Dataset)


def _pair(data: Any) -> tuple[Any, Any] | None:
    """Give (train, val) where two halves were given; arrays side by side are inputs and targets."""
    if isinstance(data, Mapping) and {"train", "val"} <= data.keys():
        return data["train"], data["val"]
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        return None
    first, second = data
    whole = all(_is_loader(one) or _is_dataset(one) for one in data)
    nested = all(isinstance(one, tuple) and len(one) == 2 for one in data)
    return (first, second) if whole or nested else None


def _mapped(data: Any) -> Any:
    """Read one half as something with a length and samples (input, target) by number."""
    if _is_loader(data):
        what = "a DataLoader can't be split, nor stand beside other things"
        raise DataError(what, WHERE, "give (train loader, val loader)")
    if isinstance(data, (tuple, list)) and len(data) == 2 and all(hasattr(one, "__len__") for one in data):
        inputs, targets = data
        if len(inputs) != len(targets):
            raise DataError(
                f"there are {len(inputs)} inputs and {len(targets)} targets", WHERE, "give one for each"
            )
        data = _Zipped(inputs, targets)
    elif not _is_dataset(data):
        raise DataError(f"a {type(data).__name__} is no data", WHERE, WAYS)
    if not hasattr(data, "__getitem__") or not hasattr(data, "__len__"):
        raise DataError(
            f"{type(data).__name__} has no length or no sample by number, so it can't be split or shuffled",
            WHERE,
            "give a map-style Dataset, or a pair of DataLoaders, whose order is yours",
        )
    if not len(data):
        raise DataError("the data are empty", WHERE, "give at least two samples")
    return data


def _two(sample: Any) -> tuple[Any, Any]:
    """Part a sample into input and target."""
    if isinstance(sample, (tuple, list)) and len(sample) == 2:
        return sample[0], sample[1]
    count = f" of {len(sample)}" if isinstance(sample, (tuple, list)) else ""
    raise DataError(
        f"a sample is a {type(sample).__name__}{count}, not (input, target)",
        WHERE,
        "give pairs, or two DataLoaders",
    )


def _read(inner: Any, index: int) -> tuple[Any, Any]:
    """Read one sample and leave every generator as it was: transforms draw from them."""
    with generators_kept():
        try:
            return _two(inner[index])
        except Exception as error:  # a data set of the user's raises what it likes
            raise _unread(inner, index, error) from error


def _unread(inner: Any, index: int, error: Exception) -> DataError:
    said = (
        error.what if isinstance(error, DataError) else f"{type(error).__name__}: {' '.join(str(error).split())}"
    )
    name = "" if isinstance(inner, _Zipped) else f" of {type(inner).__name__}"
    return DataError(f"sample {index}{name} can't be read: {said}", WHERE, "mend it, or leave it out")


def _form(inner: Sequence[Any]) -> Form:
    """Look at inputs from all over the halves."""
    places = [(one, place) for one in inner for place in range(0, len(one), max(1, len(one) // LOOKS))]
    return form_of([_read(one, place)[0] for one, place in places], WHERE)


def _targets(inner: Any) -> Any:
    """Find all targets where they stand beside the inputs, or read every sample for them."""
    known = known_targets(inner)
    return known if known is not None else [_read(inner, index)[1] for index in range(len(inner))]


# the halves


def _data_set(inner: Sequence[Any], form: Form, told: Told, seed: int) -> DataSet:
    samples: list[Samples] = [
        ObjectSamples(one, labels, form) for one, labels in zip(inner, told.halves, strict=True)
    ]
    if len(samples) == 2:
        train, val = samples
        split = "stated: the two halves that were given"
    else:
        train, val = _drawn(samples[0], told.task, seed)
        split = made_split(seed, told.task)
    return DataSet(
        train=train,
        val=val,
        classes=told.classes,
        channels=form.channels,
        size=usual_size(form.sizes) if form.sizes else (0, 0),
        split=split,
        task=told.task,
        kind=form.kind,
        notes=told.notes,
    )


def _drawn(samples: Samples, task: Task, seed: int) -> tuple[Samples, Samples]:
    keys = [str(index) for index in range(len(samples))]
    train, val = halves(samples.labels, task=task, seed=seed, where=WHERE, keys=keys)
    return Subset(samples, train), Subset(samples, val)


def _of_loaders(pair: Sequence[Any], task: Task | None, classes: Sequence[str] | None) -> DataSet:
    """Describe what two loaders give; their inputs are tensors already."""
    told = tell([targets_of_all(loader) for loader in pair], task=task, classes=classes, where=WHERE)
    inputs = first_inputs(pair[0])
    form = form_of([inputs if isinstance(inputs, (Mapping, tuple, list)) else inputs[0]], WHERE)
    maps = form.kind == "tensor"
    return DataSet(
        train=Loaded(pair[0]),
        val=Loaded(pair[1]),
        classes=told.classes,
        channels=form.channels if maps else 0,
        size=usual_size(form.sizes) if maps and form.sizes else (0, 0),
        split="stated: the two loaders that were given",
        task=told.task,
        kind="tensor",
        notes=told.notes,
    )
