"""What holds for every kind of data: names, splits, subsets, samples in memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchgraft.data import DataSource, parse_data
from torchgraft.data.base import ArraySamples, Subset, hold_out, labels, per_class, usual_size
from torchgraft.errors import DataError

some_labels = st.lists(st.integers(0, 4), min_size=2, max_size=60)


def samples(*counts: int) -> ArraySamples:
    """Give `counts[i]` grey 2x2 images of class i, each pixel the number of the sample."""
    targets = [label for label, count in enumerate(counts) for _ in range(count)]
    images = np.arange(len(targets), dtype=np.uint8)[:, None, None].repeat(2, 1).repeat(2, 2)
    return ArraySamples(images, targets)


def test_importing_the_family_and_naming_data_needs_nothing_heavy() -> None:
    code = (
        "import sys; from torchgraft.data import parse_data; parse_data('torchvision:CIFAR10');"
        "print([name for name in ('torch', 'numpy', 'PIL', 'torchvision', 'sklearn') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("text", ["folder:./flowers", "torchvision:CIFAR10@/data", "sklearn:digits"])
def test_a_source_reads_and_writes_the_same_text(text: str) -> None:
    source = parse_data(text)
    assert str(source) == text
    assert parse_data(str(source)) == source


def test_every_scheme_is_its_class_name_in_lower_case() -> None:
    parse_data("sklearn:digits")
    assert {"folder", "torchvision", "sklearn"} <= set(DataSource.registry)
    assert all(name == kind.__name__.lower() for name, kind in DataSource.registry.items())


@pytest.mark.parametrize("text", ["./flowers", "/nowhere/flowers", "data/a:b", "~/flowers"])
def test_a_path_without_a_scheme_is_a_folder(text: str) -> None:
    assert str(parse_data(text)) == f"folder:{text}"


def test_a_bare_name_is_a_folder_when_it_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "flowers").mkdir()
    monkeypatch.chdir(tmp_path)
    assert str(parse_data("flowers")) == "folder:flowers"


def test_a_bare_name_that_is_not_there_is_refused_with_the_schemes_and_the_nearest_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "flowers").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"no folder here(.|\n)*mean flowers\? write one of csv:….*or a path"):
        parse_data("flowerz")
    with pytest.raises(DataError, match=r"no folder here(.|\n)*do:    write one of csv:….*sklearn:…"):
        parse_data("zzz")


@pytest.mark.parametrize("text", ["torchvison:CIFAR10", "torchvison:CIFAR10@/data"])
def test_a_misspelt_scheme_is_refused_with_the_nearest(text: str) -> None:
    with pytest.raises(DataError, match=r"no kind of data 'torchvison'(.|\n)*did you mean torchvision"):
        parse_data(text)


@pytest.mark.parametrize("text", ["", " ", ":", "folder"])
def test_a_text_that_names_nothing_is_refused(text: str) -> None:
    with pytest.raises(DataError):
        parse_data(text)


def test_a_scheme_alone_is_refused() -> None:
    with pytest.raises(DataError, match="'folder:' names no data"):
        parse_data("folder:")


def test_arrays_become_images_of_their_mode() -> None:
    grey = ArraySamples(np.zeros((2, 3, 4), np.uint8), [0, 1])
    colour = ArraySamples(np.zeros((2, 3, 4, 3), np.uint8), [0, 1])
    assert (grey[1][0].mode, grey[1][0].size, grey[1][1]) == ("L", (4, 3), 1)
    assert (colour[0][0].mode, colour[0][0].size, len(colour)) == ("RGB", (4, 3), 2)


@pytest.mark.parametrize(
    ("images", "targets"),
    [
        (np.zeros((2, 3, 4)), [0, 1]),
        (np.zeros((2, 3, 4), np.uint8), [0]),
        (np.zeros((2, 3), np.uint8), [0, 1]),
        (np.zeros((2, 3, 4, 4), np.uint8), [0, 1]),
    ],
)
def test_arrays_that_are_no_images_are_refused(images: np.ndarray, targets: list[int]) -> None:
    with pytest.raises(DataError, match="are no samples"):
        ArraySamples(images, targets)


def test_samples_end_with_an_index_error_so_that_they_can_be_looped_over() -> None:
    few = Subset(samples(3), [2, 0])
    assert [image.getpixel((0, 0)) for image, _ in few] == [2, 0]


@given(some_labels, st.integers(0, 3))
def test_a_held_out_part_has_a_fifth_of_each_class_and_one_at_least(targets: list[int], seed: int) -> None:
    counts = {label: targets.count(label) for label in targets}
    if max(counts.values()) < 2:
        with pytest.raises(DataError, match="no class has two samples"):
            hold_out(targets, seed=seed, where="here")
        return
    train, val = hold_out(targets, seed=seed, where="here")
    assert sorted(train + val) == list(range(len(targets)))
    for label, count in counts.items():
        held = sum(targets[index] == label for index in val)
        assert held == (0 if count == 1 else max(1, round(count / 5)))


def test_a_held_out_part_does_not_depend_on_the_order_of_the_files() -> None:
    keys = [f"{number}.png" for number in range(20)]
    _, val = hold_out([0] * 20, seed=3, where="here", keys=keys)
    _, turned = hold_out([0] * 20, seed=3, where="here", keys=keys[::-1])
    assert {keys[index] for index in val} == {keys[::-1][index] for index in turned}


def test_another_seed_holds_out_others() -> None:
    assert hold_out([0] * 50, seed=0, where="") != hold_out([0] * 50, seed=1, where="")


def test_what_a_seed_draws_never_changes() -> None:
    assert hold_out([0] * 10 + [1] * 5, seed=0, where="")[1] == [2, 5, 10]


def test_a_few_of_each_class_are_kept_in_their_order() -> None:
    few = per_class(samples(10, 3, 7), 4, seed=1)
    assert labels(few) == [0] * 4 + [1] * 3 + [2] * 4
    numbers = [image.getpixel((0, 0)) for image, _ in few]
    assert numbers == sorted(numbers)


@given(some_labels, st.integers(1, 5))
def test_fewer_are_drawn_from_more(targets: list[int], count: int) -> None:
    whole = ArraySamples(np.zeros((len(targets), 1, 1), np.uint8), targets)
    less, more = per_class(whole, count, 0), per_class(whole, count + 1, 0)
    assert isinstance(less, Subset)
    assert isinstance(more, Subset)
    assert set(less.indices) <= set(more.indices)


def test_none_of_each_class_is_refused() -> None:
    with pytest.raises(DataError, match="0 samples a class leave nothing"):
        per_class(samples(3), 0)


@pytest.mark.parametrize(
    ("sizes", "usual"),
    [([(8, 6)] * 3 + [(9, 9)], (8, 6)), ([(10, 1), (20, 2), (30, 9)], (20, 2)), ([(4, 5)], (4, 5))],
)
def test_the_usual_size_is_that_of_most_or_the_median(
    sizes: list[tuple[int, int]], usual: tuple[int, int]
) -> None:
    assert usual_size(sizes) == usual
