"""`folder:PATH`: a folder of class folders, or train/ and val/ folders of class folders."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchgraft.data.base import DataSet, DataSource, Progress, made_split, usual_size
from torchgraft.data.copies import apart, copies
from torchgraft.data.images import SUFFIXES, Look, decode, read_all
from torchgraft.data.words import listing, natural, several
from torchgraft.errors import DataError, nearest

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["FileSamples", "Folder", "existing", "folders_in", "images_below", "stated"]

TRAIN = ("train", "training")
VAL = ("val", "valid", "validation", "test")


@dataclass(frozen=True)
class _File:
    """An image file, its class, and what reading it found."""

    path: Path
    kind: str
    look: Look


class FileSamples:
    """Images in files, decoded when asked for, or held in memory where `images` has them."""

    def __init__(
        self, paths: Sequence[Path], labels: Sequence[Any], *, mode: str, images: Sequence[Image.Image | None]
    ) -> None:
        self.paths = tuple(paths)
        self.labels: Sequence[Any] = tuple(labels)
        self.mode = mode
        self.images = tuple(images)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Image.Image, Any]:
        return self.image(index), self.labels[index]

    def image(self, index: int) -> Image.Image:
        """Give one image in the mode of all."""
        held = self.images[index]
        image = held.copy() if held is not None else _decode_again(self.paths[index])
        return image if image.mode == self.mode else image.convert(self.mode)


class Folder(DataSource):
    """Class folders below a folder: `folder:./flowers` or just `./flowers`.

    Every sub-folder is a class, its images at any depth; hidden files and files that are no images are passed
    over. A train/ (training/) folder beside a val/, valid/, validation/ or test/ folder, each with class
    folders, is a split that is taken as it stands; otherwise 20 % of each class are drawn for validation.
    """

    def open(self, *, seed: int = 0, strict: bool = False, progress: Progress | None = None) -> DataSet:
        """Read every image once, leave out the unreadable ones and split the rest."""
        where = str(self)
        root = existing(Path(self.rest).expanduser(), where)
        halves = stated(root, where) or (root,)
        folders = [_class_folders(half, where) for half in halves]
        classes = _classes(halves, folders, where)
        _refuse_other(root, classes, where)
        listed = [_listed(each, where) for each in folders]
        _refuse_empty(classes, {kind for _, kind in listed[0]}, (), where)
        halved = _read(listed, progress)
        skipped = _unreadable(root, halved)
        if strict and skipped:
            raise DataError(several("can't be read", skipped), where, "mend or remove them, or go on without")
        good = [[file for file in half if not file.look.why] for half in halved]
        _refuse_empty(classes, {file.kind for file in good[0]}, skipped, where)
        if len(good) == 2:
            split = _said(halves, good[1], classes, where)
            return _data_set(good[0], good[1], classes, split=split, skipped=skipped)
        train, val = _drawn(good[0], root, seed=seed, where=where)
        return _data_set(train, val, classes, split=made_split(seed), skipped=skipped)


def existing(root: Path, where: str) -> Path:
    """Give the folder back if it is one, or say what is there instead."""
    if any((root / mark).is_file() for mark in ("dataset_dict.json", "state.json")):
        raise DataError(f"{root} is a set that save_to_disk wrote", where, f"write hf:{root}")
    if root.is_dir():
        return root
    if root.exists():
        raise DataError(f"{root} is a file, not a folder", where, "name a folder; unpack an archive")
    parent = root.parent
    if not parent.is_dir():
        raise DataError(f"there is no folder {root}, nor {parent}", where, f"you are in {Path.cwd()}")
    beside = [folder.name for folder in folders_in(parent, where)]
    hint = nearest(root.name, beside) or f"{parent} holds {listing(beside) or 'no folders'}"
    raise DataError(f"there is no folder {root}", where, hint)


def _refuse_other(root: Path, classes: Sequence[str], where: str) -> None:
    """Refuse what another kind of data reads: as class folders it would train on nonsense, and say nothing."""
    if {name.lower() for name in classes} == {"images", "masks"}:
        raise DataError(f"{root} has images/ and masks/, which are no classes", where, f"write masks:{root}")


def folders_in(root: Path, where: str) -> list[Path]:
    """List the folders right below one in natural order, without hidden ones."""
    try:
        inside = [entry for entry in root.iterdir() if entry.is_dir() and not _hidden(entry.name)]
    except OSError as error:
        raise _unlisted(error, where) from error
    return sorted(inside, key=lambda folder: natural(folder.name))


def _unlisted(error: OSError, where: str) -> DataError:
    """Say which folder the system does not let us look into."""
    return DataError(f"{error.filename} can't be listed: {error.strerror}", where, "check its permissions")


def _hidden(name: str) -> bool:
    """Tell the files that systems leave behind; __MACOSX is what a Mac puts into an archive."""
    return name.startswith(".") or name == "__MACOSX"


def stated(root: Path, where: str) -> tuple[Path, Path] | None:
    """Find a train folder and the first of the folders that can be its validation half."""
    named = {folder.name.lower(): folder for folder in folders_in(root, where)}
    train = next((named[name] for name in TRAIN if name in named), None)
    val = next((named[name] for name in VAL if name in named), None)
    if train is None or (val is None and not folders_in(train, where)):  # a class may be called 'train'
        return None
    if val is None:
        raise DataError(
            f"{root} has {train.name}/, but no folder to validate on",
            where,
            f"add val/ beside it, or split {train.name}/ itself with folder:{train}",
        )
    return train, val


def _class_folders(root: Path, where: str) -> dict[str, Path]:
    """List the class folders of one half by name."""
    folders = folders_in(root, where)
    if folders:
        return {folder.name: folder for folder in folders}
    loose = images_below(root, where)
    if loose:
        raise DataError(
            f"{root} has {len(loose)} images right in it, but no class folders",
            where,
            "make a folder for each class and move its images there",
        )
    raise DataError(f"{root} has no class folders and no images", where, "put class folders into it")


def images_below(root: Path, where: str) -> list[Path]:
    """List the image files at any depth below a folder in natural order, without hidden ones."""

    def refuse(error: OSError) -> None:
        raise _unlisted(error, where) from error

    found: list[Path] = []
    for folder, inside, files in os.walk(root, onerror=refuse, followlinks=True):
        inside[:] = [name for name in inside if not _hidden(name)]
        paths = [Path(folder, name) for name in files if not _hidden(name)]
        found.extend(path for path in paths if path.suffix.lower() in SUFFIXES)
    return sorted(found, key=lambda path: natural(path.relative_to(root).as_posix()))


def _classes(halves: Sequence[Path], folders: Sequence[dict[str, Path]], where: str) -> tuple[str, ...]:
    """Name the classes, which are those of the train half, and refuse too few or others in validation."""
    classes = tuple(folders[0])
    foreign = [name for half in folders[1:] for name in half if name not in classes]
    if foreign:
        hint = nearest(foreign[0], classes) or f"{halves[0].name}/ has {listing(classes)}"
        what = f"{halves[1].name}/ has classes that {halves[0].name}/ lacks"
        raise DataError(several(what, foreign), where, hint)
    if len(classes) == 1:
        only = folders[0][classes[0]]
        inner = f", or are its classes one folder down, folder:{only}?" if folders_in(only, where) else ""
        raise DataError(f"{halves[0]} has one class only, '{only.name}'", where, f"add another class{inner}")
    return classes


def _listed(folders: dict[str, Path], where: str) -> list[tuple[Path, str]]:
    """List every image of one half with its class."""
    return [(path, kind) for kind, folder in folders.items() for path in images_below(folder, where)]


def _read(listed: Sequence[list[tuple[Path, str]]], progress: Progress | None) -> list[list[_File]]:
    """Read the images of all halves in one go, so that progress counts them together."""
    looks = iter(read_all([path for half in listed for path, _ in half], progress))
    return [[_File(path, kind, next(looks)) for path, kind in half] for half in listed]


def _unreadable(root: Path, halved: Sequence[list[_File]]) -> tuple[str, ...]:
    """Name the files that can't be read, and why."""
    bad = [file for half in halved for file in half if file.look.why]
    return tuple(f"{file.path.relative_to(root).as_posix()}: {file.look.why}" for file in bad)


def _refuse_empty(classes: Sequence[str], full: set[str], skipped: Sequence[str], where: str) -> None:
    """Refuse a class of which there is no image, or none that can be read."""
    empty = [name for name in classes if name not in full]
    if empty:
        kinds = f"images end in {', '.join(sorted(SUFFIXES))}"
        because = f"unreadable: {listing(skipped)}" if skipped else kinds
        raise DataError(
            several("class folders without an image that can be read", empty),
            where,
            f"remove the folders that are no classes, or fill them; {because}",
        )


def _drawn(files: Sequence[_File], root: Path, *, seed: int, where: str) -> tuple[list[_File], list[_File]]:
    """Draw the validation half by class and file name."""
    kinds = list(dict.fromkeys(file.kind for file in files))
    labels = [kinds.index(file.kind) for file in files]
    keys = [file.path.relative_to(root).as_posix() for file in files]
    contents = [file.look.digest for file in files]
    train, val = apart(labels, contents, task="classes", seed=seed, where=where, keys=keys)
    return [files[index] for index in train], [files[index] for index in val]


def _said(halves: Sequence[Path], val: Sequence[_File], classes: Sequence[str], where: str) -> str:
    """Say where a stated split comes from, and what its validation half does not judge."""
    full = {file.kind for file in val}
    if not full:
        raise DataError(f"{halves[1]} has no image that can be read", where, "put images to validate on into it")
    missing = [name for name in classes if name not in full]
    rest = f"; {several('never validated', missing)}" if missing else ""
    return f"stated: {halves[0].name}/ and {halves[1].name}/{rest}"


def _data_set(
    train: list[_File], val: list[_File], classes: tuple[str, ...], *, split: str, skipped: tuple[str, ...]
) -> DataSet:
    """Put the two halves together in one mode."""
    looks = [file.look for file in (*train, *val)]
    grey = all(look.grey for look in looks)
    labels = {name: label for label, name in enumerate(classes)}

    def samples(files: Sequence[_File]) -> FileSamples:
        return FileSamples(
            [file.path for file in files],
            [labels[file.kind] for file in files],
            mode="L" if grey else "RGB",
            images=[file.look.image for file in files],
        )

    size = usual_size([look.size for look in looks])
    shared = copies((file.look.digest for file in train), (file.look.digest for file in val))
    return DataSet(
        samples(train), samples(val), classes, 1 if grey else 3, size, split, skipped=skipped, shared=shared
    )


def _decode_again(path: Path) -> Image.Image:
    """Decode a file that could be read when the folder was opened."""
    try:
        return decode(path)
    except Exception as error:  # Pillow's decoders raise nearly anything on a broken file
        raise DataError(f"{path} can't be read any more: {error}", hint="restore the file") from error
