"""Class folders: which files count, how they are split, what is said of those that can't be read."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from torchgraft.data import DataSet, images, parse_data
from torchgraft.data.folder import FileSamples
from torchgraft.errors import DataError


def picture(path: Path, *, mode: str = "RGB", size: tuple[int, int] = (6, 4), value: int = 90) -> Path:
    """Write one image file of a single colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode in ("L", "1", "I;16") else (value, 0, 0)[: len(mode)]).save(path)
    return path


def class_folders(root: Path, **counts: int) -> Path:
    """Write as many numbered images into each class folder as asked for."""
    for name, count in counts.items():
        for number in range(count):
            picture(root / name / f"{number}.png", value=number)
    return root


def opened(root: Path, **options: object) -> DataSet:
    """Open a folder by its text."""
    return parse_data(f"folder:{root}").open(**options)  # type: ignore[arg-type]


def files(samples: object) -> list[str]:
    """List class/file of the samples."""
    assert isinstance(samples, FileSamples)
    return ["/".join(path.parts[-2:]) for path in samples.paths]


def test_each_sub_folder_is_a_class_and_a_fifth_of_each_validates(tmp_path: Path) -> None:
    data = opened(class_folders(tmp_path, cat=10, dog=5))
    assert data.classes == ("cat", "dog")
    assert list(data.train.labels) == [0] * 8 + [1] * 4
    assert list(data.val.labels) == [0] * 2 + [1]
    assert (data.channels, data.size, data.skipped) == (3, (4, 6), ())
    assert data.split == "made: 20 % of each class, seed 0"


def test_the_same_seed_splits_alike_and_another_seed_does_not(tmp_path: Path) -> None:
    class_folders(tmp_path, a=30, b=30)
    assert files(opened(tmp_path, seed=1).val) == files(opened(tmp_path, seed=1).val)
    assert files(opened(tmp_path, seed=1).val) != files(opened(tmp_path, seed=2).val)


def test_the_split_depends_neither_on_where_the_folder_lies_nor_on_which_file_came_first(
    tmp_path: Path,
) -> None:
    class_folders(tmp_path / "here", b=9, a=9)
    for number in reversed(range(9)):
        for name in ("a", "b"):
            picture(tmp_path / "there" / name / f"{number}.png", value=number)
    assert files(opened(tmp_path / "here").val) == files(opened(tmp_path / "there").val)


def test_names_are_sorted_as_people_count(tmp_path: Path) -> None:
    data = opened(class_folders(tmp_path, **{"10": 2, "9": 12, "1": 2}))
    assert data.classes == ("1", "9", "10")
    nines = [name for name in files(data.train) if name.startswith("9/")]
    assert nines == sorted(nines, key=lambda name: int(name[2:-4]))


def test_hidden_files_and_files_that_are_no_images_are_passed_over(tmp_path: Path) -> None:
    class_folders(tmp_path, a=2, b=2)
    picture(tmp_path / "a" / ".thumb.png")
    picture(tmp_path / "__MACOSX" / "a" / "x.png")
    picture(tmp_path / ".cache" / "x.png")
    (tmp_path / "a" / "notes.txt").write_text("words")
    (tmp_path / "labels.csv").write_text("words")
    data = opened(tmp_path)
    assert data.classes == ("a", "b")
    assert len(data.train) + len(data.val) == 4
    assert data.skipped == ()


def test_images_deep_in_a_class_folder_belong_to_it(tmp_path: Path) -> None:
    class_folders(tmp_path, a=2, b=2)
    picture(tmp_path / "b" / "more" / "deep.JPG")
    assert len(opened(tmp_path).train) + len(opened(tmp_path).val) == 5


@pytest.mark.parametrize("val", ["val", "valid", "Validation", "test"])
@pytest.mark.parametrize("train", ["train", "Training"])
def test_train_and_validation_folders_are_taken_as_they_stand(tmp_path: Path, train: str, val: str) -> None:
    class_folders(tmp_path / train, a=3, b=2)
    class_folders(tmp_path / val, a=1, b=2)
    data = opened(tmp_path)
    assert data.split == f"stated: {train}/ and {val}/"
    assert (list(data.train.labels), list(data.val.labels)) == ([0, 0, 0, 1, 1], [0, 1, 1])


def test_validation_is_preferred_to_test(tmp_path: Path) -> None:
    for half in ("train", "test", "val"):
        class_folders(tmp_path / half, a=1, b=1)
    assert opened(tmp_path).split == "stated: train/ and val/"


def test_a_class_that_is_never_validated_is_named_in_the_split(tmp_path: Path) -> None:
    class_folders(tmp_path / "train", a=1, b=1)
    class_folders(tmp_path / "val", a=1)
    assert opened(tmp_path).split == "stated: train/ and val/; never validated (1): b"


def test_a_validation_class_that_train_lacks_is_refused(tmp_path: Path) -> None:
    class_folders(tmp_path / "train", rose=1, tulip=1)
    class_folders(tmp_path / "val", rose=1, tulips=1)
    with pytest.raises(DataError, match=r"val/ has classes that train/ lacks \(1\): tulips(.|\n)*mean tulip"):
        opened(tmp_path)


def test_train_without_validation_is_refused_with_both_ways_out(tmp_path: Path) -> None:
    class_folders(tmp_path / "train", a=2, b=2)
    with pytest.raises(DataError, match=r"no folder to validate on(.|\n)*add val/(.|\n)*folder:.*train"):
        opened(tmp_path)


def test_train_may_be_the_name_of_a_class(tmp_path: Path) -> None:
    assert opened(class_folders(tmp_path, train=2, bus=2)).classes == ("bus", "train")


def test_broken_files_are_skipped_named_and_counted(tmp_path: Path) -> None:
    class_folders(tmp_path, a=6, b=6)
    whole = picture(tmp_path / "a" / "big.jpg", size=(200, 200)).read_bytes()
    (tmp_path / "a" / "big.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "a" / "empty.png").touch()
    (tmp_path / "b" / "words.png").write_text("no image")
    noise = np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "b" / "cut.png")
    (tmp_path / "b" / "cut.png").write_bytes((tmp_path / "b" / "cut.png").read_bytes()[:2000])
    data = opened(tmp_path)
    assert len(data.train) + len(data.val) == 12
    assert [line.split(":")[0] for line in data.skipped] == [
        "a/big.jpg",
        "a/empty.png",
        "b/cut.png",
        "b/words.png",
    ]
    assert "truncated" in data.skipped[0]
    assert data.skipped[1] == "a/empty.png: the file is empty"
    assert "whatever '.png' says" in data.skipped[3]


def test_a_broken_file_moves_no_other_from_one_half_to_the_other(tmp_path: Path) -> None:
    class_folders(tmp_path, a=13, b=5)
    before = set(files(opened(tmp_path).val))
    (tmp_path / "a" / "zz.png").touch()
    assert set(files(opened(tmp_path).val)) == before


def test_strictness_refuses_broken_files_and_names_the_first(tmp_path: Path) -> None:
    class_folders(tmp_path, a=2, b=2)
    for number in range(7):
        (tmp_path / "a" / f"bad{number}.png").touch()
    with pytest.raises(DataError, match=r"can't be read \(7\): a/bad0.png: the file is empty.* and 2 more"):
        opened(tmp_path, strict=True)


def test_progress_counts_every_file_once(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    opened(class_folders(tmp_path, a=3, b=2), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(done, 5) for done in range(1, 6)]


def test_images_are_turned_upright_as_their_exif_says(tmp_path: Path) -> None:
    class_folders(tmp_path, a=1, b=2)
    exif = Image.Exif()
    exif[0x0112] = 6
    for path in tmp_path.rglob("*.png"):
        path.unlink()
    for name in ("a/0.jpg", "b/0.jpg", "b/1.jpg"):
        Image.new("RGB", (30, 10)).save(tmp_path / name, exif=exif)
    data = opened(tmp_path)
    assert data.size == (30, 10)
    assert data.train[0][0].size == (10, 30)


def test_only_grey_images_make_one_channel(tmp_path: Path) -> None:
    for number in range(4):
        picture(tmp_path / "ab"[number % 2] / f"{number}.png", mode="L")
    data = opened(tmp_path)
    assert (data.channels, data.train[0][0].mode) == (1, "L")
    picture(tmp_path / "a" / "colour.png")
    data = opened(tmp_path)
    assert data.channels == 3
    assert {image.mode for half in (data.train, data.val) for image, _ in half} == {"RGB"}


def test_images_come_decoded_with_their_label(tmp_path: Path) -> None:
    data = opened(class_folders(tmp_path, a=4, b=4))
    assert [image.getpixel((0, 0)) for image, _ in data.train][:3] == [
        (int(Path(name).stem), 0, 0) for name in files(data.train)[:3]
    ]
    assert [label for _, label in data.train] == list(data.train.labels)


def test_a_large_set_is_decoded_when_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class_folders(tmp_path, a=3, b=3)
    small = opened(tmp_path).train
    monkeypatch.setattr(images, "KEPT_BYTES", 100)
    large = opened(tmp_path).train
    assert isinstance(small, FileSamples)
    assert isinstance(large, FileSamples)
    assert all(image is not None for image in small.images)
    assert all(image is None for image in large.images)
    assert [np.asarray(image).tolist() for image, _ in small] == [np.asarray(image).tolist() for image, _ in large]
    large.paths[0].unlink()
    with pytest.raises(DataError, match="can't be read any more"):
        large[0]


def test_a_held_image_can_be_drawn_on_without_harm(tmp_path: Path) -> None:
    train = opened(class_folders(tmp_path, a=3, b=3)).train
    train[0][0].putpixel((0, 0), (1, 2, 3))
    assert train[0][0].getpixel((0, 0)) != (1, 2, 3)


def test_samples_travel_to_other_processes(tmp_path: Path) -> None:
    train = opened(class_folders(tmp_path, a=3, b=3)).train
    for again in (pickle.loads(pickle.dumps(train)), copy.deepcopy(train)):
        assert np.array_equal(again[1][0], train[1][0])


@pytest.mark.parametrize(
    ("image", "mode", "pixel"),
    [
        (Image.fromarray(np.full((2, 2), 65535, np.uint16)), "L", 255),
        (Image.fromarray(np.full((2, 2), 257 * 100, np.uint16)), "L", 100),
        (Image.fromarray(np.full((2, 2), 0.5, np.float32)), "L", 128),
        (Image.fromarray(np.full((2, 2), 200, np.float32)), "L", 200),
        (Image.new("RGBA", (2, 2), (10, 20, 30, 0)), "RGB", (255, 255, 255)),
        (Image.new("RGBA", (2, 2), (10, 20, 30, 255)), "RGB", (10, 20, 30)),
        (Image.new("LA", (2, 2), (40, 255)), "L", 40),
        (Image.new("LA", (2, 2), (40, 0)), "L", 255),
        (Image.new("1", (2, 2), 1), "L", 255),
        (Image.new("RGB", (2, 2), (9, 8, 7)).quantize(4), "RGB", (9, 8, 7)),
        (Image.new("RGB", (2, 2), (9, 9, 9)).quantize(4), "L", 9),
        (Image.new("CMYK", (2, 2), (0, 0, 0, 0)), "RGB", (255, 255, 255)),
        (Image.new("L", (2, 2), 70), "L", 70),
    ],
)
def test_every_kind_of_image_becomes_grey_or_colour_of_8_bits(
    image: Image.Image, mode: str, pixel: object
) -> None:
    made = images.plain(image)
    assert (made.mode, made.getpixel((0, 0))) == (mode, pixel)


def test_a_16_bit_file_is_scaled_and_a_transparent_palette_is_laid_over_white(tmp_path: Path) -> None:
    Image.fromarray(np.full((2, 2), 257 * 7, np.uint16)).save(tmp_path / "deep.png")
    Image.new("P", (2, 2), 0).save(tmp_path / "clear.gif", transparency=0)
    assert images.decode(tmp_path / "deep.png").getpixel((0, 0)) == 7
    assert images.decode(tmp_path / "clear.gif").getpixel((0, 0)) == 255


def test_numbers_without_a_known_white_are_refused() -> None:
    with pytest.raises(ValueError, match="grey values from -3 to 1 have no known white"):
        images.plain(Image.fromarray(np.array([[-3.0, 1.0]], np.float32)))


def test_a_folder_that_is_not_there_is_refused_with_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "flowers").mkdir()
    with pytest.raises(DataError, match=r"there is no folder .*flower\n(.|\n)*did you mean flowers"):
        opened(tmp_path / "flower")
    with pytest.raises(DataError, match=r"there is no folder .*zzz\n(.|\n)*holds flowers"):
        opened(tmp_path / "zzz")
    with pytest.raises(DataError, match=r"there is no folder .*deeper, nor .*zzz(.|\n)*you are in"):
        opened(tmp_path / "zzz" / "deeper")


def test_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "flowers.zip").touch()
    with pytest.raises(DataError, match="is a file, not a folder"):
        opened(tmp_path / "flowers.zip")


def test_loose_images_are_refused_with_what_to_do(tmp_path: Path) -> None:
    picture(tmp_path / "1.png")
    picture(tmp_path / "2.png")
    with pytest.raises(
        DataError, match=r"2 images right in it, but no class folders(.|\n)*a folder for each class"
    ):
        opened(tmp_path)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no class folders and no images"):
        opened(tmp_path)


def test_a_class_folder_without_images_is_refused(tmp_path: Path) -> None:
    class_folders(tmp_path, a=2, b=2)
    (tmp_path / "docs").mkdir()
    with pytest.raises(DataError, match=r"without an image that can be read \(1\): docs(.|\n)*images end in"):
        opened(tmp_path)


def test_a_class_folder_with_broken_images_only_is_refused(tmp_path: Path) -> None:
    class_folders(tmp_path, a=2, b=2)
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "1.png").touch()
    with pytest.raises(DataError, match=r"can be read \(1\): c(.|\n)*unreadable: c/1.png: the file is empty"):
        opened(tmp_path)


def test_validation_folders_without_a_readable_image_are_refused(tmp_path: Path) -> None:
    class_folders(tmp_path / "train", a=1, b=1)
    (tmp_path / "val" / "a").mkdir(parents=True)
    with pytest.raises(DataError, match="val has no image that can be read"):
        opened(tmp_path)


def test_one_class_is_refused_and_classes_further_down_are_pointed_to(tmp_path: Path) -> None:
    class_folders(tmp_path / "one", a=3)
    with pytest.raises(DataError, match=r"one class only, 'a'(.|\n)*add another class$"):
        opened(tmp_path / "one")
    class_folders(tmp_path / "two" / "flowers", a=3, b=3)
    with pytest.raises(DataError, match=r"one class only, 'flowers'(.|\n)*one folder down, folder:.*flowers\?"):
        opened(tmp_path / "two")


def test_single_images_leave_nothing_to_validate(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no class has two samples"):
        opened(class_folders(tmp_path, a=1, b=1))


def test_what_another_kind_of_data_reads_is_refused_with_its_name(tmp_path: Path) -> None:
    class_folders(tmp_path / "a", images=3, masks=3)
    with pytest.raises(DataError, match=r"are no classes(.|\n)*write masks:"):
        opened(tmp_path / "a")
    class_folders(tmp_path / "b", data=1, other=1)
    (tmp_path / "b" / "state.json").write_text("{}")
    with pytest.raises(DataError, match=r"save_to_disk wrote(.|\n)*write hf:"):
        opened(tmp_path / "b")


def test_a_copy_of_a_training_image_never_validates_where_the_split_is_drawn(tmp_path: Path) -> None:
    class_folders(tmp_path, a=10, b=10)
    for name in ("a", "b"):
        for number in range(5):
            picture(tmp_path / name / f"copy {number}.png", value=number)
    data = opened(tmp_path)
    train, val = (
        {(half.labels[place], half[place][0].getpixel((0, 0))) for place in range(len(half))}
        for half in (data.train, data.val)
    )
    assert val
    assert not train & val


def test_copies_in_a_stated_split_are_counted(tmp_path: Path) -> None:
    class_folders(tmp_path / "train", a=3, b=3)
    class_folders(tmp_path / "val", a=4, b=1)
    assert opened(tmp_path).shared == 4
