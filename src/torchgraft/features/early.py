"""What can be told of a look before a model is loaded: whether its images and the place of its sheet will do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torchgraft.data.images import decode
from torchgraft.errors import DataError
from torchgraft.view.places import check_place

__all__ = ["check_sheet", "check_wanted", "decoded"]


def check_wanted(images: Sequence[Path], kind: str, to: Path | None, *, model: str = "MODEL") -> None:
    """Refuse images that can't be read, and a sheet that can't be written.

    Raises:
        DataError: an image can't be read, or none is named.
        StoreError: the sheet has no place.
    """
    if to is not None:
        check_sheet(to, images)
    if kind == "filters":
        return
    if not images:
        raise DataError("no image is named", where=kind, hint=f"torchgraft features {model} IMAGE.png …")
    for path in images:
        decoded(path)


def check_sheet(to: Path, images: Sequence[Path] = ()) -> None:
    """Refuse a file that no sheet can be written to.

    Raises:
        StoreError: it is not named as a PNG, another file is there, or it is one of the images.
    """
    check_place(to, (".png",), what="a sheet", inputs=images, makes_folder=True)


def decoded(path: Path) -> Any:
    """Read an image file.

    Raises:
        DataError: it can't be read.
    """
    if path.is_dir():
        raise DataError("this is a folder, not an image", where=str(path), hint=f"name its images: {path}/*.png")
    try:
        return decode(path)
    except FileNotFoundError as error:
        raise DataError("there is no such image", where=str(path), hint="check the path") from error
    except (OSError, ValueError) as error:
        raise DataError(f"the image can't be read: {error}", where=str(path), hint="give an image file") from error
