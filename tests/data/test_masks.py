"""Folders of images and masks: how they are matched, what pixels stand for, what is refused."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from torchgraft.data import DataSet, parse_data
from torchgraft.data.balance import balance
from torchgraft.errors import DataError

RED, BLUE = (255, 0, 0), (0, 0, 255)


def image(path: Path, number: int = 0, size: tuple[int, int] = (6, 4)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (number, 0, 0)).save(path)


def mask(path: Path, pixels: object, palette: bool = False) -> None:
    """Write values [H, W], or colours [H, W, 3], as a mask."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made = Image.fromarray(np.asarray(pixels, np.uint8))
    if palette:
        made = made.convert("P") if made.mode != "L" else made
        made.putpalette([value for number in range(256) for value in (number, 255 - number, 7)])
    made.save(path)


def striped(*values: int) -> np.ndarray:
    """Give a mask of 4×6 whose columns have these values in turn."""
    return np.tile(np.resize(values, 6), (4, 1)).astype(np.uint8)


def pairs(home: Path, pixels: object, count: int = 5, **options: bool) -> Path:
    for number in range(count):
        image(home / "images" / f"{number}.jpg", number)
        mask(home / "masks" / f"{number}.png", pixels, **options)
    return home


def opened(home: Path, query: str = "", **options: object) -> DataSet:
    return parse_data(f"masks:{home}{query}").open(**options)  # type: ignore[arg-type]


def test_images_and_masks_of_one_name_are_samples(tmp_path: Path) -> None:
    data = opened(pairs(tmp_path, striped(0, 1, 2)))
    assert (data.task, data.kind, data.classes) == ("mask", "image", ("0", "1", "2"))
    assert (data.channels, data.size, list(data.train.labels)) == (3, (4, 6), [])
    assert (len(data.train), len(data.val), data.split) == (4, 1, "made: 20 % of the samples, seed 0")
    picture, target = data.train[0]
    assert (picture.mode, picture.size, target.dtype, target.shape) == ("RGB", (6, 4), np.uint8, (4, 6))
    assert target.tolist() == striped(0, 1, 2).tolist()


def test_a_palette_gives_its_indices(tmp_path: Path) -> None:
    data = opened(pairs(tmp_path, striped(0, 1, 2, 255), palette=True))
    assert Image.open(tmp_path / "masks" / "0.png").mode == "P"
    assert data.classes == ("0", "1", "2")
    assert data.train[0][1].tolist() == striped(0, 1, 2, 255).tolist()


def test_names_of_classes_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("road\nsky\ntree\nhouse\n")
    data = opened(pairs(tmp_path, striped(0, 2, 255)))
    assert data.classes == ("road", "sky", "tree", "house")
    (tmp_path / "classes.txt").write_text("road\nsky\n")
    with pytest.raises(DataError, match=r"the masks have 2, a value that none of the 2 named classes has"):
        opened(tmp_path)


def test_nothing_but_0_and_255_is_background_and_foreground(tmp_path: Path) -> None:
    data = opened(pairs(tmp_path, striped(0, 255)))
    assert data.classes == ("background", "foreground")
    assert data.train[0][1].tolist() == striped(0, 1).tolist()
    assert data.notes == ("masks of 0 and 255 are taken as background and foreground",)


def test_numbers_far_apart_become_classes_in_their_order(tmp_path: Path) -> None:
    data = opened(pairs(tmp_path, striped(0, 128, 200, 255)))
    assert data.classes == ("0", "128", "200")
    assert data.train[0][1].tolist() == striped(0, 1, 2, 255).tolist()


def test_colours_are_classes_and_a_file_names_them(tmp_path: Path) -> None:
    colours = np.tile(np.array([RED, BLUE], np.uint8), (4, 3, 1))
    data = opened(pairs(tmp_path, colours))
    assert data.classes == ("#0000ff", "#ff0000")
    assert data.train[0][1].tolist() == striped(1, 0).tolist()
    (tmp_path / "classes.txt").write_text("house 255 0 0\n0,0,255 sky\n")
    named = opened(tmp_path)
    assert named.classes == ("house", "sky")
    assert named.train[0][1].tolist() == striped(0, 1).tolist()


def test_numbers_saved_in_three_channels_are_numbers(tmp_path: Path) -> None:
    data = opened(pairs(tmp_path, np.repeat(striped(0, 1, 2, 255)[..., None], 3, axis=2)))
    assert data.classes == ("0", "1", "2")
    assert data.train[0][1].tolist() == striped(0, 1, 2, 255).tolist()


@pytest.mark.parametrize(
    "layout",
    ["{half}/images|{half}/masks", "images/{half}|masks/{half}", "{half}/JPEGImages|{half}/SegmentationClass"],
)
def test_stated_halves_are_taken_as_they_stand(tmp_path: Path, layout: str) -> None:
    for half, count in (("train", 3), ("val", 2)):
        images, masks = layout.format(half=half).split("|")
        for number in range(count):
            image(tmp_path / images / "deep" / f"{number}.png")
            mask(tmp_path / masks / "deep" / f"{number}_mask.png", striped(0, 1))
    data = opened(tmp_path)
    assert (len(data.train), len(data.val)) == (3, 2)
    assert data.split.startswith("stated: ")


def test_what_has_no_partner_or_does_not_fit_is_skipped_and_counted(tmp_path: Path) -> None:
    pairs(tmp_path, striped(0, 1), count=8)
    (tmp_path / "masks" / "0.png").unlink()
    (tmp_path / "images" / "1.jpg").write_bytes(b"words")
    (tmp_path / "masks" / "2.png").write_bytes(b"words")
    mask(tmp_path / "masks" / "3.png", striped(0, 1)[:2])
    mask(tmp_path / "masks" / "4.png", striped(255))
    mask(tmp_path / "masks" / "x.png", striped(0, 1))
    data = opened(tmp_path)
    assert data.skipped == (
        "images/0.jpg: no mask of that name in masks/",
        "masks/x.png: no image of that name",
        "1.jpg: no image of a kind that can be read, whatever '.jpg' says",
        "2.jpg: its mask 2.png: no image of a kind that can be read, whatever '.png' says",
        "3.jpg: its mask 3.png is 2×6, the image 4×6",
        "4.jpg: no pixel of its mask 4.png is judged",
    )
    assert len(data.train) + len(data.val) == 3
    with pytest.raises(DataError, match=r"are no samples \(6\)"):
        opened(tmp_path, strict=True)


def test_a_mask_that_turns_bad_is_a_data_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchgraft.data.maskfiles.KEPT_BYTES", 0)
    data = opened(pairs(tmp_path, striped(0, 1)))
    assert data.train[0][1].tolist() == striped(0, 1).tolist()
    mask(data.train.masks[0], striped(0, 9))
    with pytest.raises(DataError, match="the mask has 9, which is no class"):
        data.train[0]
    data.train.masks[0].unlink()
    with pytest.raises(DataError, match="can't be read any more"):
        data.train[0]


def test_samples_can_be_sent_to_another_process(tmp_path: Path) -> None:
    data = opened(pairs(tmp_path, striped(0, 1)))
    assert pickle.loads(pickle.dumps(data.train))[0][1].tolist() == striped(0, 1).tolist()


def test_pixels_are_counted_by_class(tmp_path: Path) -> None:
    counted = balance(opened(pairs(tmp_path, striped(0, 0, 0, 0, 1, 255))))
    assert counted is not None
    assert (counted.counts, counted.unit) == ((4 * 4 * 4, 4 * 4 * 1), "pixels")
    assert counted.sentence() == "16 to 64 pixels each"


@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        (striped(0), "every pixel of the masks is 0"),
        (
            np.random.default_rng(0).integers(0, 256, (40, 60, 3)),
            r"colours; a mask has one a class, and JPEG keeps none",
        ),
    ],
)
def test_masks_that_tell_nothing_apart_are_refused(tmp_path: Path, pixels: np.ndarray, said: str) -> None:
    for number in range(3):
        image(tmp_path / "images" / f"{number}.png", size=(pixels.shape[1], pixels.shape[0]))
        mask(tmp_path / "masks" / f"{number}.png", pixels)
    with pytest.raises(DataError, match=said):
        opened(tmp_path)


def test_numbers_beside_colours_are_refused(tmp_path: Path) -> None:
    pairs(tmp_path, striped(0, 1))
    mask(tmp_path / "masks" / "0.png", np.tile(np.array([RED, BLUE], np.uint8), (4, 3, 1)))
    with pytest.raises(DataError, match="some masks have class numbers, others have colours"):
        opened(tmp_path)


def test_a_folder_without_masks_is_refused(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    with pytest.raises(DataError, match=r"has no images/ beside masks/(.|\n)*train/ and val/"):
        opened(tmp_path)
    (tmp_path / "masks").mkdir()
    image(tmp_path / "images" / "a.png")
    mask(tmp_path / "masks" / "b.png", striped(0, 1))
    with pytest.raises(DataError, match=r"no image has a mask of the same name"):
        opened(tmp_path)


def test_two_names_are_those_of_0_and_255(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("skin\nlesion\n")
    data = opened(pairs(tmp_path, striped(0, 255)))
    assert (data.classes, data.train[0][1].tolist()) == (("skin", "lesion"), striped(0, 1).tolist())
