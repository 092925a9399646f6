"""`masks:FOLDER`: images and, beside them, masks that say the class of every pixel."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchgraft.data.base import DataSet, DataSource, Progress, made_split, usual_size
from torchgraft.data.copies import apart, copies
from torchgraft.data.folder import FileSamples, existing, folders_in, images_below, stated
from torchgraft.data.images import Look, read_all, reason
from torchgraft.data.maskfiles import Coding, MaskLook, code, look_at_masks, raw_of, read_names
from torchgraft.data.options import options
from torchgraft.data.words import several
from torchgraft.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

__all__ = ["MaskSamples", "Masks"]

IMAGES = ("images", "image", "imgs", "img", "jpegimages")
MASKS = ("masks", "mask", "annotations", "labels", "segmentationclass", "segmentations", "gt")
_ENDING = re.compile(r"[_-](masks?|gt|seg|segmentation|labels?|labelids)$", re.IGNORECASE)
"""What the name of a mask may have behind that of its image."""


@dataclass(frozen=True)
class _Pair:
    """An image, its mask, its name below the folder, and what reading both found."""

    name: str
    image: Path
    mask: Path
    look: Look
    mask_look: MaskLook

    @property
    def why(self) -> str:
        """What is wrong with it; nothing where it is a sample."""
        if self.look.why or self.mask_look.why:
            return self.look.why or f"its mask {self.mask.name}: {self.mask_look.why}"
        if self.look.size != self.mask_look.size:
            (height, width), (tall, wide) = self.look.size, self.mask_look.size
            return f"its mask {self.mask.name} is {tall}×{wide}, the image {height}×{width}"
        return ""


class MaskSamples:
    """Images and their masks, uint8 [H, W] of class numbers, 255 where none is judged.

    `pixels` counts those of each class over all masks; `held` has masks that stay in memory.
    """

    labels: Sequence[Any] = ()

    def __init__(self, images: FileSamples, masks: Sequence[Path], coding: Coding, held: Sequence[Any]) -> None:
        self.images = images
        self.masks = tuple(masks)
        self.coding = coding
        self.held = tuple(held)
        self.pixels: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.masks)

    def __getitem__(self, index: int) -> tuple[Image.Image, NDArray[np.uint8]]:
        held = self.held[index]
        mask = held.copy() if held is not None else self.coding.coded(_again(self.masks[index]))
        return self.images.image(index), mask


class Masks(DataSource):
    """A folder with images/ and masks/, or with train/ and val/ that have them: `masks:./streets`.

    An image and its mask have one name, whatever their endings (`a.jpg`, `a.png` or `a_mask.png`). A mask holds
    class numbers, from 0, as grey values or as indices into a palette, or a colour for each class; 255 is not
    judged. classes.txt names the classes, one a line, for colours with `red green blue` behind the name;
    `masks:FOLDER?classes=FILE` names another file.
    """

    def open(self, *, seed: int = 0, strict: bool = False, progress: Progress | None = None) -> DataSet:
        """Read every image and mask once, leave out what can't be read or does not fit, and split the rest."""
        where = str(self)
        name, asked = options(self.rest, ("classes",), where)
        root = existing(Path(name).expanduser(), where)
        names = _names(root, asked.get("classes"), where)
        found = [_pairs(images, masks, where) for images, masks in _layout(root, where)]
        read = _read([pairs for pairs, _ in found], progress)
        fine = [pair.mask_look for half in read for pair in half if not pair.why]
        coding = code(fine, names, where) if fine else None
        good = [[pair for pair in half if not _why(pair, coding)] for half in read]
        lone = [line for _, without in found for line in without]
        skipped = (*lone, *(f"{p.name}: {why}" for half in read for p in half if (why := _why(p, coding))))
        if strict and skipped:
            raise DataError(several("images or masks that are no samples", skipped), where, "mend or remove them")
        if coding is None or not all(good):
            raise DataError(several("no image with a mask can be read", skipped), where, "mend the files")
        return _data_set(good, coding, skipped, seed=seed, root=root, where=where)


# what is there


def _names(root: Path, asked: str | None, where: str) -> dict[int, str] | None:
    """Read the file that names the classes, if there is one."""
    if asked is not None:
        return read_names(Path(asked).expanduser(), where)
    path = next((root / name for name in ("classes.txt", "labels.txt") if (root / name).is_file()), None)
    return None if path is None else read_names(path, where)


def _layout(root: Path, where: str) -> list[tuple[Path, Path]]:
    """Find the folders of images and masks: of both halves, or of all."""
    whole = _two(root, where)
    if whole is None:
        parts = stated(root, where)
        pairs = [_two(part, where) for part in parts or ()]
        if parts is None or None in pairs:
            raise DataError(
                f"{parts[pairs.index(None)] if parts else root} has no images/ beside masks/",
                where,
                "put images and masks into folders of these names, or into those of train/ and val/",
            )
        return [pair for pair in pairs if pair is not None]
    split = [stated(part, where) for part in whole]
    if split[0] is not None and split[1] is not None:
        return [(images, masks) for images, masks in zip(*split, strict=True)]
    return [whole]


def _two(root: Path, where: str) -> tuple[Path, Path] | None:
    named = {folder.name.lower(): folder for folder in folders_in(root, where)}
    images = next((named[name] for name in IMAGES if name in named), None)
    masks = next((named[name] for name in MASKS if name in named), None)
    return None if images is None or masks is None else (images, masks)


def _pairs(images: Path, masks: Path, where: str) -> tuple[list[tuple[str, Path, Path]], list[str]]:
    """Match images and masks by their names below their folders; give the lines of those that have no partner."""
    named = {path.relative_to(masks).with_suffix("").as_posix(): path for path in images_below(masks, where)}
    plain = {_ENDING.sub("", name): path for name, path in named.items()}
    found, without = [], []
    for image in images_below(images, where):
        inner = image.relative_to(images)
        name = inner.with_suffix("").as_posix()
        mask = named.get(name) or plain.get(name)
        if mask is None:
            without.append(f"{images.name}/{inner.as_posix()}: no mask of that name in {masks.name}/")
        else:
            found.append((inner.as_posix(), image, mask))
    if not found:
        what = "no image has a mask of the same name" if without else f"{images} has no images"
        raise DataError(what, where, f"images in {images}, masks in {masks}, such as a.jpg and a.png")
    taken = {mask for _, _, mask in found}
    without += [f"{masks.name}/{path.name}: no image of that name" for path in named.values() if path not in taken]
    return found, without


def _read(halved: Sequence[Sequence[tuple[str, Path, Path]]], progress: Progress | None) -> list[list[_Pair]]:
    every = [pair for half in halved for pair in half]
    looks = iter(read_all([image for _, image, _ in every], progress))
    masks = iter(look_at_masks([mask for _, _, mask in every]))
    return [[_Pair(*pair, next(looks), next(masks)) for pair in half] for half in halved]


def _why(pair: _Pair, coding: Coding | None) -> str:
    """Say what is wrong with a pair: also that no pixel of it counts, since its loss would be none."""
    if pair.why or coding is None:
        return pair.why
    judged = [value for value in pair.mask_look.counts or {} if coding.table[value] < len(coding.classes)]
    return "" if judged else f"no pixel of its mask {pair.mask.name} is judged"


# the halves


def _data_set(
    good: Sequence[list[_Pair]], coding: Coding, skipped: tuple[str, ...], *, seed: int, root: Path, where: str
) -> DataSet:
    grey = all(pair.look.grey for half in good for pair in half)
    if len(good) == 2:
        train, val = good
        split = f"stated: the halves of {root.name}/"
    else:
        keys = [pair.name for pair in good[0]]
        contents = [pair.look.digest for pair in good[0]]
        places = apart([()] * len(keys), contents, task="mask", seed=seed, where=where, keys=keys)
        train, val = ([good[0][place] for place in half] for half in places)
        split = made_split(seed, "mask")
    return DataSet(
        train=_samples(train, coding, grey=grey),
        val=_samples(val, coding, grey=grey),
        classes=coding.classes,
        channels=1 if grey else 3,
        size=usual_size([pair.look.size for half in good for pair in half]),
        split=split,
        skipped=skipped,
        task="mask",
        notes=coding.notes,
        shared=copies((pair.look.digest for pair in train), (pair.look.digest for pair in val)),
    )


def _samples(pairs: Sequence[_Pair], coding: Coding, *, grey: bool) -> MaskSamples:
    images = FileSamples(
        [pair.image for pair in pairs],
        (),
        mode="L" if grey else "RGB",
        images=[pair.look.image for pair in pairs],
    )
    raw = [pair.mask_look.raw for pair in pairs]
    held = [None if one is None else coding.coded(one) for one in raw]
    samples = MaskSamples(images, [pair.mask for pair in pairs], coding, held)
    samples.pixels = coding.pixels(pair.mask_look for pair in pairs)
    return samples


def _again(path: Path) -> NDArray[Any]:
    """Decode a mask that could be read when the folder was opened."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.load()
            return raw_of(image)
    except Exception as error:  # Pillow's decoders raise nearly anything on a broken file
        raise DataError(
            f"{path} can't be read any more: {reason(error, path)}", hint="restore the file"
        ) from error
