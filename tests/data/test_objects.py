"""Data handed over from Python: what they are, how they are split, what is refused."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from torchgraft.data import DataSet
from torchgraft.data.loaders import Loaded
from torchgraft.data.objects import as_data_set
from torchgraft.errors import DataError

BYTES = np.arange(20 * 5 * 4 * 3, dtype=np.int64).reshape(20, 5, 4, 3).astype(np.uint8)
FLOATS = torch.arange(20 * 3 * 5 * 4, dtype=torch.float32).view(20, 3, 5, 4)
CLASSES = np.arange(20) % 2


def made(data: Any, **options: Any) -> DataSet:
    found = as_data_set(data, seed=0, **options)
    assert isinstance(found, DataSet)
    return found


class Drawn(Dataset[Any]):
    """Grey images whose reading draws a random number, as augmentations do."""

    def __init__(self, count: int = 12, broken: int = -1) -> None:
        self.count, self.broken = count, broken

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        if index == self.broken:
            raise ValueError("no such thing")
        torch.rand(1)
        return Image.new("L", (4, 5), index), index % 3


def test_arrays_of_bytes_are_images_and_are_split_by_class() -> None:
    data = made((BYTES, CLASSES))
    assert (data.kind, data.task, data.classes) == ("image", "classes", ("0", "1"))
    assert (data.channels, data.size, data.split) == (3, (5, 4), "made: 20 % of each class, seed 0")
    assert (len(data.train), len(data.val), list(data.val.labels).count(0)) == (16, 4, 2)
    image, label = data.train[3]
    place = next(n for n in range(20) if np.array_equal(BYTES[n], np.asarray(image)))
    assert label == CLASSES[place]


@pytest.mark.parametrize(
    ("shape", "mode", "size"),
    [
        ((2, 5, 4), "L", (4, 5)),
        ((2, 5, 4, 1), "L", (4, 5)),
        ((2, 5, 4, 3), "RGB", (4, 5)),
        ((2, 3, 5, 4), "RGB", (4, 5)),
    ],
)
def test_the_channels_of_bytes_may_come_first_or_last(
    shape: tuple[int, ...], mode: str, size: tuple[int, int]
) -> None:
    for whole in (np.zeros(shape, np.uint8), torch.zeros(shape, dtype=torch.uint8)):
        image, _ = made(((whole, [0, 1]), (whole, [0, 1]))).train[0]
        assert (image.mode, image.size) == (mode, size)


def test_tensors_are_taken_as_they_are() -> None:
    data = made((FLOATS, torch.arange(20) % 4))
    assert (data.kind, data.channels, data.size) == ("tensor", 3, (5, 4))
    given, label = data.train[0]
    assert torch.equal(given, FLOATS[data.train.indices[0]])  # type: ignore[attr-defined]
    assert isinstance(label, int)


def test_rows_of_numbers_are_tensors_in_single_precision() -> None:
    data = made((np.random.default_rng(0).normal(size=(10, 7)), np.arange(10) % 2))
    given, _ = data.train[0]
    assert (data.kind, given.dtype, tuple(given.shape), data.size) == ("tensor", torch.float32, (7,), (0, 0))


def test_texts_and_words_are_texts_and_classes_in_natural_order() -> None:
    data = made(([f"text {n}" for n in range(12)], ["kind 10", "kind 9"] * 6))
    assert (data.kind, data.classes) == ("text", ("kind 9", "kind 10"))
    assert data.train[0] == (f"text {data.train.indices[0]}", data.train.labels[0])  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("targets", "task", "first"),
    [
        (np.arange(20) % 3, "classes", 0),
        ((np.arange(20) % 3)[:, None], "classes", 0),
        (np.arange(20) % 2 == 1, "classes", 0),
        (np.eye(3, dtype=np.int64)[np.arange(20) % 3], "labels", (1, 0, 0)),
        (np.eye(3, dtype=np.float32)[np.arange(20) % 3], "labels", (1, 0, 0)),
        (np.arange(20) / 4, "regression", (0.0,)),
        (np.arange(40).reshape(20, 2) / 4, "regression", (0.0, 0.25)),
        (torch.arange(20).tolist(), "classes", 0),
    ],
)
def test_a_task_is_told_by_the_targets(targets: Any, task: str, first: Any) -> None:
    data = made(((FLOATS, targets), (FLOATS, targets)))
    assert data.task == task
    assert data.train.labels[0] == first
    assert data.train[0][1] == first


def test_the_task_and_the_names_can_be_said() -> None:
    data = made((FLOATS, np.arange(20) % 4), task="regression", classes=["price"])
    assert (data.task, data.classes, data.train.labels[0]) == (
        "regression",
        ("price",),
        (float(data.train.indices[0] % 4),),
    )  # type: ignore[attr-defined]
    named = made((FLOATS, np.arange(20) % 2), classes=["cat", "dog"])
    assert named.classes == ("cat", "dog")


def test_masks_are_arrays_of_class_numbers_and_have_no_labels() -> None:
    masks = np.zeros((20, 5, 4), np.int64)
    masks[:, 0] = 2
    masks[:, 1] = 255
    data = made((BYTES, masks))
    assert (data.task, data.classes, list(data.train.labels)) == ("mask", ("0", "1", "2"), [])
    _, mask = data.train[0]
    assert (mask.dtype, mask.shape, sorted(np.unique(mask))) == (np.uint8, (5, 4), [0, 2, 255])


def test_two_halves_are_taken_as_they_stand() -> None:
    data = made(((BYTES, CLASSES), (BYTES[:6], CLASSES[:6])))
    assert (len(data.train), len(data.val), data.split) == (20, 6, "stated: the two halves that were given")
    assert len(made({"train": (BYTES, CLASSES), "val": (BYTES[:6], CLASSES[:6])}).val) == 6


def test_a_data_set_of_torch_is_split_or_paired() -> None:
    data = made(Drawn())
    assert (data.kind, data.channels, data.size, data.classes) == ("image", 1, (5, 4), ("0", "1", "2"))
    assert (len(data.train), len(data.val)) == (9, 3)
    assert len(made((Drawn(12), Drawn(6))).val) == 6
    assert len(made(Subset(Drawn(12), range(9))).train) == 6
    assert made(TensorDataset(FLOATS, torch.arange(20) % 2)).kind == "tensor"


def test_reading_targets_draws_nothing_from_the_users_generators() -> None:
    torch.manual_seed(3)
    wanted = torch.rand(2)
    torch.manual_seed(3)
    made(Drawn())
    assert torch.equal(torch.rand(2), wanted)


def test_a_sample_that_turns_bad_is_a_data_error_that_names_it() -> None:
    inner = Drawn()
    data = made((inner, Drawn()))
    inner.broken = 5
    with pytest.raises(DataError, match="sample 5 of Drawn can't be read: ValueError: no such thing"):
        data.train[5]
    assert data.train[4][1] == 1
    with pytest.raises(DataError, match="sample 2 of Drawn can't be read"):
        made(Drawn(broken=2))


def test_samples_can_be_sent_to_another_process() -> None:
    for data in (made((BYTES, CLASSES)), made((FLOATS, CLASSES)), made((Drawn(), Drawn()))):
        assert len(pickle.loads(pickle.dumps(data.train))) == len(data.train)
        pickle.loads(pickle.dumps(data.train))[0]


def test_a_pair_of_loaders_is_taken_as_it_is() -> None:
    inner = TensorDataset(FLOATS, torch.arange(20) % 4)
    train: Any = DataLoader(inner, batch_size=5, shuffle=True, generator=torch.Generator().manual_seed(2))
    val: Any = DataLoader(inner, batch_size=5)
    state = train.generator.get_state()
    data = made((train, val))
    assert isinstance(data.train, Loaded)
    assert data.train.loader is train
    assert torch.equal(train.generator.get_state(), state)
    assert (data.kind, data.task, data.classes, data.train.length) == (
        "tensor",
        "classes",
        ("0", "1", "2", "3"),
        20,
    )
    assert (data.channels, data.size) == (3, (5, 4))


def test_the_targets_of_a_loader_are_read_from_its_batches_where_nobody_says_them() -> None:
    def joined(samples: list[Any]) -> dict[str, Any]:
        return {"x": torch.ones(len(samples), 2), "labels": torch.tensor([label for _, label in samples])}

    loader: Any = DataLoader(Drawn(), batch_size=4, collate_fn=joined)
    data = made((loader, loader))
    assert (data.classes, data.size, data.channels) == (("0", "1", "2"), (0, 0), 0)
    with pytest.raises(DataError, match="come in its own batches"):
        data.train.pending(1, 0)  # type: ignore[attr-defined]


def test_grey_and_colour_together_are_colour() -> None:
    images = [Image.new("L", (4, 4)), Image.new("RGB", (4, 4))] * 6
    data = made((images, [0, 1] * 6))
    assert data.channels == 3
    assert {data.train[place][0].mode for place in range(len(data.train))} == {"RGB"}


class Endless(IterableDataset[Any]):
    def __iter__(self) -> Any:
        yield 1, 2


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (3, r"a int is no data(.|\n)*give \(inputs, targets\)"),
        (DataLoader(Drawn()), r"can't be split(.|\n)*\(train loader, val loader\)"),
        ((DataLoader(Drawn()), Drawn()), r"can't be split, nor stand beside"),
        (Endless(), r"no length or no sample by number(.|\n)*pair of DataLoaders"),
        ((BYTES, CLASSES[:5]), "there are 20 inputs and 5 targets"),
        ((BYTES, CLASSES - 1), r"labels run from -1 to 0, but classes are numbered from 0"),
        ((FLOATS, np.full((20, 2), 7)), r"targets int64 \[20, 2\] are no classes"),
        ((FLOATS, np.full(20, np.nan)), "target 0 is not finite"),
        ((BYTES, np.zeros((20, 5, 4), np.int64)), "nothing to tell apart"),
        ((BYTES[:0], []), "the data are empty"),
        (TensorDataset(FLOATS), r"a sample is a tuple of 1, not \(input, target\)"),
        (([b"x", b"y"], [0, 1]), "a bytes is no input"),
        ((["a", torch.zeros(2)], [0, 1]), "inputs are of several kinds"),
        ((FLOATS, [1000 * n for n in range(20)]), "20 different labels run up to 19000"),
    ],
)
def test_what_can_not_be_read_is_refused_with_a_reason(data: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        as_data_set(data, seed=0)


def test_a_label_without_a_name_is_refused() -> None:
    with pytest.raises(DataError, match="labels run from 0 to 3, but 3 classes are numbered from 0"):
        as_data_set((FLOATS, np.arange(20) % 4), seed=0, classes=["a", "b", "c"])


def test_labels_that_start_at_one_are_told() -> None:
    assert made((FLOATS, np.arange(20) % 4 + 1)).notes == (
        "no label is 0, so class 0 stays empty: labels that run from 1 want 1 subtracted",
    )


@settings(max_examples=25)
@given(st.integers(2, 5), st.integers(10, 40), st.integers(0, 9))
def test_both_halves_are_all_samples_once_with_their_own_labels(classes: int, count: int, seed: int) -> None:
    inputs = np.arange(count, dtype=np.float32)[:, None]
    found = as_data_set((inputs, np.arange(count) % classes), seed=seed)
    assert isinstance(found, DataSet)
    seen = [half[place] for half in (found.train, found.val) for place in range(len(half))]
    assert sorted(int(given) for given, _ in seen) == list(range(count))
    assert all(int(given) % classes == label for given, label in seen)


def test_a_target_that_is_none_is_refused() -> None:
    words = np.array(["a", "b", None] * 4, dtype=object)
    with pytest.raises(DataError, match="target 2 is None"):
        as_data_set((np.zeros((12, 4, 4), np.uint8), words), seed=0)
