"""Read what `data=` of a check names: a few samples as a batch, what is known of all, and the plan's optimizer.

A batch, a Dataset or a loader is read as it is. A data source, such as `folder:./images`, goes through the
preprocessing of the recipe or else of the base. The word `plan` stands for the data of the recipe's training plan.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

from torchgraft.data import DataSet, Stream, parse_data
from torchgraft.data.base import NOT_JUDGED
from torchgraft.errors import DataError, RecipeError, TorchgraftError
from torchgraft.preprocess import Preprocess
from torchgraft.probes.arguments import by_place
from torchgraft.probes.batch import READ, TARGETS, Batch, first_batch
from torchgraft.rules.rule import DataFacts
from torchgraft.texts import check_kind, measured
from torchgraft.tokens import Texts
from torchgraft.train.prepare import preparation_of
from torchgraft.trainplan import TrainPlan

if TYPE_CHECKING:
    import torch
    from torch import nn

    from torchgraft.graft import Graft

__all__ = ["PLAN", "Read", "facts_of", "preparation", "read", "traced_with"]

PLAN = "plan"
"""What stands for the recipe's own data."""


@dataclass(frozen=True)
class Read:
    """What the data gave: one batch, and what is known without running the model."""

    batch: Batch | None = None
    facts: DataFacts | None = None
    optimizer: torch.optim.Optimizer | None = None


def read(graft: Graft, data: Any) -> Read:
    """Read a batch out of what was given.

    Raises:
        DataError: nothing can be read.
        RecipeError: the plan's data are asked for, and there is no plan.
    """
    if data is None:
        return Read()
    if isinstance(data, Batch):
        return Read(data)
    optimizer = None
    if isinstance(data, str) and data == PLAN:
        optimizer, data = _planned(graft)
    if isinstance(data, str):
        data = parse_data(data).open(seed=graft.recipe.seed)
    if isinstance(data, DataSet):
        preprocess = _prepared(graft, data)
        return Read(_samples(graft, data, preprocess), facts_of(graft, data, preprocess), optimizer)
    try:
        return Read(first_batch(data, graft.module))
    except TorchgraftError:
        raise
    except Exception as error:  # what a data set or a collate function of the user's raises
        raise DataError(
            f"no batch can be read: {type(error).__name__}: {str(error).strip()}",
            where="data",
            hint="read one yourself, next(iter(loader)), and mend what it says",
        ) from error


def traced_with(batch: Batch, model: nn.Module) -> Any:
    """Give the inputs of a batch as an example to trace with; pictures of another dtype in that of the weights."""
    import torch

    weights = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)

    def fitting(one: Any) -> Any:
        if not isinstance(one, torch.Tensor) or not one.dim():
            return one
        picture = one.dim() > 2 or one.is_floating_point()
        return one.detach()[:2].to(weights) if picture else one.detach()[:2]

    given = _in_order(batch, model)
    if isinstance(given, dict):
        return {name: fitting(one) for name, one in given.items()}
    return tuple(fitting(one) for one in given)


def _in_order(batch: Batch, model: nn.Module) -> tuple[Any, ...] | dict[str, Any]:
    """Give the arguments by position, or by name where that leaves one out; targets that a model may take are not
    among them.
    """
    named = {name: one for name, one in batch.kwargs.items() if name not in TARGETS}
    if not named:
        return batch.args
    ordered = by_place(named, model)
    return named if ordered is None else ordered


def _planned(graft: Graft) -> tuple[torch.optim.Optimizer, str]:
    """Give the optimizer and the data of the recipe's training plan."""
    from torchgraft.train.optimise import optimizer_of
    from torchgraft.train.rates import groups_of

    plan = graft.recipe.train
    if plan is None:
        raise RecipeError("the recipe does not say how to train", where="train", hint="train: {data: folder:…}")
    return optimizer_of(plan, groups_of(graft, plan)), plan.data


def _prepared(graft: Graft, data: DataSet) -> Preprocess | Texts:
    """Take the recipe's preparation; or the base's of images, fitted to the input; or what suits the texts."""
    check_kind(graft, data)
    if graft.recipe.preprocess is not None:
        return graft.recipe.preprocess
    if data.kind == "text":
        return measured(graft, data, {})[0]
    made = preparation(graft)
    if made is None:
        raise DataError(
            f"{graft.name} does not take images: its input is {list(graft.input_shape or ())}",
            where="data",
            hint="give a batch (inputs, targets) instead of a data source",
        )
    return made


def preparation(graft: Graft) -> Preprocess | None:
    """Give the base's own preparation of images, or a plain one, for its input; None where it takes no images."""
    shape = graft.input_shape
    if shape is None or len(shape) != 3 or shape[0] not in (1, 3):
        return None
    channels: Literal[1, 3] = 1 if shape[0] == 1 else 3
    known = graft.preprocess or Preprocess(size=(shape[1], shape[2]))
    return known.with_size((shape[1], shape[2])).with_channels(channels)


def _samples(graft: Graft, data: DataSet, preprocess: Preprocess | Texts) -> Batch:
    """Read a few training samples, prepared as for training."""
    import torch

    paired = data.task == "mask"
    ready = preparation_of(graft, preprocess, TrainPlan(data="") if paired else None, paired=paired)
    values, targets = zip(*_few(data), strict=True)
    if paired:
        both: Callable[..., Any] = ready.prepare
        values, masks = zip(*map(both, values, targets), strict=True)
        inputs, labels = ready.together(values), torch.stack(masks).long()
        labels[labels == NOT_JUDGED] = -100  # what the losses of torch leave out
    else:
        inputs, labels = ready.together([ready.prepare(value) for value in values]), torch.tensor(targets)
    named = isinstance(inputs, dict)
    return Batch(() if named else (inputs,), inputs if named else {}, targets=labels)


def _few(data: DataSet) -> list[tuple[Any, Any]]:
    """Read samples from all over the set, since most are sorted by class; of a stream, the first ones."""
    if isinstance(data.train, Stream):
        few = list(islice(data.train.samples(1, 0), READ))
        if not few:
            raise DataError("no sample of the stream can be read", where="data")
        return few
    count = len(data.train)
    places = sorted({round(place * (count - 1) / (READ - 1)) for place in range(READ)})
    return [data.train[place] for place in places]


def facts_of(graft: Graft, data: DataSet, preprocess: Preprocess | Texts | None) -> DataFacts:
    """Say what is known of data and base without running the model."""
    facts = _labels_of(data)
    if not isinstance(preprocess, Preprocess):
        return facts
    known = graft.preprocess.with_channels(preprocess.channels) if graft.preprocess else None
    return replace(
        facts,
        normalisation=(preprocess.mean, preprocess.std),
        trained_with=(known.mean, known.std) if known else None,
    )


def _labels_of(data: DataSet) -> DataFacts:
    """Count class numbers; of other targets, and of a stream, nothing is known but how many classes there are."""
    count = len(data.classes)
    known = data.task == "classes" and len(data.train.labels)  # a stream has none, the samples to judge by have
    labels = [*data.train.labels, *data.val.labels] if known else []
    if not labels:
        return DataFacts(classes=count, labels=(0, max(count - 1, 0)), shared=data.shared)
    counts = [0] * count
    for label in data.train.labels:
        if 0 <= label < count:
            counts[label] += 1
    return DataFacts(classes=count, labels=(min(labels), max(labels)), counts=tuple(counts), shared=data.shared)
