"""What one input from Python is: a picture, a text, or tensors that are taken as they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torchgraft.data.base import Kind
from torchgraft.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["Form", "form_of"]


@dataclass(frozen=True)
class Form:
    """What the inputs of a set are, told by a few of them, and the function that makes one of what was given.

    Attributes:
        kind: pictures, texts or tensors.
        convert: makes a PIL image (L or RGB), a text, or tensors. It can be sent to another process.
        channels: 1 or 3 for pictures, C for tensors [C, H, W], else 0.
        sizes: (height, width) of those that were looked at.
    """

    kind: Kind
    convert: Callable[[Any], Any]
    channels: int
    sizes: tuple[tuple[int, int], ...]


def form_of(few: Sequence[Any], where: str) -> Form:
    """Tell what inputs are by a few of them.

    Bytes of shape [H, W], [H, W, 3] or [C, H, W] with one or three channels are pictures; other numbers are
    tensors. A tensor of torch has its channels first, an array of NumPy last, where both can be read.

    Raises:
        DataError: no kind of input, or several kinds.
    """
    converts = [_convert(one, where) for one in few]
    if len(set(converts)) > 1:
        names = ", ".join(sorted({type(one).__name__ for one in few}))
        raise DataError(
            f"inputs are of several kinds: {names}, of several shapes", where, "make all of them alike"
        )
    convert = converts[0]
    if convert is str:
        return Form("text", str, 0, ())
    made = [convert(one) for one in few]
    if convert in (picture, _first, _last, _grey):
        grey = all(image.mode == "L" for image in made)
        return Form("image", convert, 1 if grey else 3, tuple((image.height, image.width) for image in made))
    maps = [one for one in made if hasattr(one, "dim") and one.dim() == 3]
    sizes = tuple((int(one.shape[1]), int(one.shape[2])) for one in maps)
    return Form("tensor", convert, int(maps[0].shape[0]) if maps else 0, sizes)


def _convert(one: Any, where: str) -> Callable[[Any], Any]:
    """Choose what makes an input of one that was given."""
    import numpy as np
    import torch
    from PIL import Image

    if isinstance(one, str):
        return str
    if isinstance(one, Image.Image):
        return picture
    if isinstance(one, (Mapping, tuple, list)):
        return tensors
    if isinstance(one, (np.ndarray, torch.Tensor)):
        byte = str(one.dtype).endswith("uint8")
        return _layout(tuple(one.shape), first=isinstance(one, torch.Tensor)) if byte else tensors
    if isinstance(one, (int, float, np.generic)):
        return tensors
    raise DataError(f"a {type(one).__name__} is no input", where, "give PIL images, texts, arrays or tensors")


def _layout(shape: tuple[int, ...], *, first: bool) -> Callable[[Any], Any]:
    """Say where the channels of bytes are."""
    if len(shape) == 2:
        return _grey
    ways = [_first] * (len(shape) == 3 and shape[0] in (1, 3)) + [_last] * (
        len(shape) == 3 and shape[-1] in (1, 3)
    )
    if not ways:
        return tensors
    return ways[0] if first else ways[-1]


def picture(image: Image.Image) -> Image.Image:
    """Make any image one of mode L or RGB."""
    from torchgraft.data.images import plain

    return plain(image)


def _grey(pixels: Any) -> Image.Image:
    from PIL import Image

    return Image.fromarray(_numpy(pixels))


def _last(pixels: Any) -> Image.Image:
    array = _numpy(pixels)
    return _grey(array[..., 0] if array.shape[-1] == 1 else array)


def _first(pixels: Any) -> Image.Image:
    import numpy as np

    return _last(np.ascontiguousarray(np.moveaxis(_numpy(pixels), 0, -1)))


def _numpy(pixels: Any) -> Any:
    import numpy as np

    return np.ascontiguousarray(pixels.detach().cpu().numpy() if hasattr(pixels, "detach") else pixels)


def tensors(one: Any) -> Any:
    """Make tensors of arrays and numbers, within dicts and tuples too; NumPy's doubles become single floats."""
    import numpy as np
    import torch

    if isinstance(one, torch.Tensor):
        return one
    if isinstance(one, Mapping):
        return {name: tensors(part) for name, part in one.items()}
    if isinstance(one, (tuple, list)):
        return tuple(tensors(part) for part in one)
    array = np.asarray(one)
    return torch.as_tensor(array.astype(np.float32) if array.dtype == np.float64 else array)
