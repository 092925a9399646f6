"""Sets of torchvision, read from small files of the official formats that the tests write."""

from __future__ import annotations

import inspect
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision import datasets

from torchgraft.data import parse_data
from torchgraft.data.torchvision import KNOWN
from torchgraft.errors import DataError


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Send every download to a port where nobody answers."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


def mnist_files(root: Path, *, name: str = "MNIST", train: int = 20, test: int = 10) -> Path:
    """Write the four idx files of an MNIST: image i has the value i everywhere and the label i % 10."""
    raw = root / name / "raw"
    raw.mkdir(parents=True)
    for prefix, count in (("train", train), ("t10k", test)):
        images = np.arange(count, dtype=np.uint8)[:, None, None].repeat(28, 1).repeat(28, 2)
        labels = (np.arange(count) % 10).astype(np.uint8)
        header = struct.pack(">IIII", 0x803, count, 28, 28)
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, count) + labels.tobytes())
    return root


def picture(path: Path, colour: tuple[int, int, int] = (9, 8, 7), size: tuple[int, int] = (12, 10)) -> None:
    """Write one image file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


@pytest.mark.parametrize("name", ["MNIST", "FashionMNIST", "KMNIST"])
def test_files_that_are_there_are_read(tmp_path: Path, no_network: None, name: str) -> None:
    data = parse_data(f"torchvision:{name}@{mnist_files(tmp_path, name=name)}").open()
    assert (len(data.train), len(data.val), data.channels, data.size) == (20, 10, 1, (28, 28))
    assert data.classes == tuple(getattr(datasets, name).classes)
    assert list(data.train.labels) == [number % 10 for number in range(20)]
    assert data.split == "stated: torchvision's train and test"
    image, label = data.train[13]
    assert (image.mode, image.getpixel((0, 0)), label) == ("L", 13, 3)


def test_upper_and_lower_case_are_alike(tmp_path: Path, no_network: None) -> None:
    assert len(parse_data(f"torchvision:mnist@{mnist_files(tmp_path)}").open().train) == 20


def test_the_default_folder_comes_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_network: None
) -> None:
    monkeypatch.setenv("TORCHGRAFT_DATA", str(mnist_files(tmp_path)))
    assert len(parse_data("torchvision:MNIST").open().val) == 10


def test_without_an_environment_the_default_folder_is_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_network: None
) -> None:
    monkeypatch.delenv("TORCHGRAFT_DATA", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    mnist_files(tmp_path / ".cache" / "torchgraft" / "data")
    assert len(parse_data("torchvision:MNIST").open().val) == 10


def test_a_set_without_a_split_is_split_by_seed(tmp_path: Path, no_network: None) -> None:
    for kind in ("Forest", "River"):
        for number in range(10):
            picture(tmp_path / "eurosat" / "2750" / kind / f"{kind}_{number}.jpg", size=(64, 64))
    data = parse_data(f"torchvision:EuroSAT@{tmp_path}").open(seed=4)
    assert data.classes == ("Forest", "River")
    assert (list(data.train.labels), list(data.val.labels)) == ([0] * 8 + [1] * 8, [0] * 2 + [1] * 2)
    assert (data.channels, data.size, data.split) == (3, (64, 64), "made: 20 % of each class, seed 4")


def test_classes_without_names_are_numbered(tmp_path: Path, no_network: None) -> None:
    base = tmp_path / "gtsrb" / "GTSRB"
    for label in range(3):
        picture(base / "Training" / f"{label:05d}" / "0.ppm")
        picture(base / "Final_Test" / "Images" / f"{label}.ppm")
    rows = "\n".join(f"{label}.ppm;{label}" for label in range(3))
    (tmp_path / "gtsrb" / "GT-final_test.csv").write_text(f"Filename;ClassId\n{rows}\n")
    data = parse_data(f"torchvision:GTSRB@{tmp_path}").open()
    assert data.classes == ("0", "1", "2")
    assert list(data.val.labels) == [0, 1, 2]


def test_pets_are_read_from_their_lists(tmp_path: Path, no_network: None) -> None:
    base = tmp_path / "oxford-iiit-pet"
    names = {"Abyssinian": 1, "great_pyrenees": 2}
    for half in ("trainval", "test"):
        for name in names:
            picture(base / "images" / f"{name}_{half}.jpg")
        lines = [f"{name}_{half} {label} 1 1" for name, label in names.items()]
        (base / "annotations").mkdir(exist_ok=True)
        (base / "annotations" / f"{half}.txt").write_text("\n".join(lines) + "\n")
    data = parse_data(f"torchvision:OxfordIIITPet@{tmp_path}").open()
    assert data.split == "stated: torchvision's trainval and test"
    assert len(data.classes) == 2
    assert data.train[1][1] == 1


def textures(root: Path, **lists: list[str]) -> Path:
    """Write a DTD with the classes given for each half."""
    base = root / "dtd" / "dtd"
    (base / "labels").mkdir(parents=True)
    for half, kinds in lists.items():
        for kind in kinds:
            picture(base / "images" / kind / f"{kind}_{half}.jpg")
        (base / "labels" / f"{half}1.txt").write_text("".join(f"{kind}/{kind}_{half}.jpg\n" for kind in kinds))
    return root


def test_validation_is_preferred_to_test_where_the_set_has_it(tmp_path: Path, no_network: None) -> None:
    data = parse_data(f"torchvision:DTD@{textures(tmp_path, train=['a', 'b'], val=['a', 'b'])}").open()
    assert data.split == "stated: torchvision's train and val"


def test_halves_that_name_different_classes_are_refused(tmp_path: Path, no_network: None) -> None:
    root = textures(tmp_path, train=["a", "b"], val=["b"])
    with pytest.raises(DataError, match="train and val name different classes"):
        parse_data(f"torchvision:DTD@{root}").open()


def test_a_broken_image_is_named_when_it_is_read(tmp_path: Path, no_network: None) -> None:
    root = textures(tmp_path, train=["a", "b"], val=["a", "b"])
    data = parse_data(f"torchvision:DTD@{root}").open()
    (root / "dtd" / "dtd" / "images" / "a" / "a_train.jpg").write_text("no image")
    with pytest.raises(DataError, match="image 0 of DTD can't be read"):
        data.train[0]


@pytest.mark.parametrize(("name", "home"), [("CIFAR10", "cifar-10-batches-py"), ("MNIST", "MNIST/raw")])
def test_without_files_and_network_the_folder_to_fill_is_named(
    tmp_path: Path, no_network: None, name: str, home: str
) -> None:
    with pytest.raises(DataError, match=rf"{name} can't be read from .* nor downloaded(.|\n)*{tmp_path}/{home}"):
        parse_data(f"torchvision:{name}@{tmp_path}").open()


def test_a_set_that_can_not_be_downloaded_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"FER2013 can't be read from .* torchvision can't download it"):
        parse_data(f"torchvision:FER2013@{tmp_path}").open()


def test_labels_that_are_no_classes_are_refused(tmp_path: Path, no_network: None) -> None:
    mnist_files(tmp_path)
    path = tmp_path / "MNIST" / "raw" / "train-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes()[:-1] + b"\x0b")
    with pytest.raises(DataError, match="MNIST has 10 classes, but label 11"):
        parse_data(f"torchvision:MNIST@{tmp_path}").open()


@pytest.mark.parametrize(("name", "hint"), [("CIFAR", "did you mean cifar10"), ("Zzz", "one of CIFAR10")])
def test_an_unknown_set_is_refused(name: str, hint: str) -> None:
    with pytest.raises(DataError, match=rf"no set of labelled images '{name}'(.|\n)*{hint}"):
        parse_data(f"torchvision:{name}").open()


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_every_known_set_takes_the_arguments_it_is_given(name: str) -> None:
    taken = inspect.signature(getattr(datasets, name).__init__).parameters
    asked = {key for half in KNOWN[name].halves or () for key in half}
    asked |= {"download"} if KNOWN[name].downloads else set()
    assert asked <= set(taken) or "kwargs" in taken
