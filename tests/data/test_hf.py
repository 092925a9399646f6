"""Hugging Face sets: columns by type, splits, what can't be read, and streams."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from torchgraft.data import DataSet, Stream, parse_data
from torchgraft.data.objects import as_data_set
from torchgraft.errors import DataError

datasets = pytest.importorskip("datasets")


def png(value: int, *, mode: str = "RGB", size: tuple[int, int] = (6, 4)) -> dict[str, Any]:
    """Encode one image of a single colour."""
    file = io.BytesIO()
    Image.new(mode, size, (value, 0, 0) if mode == "RGB" else value).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


def pictures(count: int, *, start: int = 0, **more: Any) -> Any:
    """Make a set of images whose label is whether their number is odd."""
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["even", "odd"])})
    rows = {
        "image": [png(number) for number in range(start, start + count)],
        "label": [n % 2 for n in range(count)],
    }
    return datasets.Dataset.from_dict({**rows, **more}, features=features)


def saved(home: Path, *sets: Any, names: tuple[str, ...] = ("train", "validation")) -> Path:
    """Save one set, or several as splits."""
    whole = sets[0] if len(sets) == 1 else datasets.DatasetDict(dict(zip(names, sets, strict=True)))
    whole.save_to_disk(str(home))
    return home


def opened(home: Path, query: str = "", **options: Any) -> DataSet:
    return parse_data(f"hf:{home}{query}").open(**options)


def reds(stream: Any, epoch: int, seed: int = 0, **more: int) -> list[int]:
    """List what tells the images of an epoch apart."""
    return [fetch()[0].getpixel((0, 0))[0] for fetch in stream.pending(epoch, seed, **more)]


def test_a_set_saved_to_disk_has_its_columns_found_by_their_types(tmp_path: Path) -> None:
    data = opened(saved(tmp_path, pictures(20)))
    assert (data.task, data.kind, data.classes) == ("classes", "image", ("even", "odd"))
    assert (data.channels, data.size, data.split) == (3, (4, 6), "made: 20 % of each class, seed 0")
    assert (len(data.train), len(data.val), sorted(set(data.train.labels))) == (16, 4, [0, 1])
    image, label = data.train[0]
    assert (image.mode, image.size, label) == ("RGB", (6, 4), image.getpixel((0, 0))[0] % 2)


def test_the_splits_of_a_set_are_taken_as_they_stand(tmp_path: Path) -> None:
    data = opened(saved(tmp_path, pictures(6), pictures(4)))
    assert (len(data.train), len(data.val), data.split) == (6, 4, "stated: train and validation")
    turned = opened(tmp_path, "?train=validation&val=train")
    assert (len(turned.train), len(turned.val)) == (4, 6)


def test_a_broken_image_and_a_row_without_a_label_are_skipped_and_counted(tmp_path: Path) -> None:
    whole = pictures(10)
    rows = [*whole.cast_column("image", datasets.Image(decode=False))]
    rows[3]["image"] = {"bytes": rows[3]["image"]["bytes"][:40], "path": None}
    rows[7]["label"] = None
    rows[8]["image"] = None
    broken = datasets.Dataset.from_list(rows, features=whole.features)
    data = opened(saved(tmp_path, broken))
    assert len(data.train) + len(data.val) == 7
    assert [line.partition(":")[0] for line in data.skipped] == ["row 3", "row 7", "row 8"]
    assert data.skipped[1:] == ("row 7: no label", "row 8: no image")
    with pytest.raises(DataError, match=r"rows that are no samples \(3\): row 3: "):
        opened(tmp_path, strict=True)


def test_texts_and_their_labels_are_found(tmp_path: Path) -> None:
    rows = {"idx": list(range(12)), "sentence": [f"word {n}" for n in range(12)], "label": ["bad", "good"] * 6}
    data = opened(saved(tmp_path, datasets.Dataset.from_dict(rows)))
    assert (data.kind, data.task, data.classes, data.channels) == ("text", "classes", ("bad", "good"), 0)
    assert data.train[0] == ("word 0", 0)


def test_lists_of_labels_are_several_labels(tmp_path: Path) -> None:
    features = datasets.Features(
        {"image": datasets.Image(), "tags": datasets.List(datasets.ClassLabel(names=["red", "round", "wet"]))}
    )
    rows = {"image": [png(n) for n in range(6)], "tags": [[], [0], [0, 2], [1], [2], [0, 1, 2]]}
    data = opened(saved(tmp_path, datasets.Dataset.from_dict(rows, features=features)))
    assert (data.task, data.classes) == ("labels", ("red", "round", "wet"))
    assert sorted([*data.train.labels, *data.val.labels]) == sorted(
        [(0, 0, 0), (1, 0, 0), (1, 0, 1), (0, 1, 0), (0, 0, 1), (1, 1, 1)]
    )


def test_a_column_of_fractions_is_a_quantity(tmp_path: Path) -> None:
    rows = {"text": ["a b c"] * 6, "score": [0.5, 1.5, 2.5, 3.5, 4.5, 5.5]}
    data = opened(saved(tmp_path, datasets.Dataset.from_dict(rows)))
    assert (data.task, data.classes, data.kind) == ("regression", ("score",), "text")
    assert sorted([*data.train.labels, *data.val.labels])[0] == (0.5,)


def test_two_columns_of_images_are_images_and_masks(tmp_path: Path) -> None:
    features = datasets.Features({"image": datasets.Image(), "annotation": datasets.Image()})
    rows = {"image": [png(n) for n in range(6)], "annotation": [png(n % 2, mode="L") for n in range(6)]}
    data = opened(saved(tmp_path, datasets.Dataset.from_dict(rows, features=features)))
    assert (data.task, data.classes) == ("mask", ("0", "1"))
    image, mask = data.train[0]
    assert (mask.dtype, mask.shape) == (np.uint8, (4, 6))
    assert set(np.unique(mask)) == {image.getpixel((0, 0))[0] % 2}


def test_a_data_file_is_read_by_its_ending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "words.jsonl").write_text(
        "".join(f'{{"text": "w {n}", "label": "{"ab"[n % 2]}"}}\n' for n in range(10))
    )
    data = opened(tmp_path / "words.jsonl")
    assert (data.kind, data.classes, len(data.train)) == ("text", ("a", "b"), 8)
    stream = opened(tmp_path / "words.jsonl", "?streaming=true&classes=a,b")
    assert isinstance(stream.train, Stream)
    assert stream.train.length is None
    held = {text for text, _ in (stream.val[place] for place in range(len(stream.val)))}
    seen = [text for text, _ in stream.train.samples(1, 0)]
    assert len(seen) + len(held) == 10
    assert not held & set(seen)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("?label=lable", r"no column 'lable'(.|\n)*mean label"),
        ("?train=training", r"no splits by name"),
        ("?streamin=true", r"no setting 'streamin'(.|\n)*mean streaming"),
        ("?streaming=yes", r"'yes' is neither true nor false"),
        ("?held=none&streaming=true", r"'none' is no number for held"),
    ],
)
def test_a_setting_that_says_nothing_useful_is_refused(tmp_path: Path, query: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        opened(saved(tmp_path, pictures(4)), query)


def test_a_folder_that_is_not_there_is_refused_with_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "flowers").mkdir()
    with pytest.raises(DataError, match=r"can't be loaded(.|\n)*mean flowers"):
        opened(tmp_path / "flowerz.parquet")


def test_a_stream_gives_every_training_sample_once_in_an_order_of_seed_and_epoch(tmp_path: Path) -> None:
    data = opened(saved(tmp_path, pictures(40)), "?streaming=true&buffer=8")
    stream = data.train
    assert isinstance(stream, Stream)
    assert (stream.length, len(data.val)) == (32, 8)
    first = reds(stream, 1)
    assert sorted([*first, *(data.val[n][0].getpixel((0, 0))[0] for n in range(8))]) == list(range(40))
    assert reds(stream, 1) == first
    assert reds(stream, 2) != first
    assert reds(stream, 1, seed=1) != first
    assert sorted(reds(stream, 2)) == sorted(first)


def test_a_stream_can_begin_anywhere_and_be_sent_to_another_process(tmp_path: Path) -> None:
    stream: Any = opened(saved(tmp_path, pictures(30)), "?streaming=true").train
    assert reds(stream, 3, start=11) == reds(stream, 3)[11:]
    fetch = next(pickle.loads(pickle.dumps(stream)).pending(3, 0))
    assert pickle.loads(pickle.dumps(fetch))()[0].getpixel((0, 0))[0] == reds(stream, 3)[0]


def test_a_broken_image_does_not_end_a_stream(tmp_path: Path) -> None:
    whole = pictures(12)
    rows = [*whole.cast_column("image", datasets.Image(decode=False))]
    for row in rows[:6]:
        row["image"] = {"bytes": b"no image", "path": None}
    data = opened(
        saved(tmp_path, datasets.Dataset.from_list(rows, features=whole.features), pictures(4)), "?streaming=true"
    )
    stream: Any = data.train
    assert len(list(stream.samples(1, 0))) == 6
    outcomes = []
    for fetch in stream.pending(1, 0):
        try:
            fetch()
            outcomes.append("")
        except DataError as error:
            outcomes.append(error.what)
    assert outcomes.count("") == 6
    assert outcomes.count("no image of a kind that can be read") == 6


def test_the_classes_of_a_stream_can_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "words.jsonl").write_text(
        "".join(f'{{"text": "w {n}", "label": "{"ab"[n % 2]}"}}\n' for n in range(10))
    )
    with pytest.raises(DataError, match=r"'label' does not name its classes(.|\n)*classes=cat,dog"):
        opened(tmp_path / "words.jsonl", "?streaming=true")


def test_a_set_of_the_library_is_taken_from_python_as_it_is() -> None:
    data = as_data_set(datasets.DatasetDict({"train": pictures(6), "test": pictures(2)}), seed=0)
    assert isinstance(data, DataSet)
    assert (len(data.train), len(data.val), data.split) == (6, 2, "stated: train and test")


def test_a_format_of_the_users_own_is_put_aside() -> None:
    data = as_data_set(pictures(10).with_format("torch"), seed=0)
    assert data.train[0][0].mode == "RGB"
    assert set(data.train.labels) == {0, 1}
