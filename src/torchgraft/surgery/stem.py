"""The layers that read the input, for another number of channels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torchgraft.errors import EditError
from torchgraft.surgery.journal import twin

if TYPE_CHECKING:
    from torch import Tensor, nn

    from torchgraft.surgery.journal import Surgery

__all__ = ["fitted", "fold", "rearranged", "untransformed"]

# torchvision's transform_input turns the normalisation of ImageNet into that of Inception, x -> scale * x + shift.
_SCALES = tuple(std / 0.5 for std in (0.229, 0.224, 0.225))
_SHIFTS = tuple((mean - 0.5) / 0.5 for mean in (0.485, 0.456, 0.406))


def fitted(layer: nn.Module, channels: int, path: str, *, zero: bool = False) -> nn.Module | None:
    """Give a twin of a convolution that takes `channels` channels and shares all but the weight.

    A grouped convolution becomes a plain one with zeros where it had no weights.

    Returns:
        the twin, or None where the layer takes so many already.

    Raises:
        EditError: the layer is no convolution.
    """
    from torch import nn

    if not isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        raise EditError(
            f"the input is read by {type(layer).__name__}, whose channels can't be changed",
            where=path,
            hint="replace it with a module of your own, or convert the images",
        )
    if layer.in_channels == channels:
        return None
    made = twin(layer, path)
    weight: Any = layer.weight
    whole = _ungrouped(weight.detach(), layer.groups)
    made.weight = nn.Parameter(fold(whole, channels, zero=zero), requires_grad=weight.requires_grad)
    vars(made).update(in_channels=channels, groups=1)
    return made


def rearranged(
    surgery: Surgery, layer: nn.Module, path: str, channels: int, shape: tuple[int, ...]
) -> nn.Module | None:
    """Give a twin of a convolution that reads the image with its pixels moved into channels, as TResNet's does.

    Where each channel goes is seen by sending an image through whose channels hold their own number.

    Returns:
        the twin, or None where the convolution reads the channels as they are, or something else than moved ones.
    """
    from torch import nn

    held: Any = layer
    if not isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d)) or layer.groups != 1:
        return None
    sizes = [size for size in dict.fromkeys((3, shape[1], 1, 4)) if held.in_channels % size == 0]
    moves = (_moved(surgery, path, size, shape) for size in sizes if held.in_channels > size)
    before = next((one for one in moves if len(one) == held.in_channels), [])
    after = _moved(surgery, path, channels, shape) if before else []
    if not after or len(before) // (max(before) + 1) != len(after) // channels:
        return None
    made = twin(layer, path)
    made.weight = nn.Parameter(_by_slots(held.weight.detach(), before, after), held.weight.requires_grad)
    vars(made).update(in_channels=len(after))
    return made


def _moved(surgery: Surgery, path: str, channels: int, shape: tuple[int, ...]) -> list[int]:
    """Say of which channel of an image each channel is that arrives at a layer; empty where they are mixed."""
    import torch

    from torchgraft.trace import arriving

    numbers = torch.arange(channels, dtype=torch.float32).reshape(1, channels, *(1 for _ in shape[2:]))
    found = arriving(surgery.model, numbers.expand(1, channels, *shape[2:]).clone(), path)
    if found is None or found.is_meta or found.dim() != len(shape) or found.shape[1] % channels:
        return []
    flat = found[0].flatten(1)
    whole = bool((flat == flat[:, :1]).all()) and set(flat[:, 0].tolist()) == set(range(channels))
    return [int(number) for number in flat[:, 0].tolist()] if whole else []


def _by_slots(weight: Tensor, before: list[int], after: list[int]) -> Tensor:
    """Fold the weight of each place that a pixel was moved to by itself."""
    import torch

    old, new = max(before) + 1, max(after) + 1
    made = torch.zeros(weight.shape[0], len(after), *weight.shape[2:], dtype=weight.dtype, device=weight.device)
    for slot in range(len(before) // old):
        from_ = [[n for n, c in enumerate(before) if c == channel][slot] for channel in range(old)]
        to = [[n for n, c in enumerate(after) if c == channel][slot] for channel in range(new)]
        made[:, to] = fold(weight[:, from_], new)
    return made


def _ungrouped(weight: Tensor, groups: int) -> Tensor:
    """Write the weight of a grouped convolution `[O, I/g, …]` as that of a plain one `[O, I, …]`."""
    import torch

    if groups == 1:
        return weight
    outputs, inputs = weight.shape[0] // groups, weight.shape[1]
    whole = torch.zeros(
        weight.shape[0], inputs * groups, *weight.shape[2:], dtype=weight.dtype, device=weight.device
    )
    for group in range(groups):
        rows = slice(group * outputs, (group + 1) * outputs)
        whole[rows, group * inputs : (group + 1) * inputs] = weight[rows]
    return whole


def fold(weight: Tensor, channels: int, *, zero: bool = False) -> Tensor:
    """Turn a convolution weight `[O, I, …]` into `[O, channels, …]`.

    Input channel j of the new weight stands for the old channels that are j modulo `channels` (summed), or
    shares old channel j modulo I with its copies (divided). The sum over input channels is kept, so an image
    with equal channels gives the same activation, for every number of channels. With `zero`, channels beyond
    the old ones start at zero instead, which keeps the sum as well.
    """
    import torch

    old = weight.shape[1]
    if channels <= old:
        parts = [weight[:, start::channels].sum(1) for start in range(channels)]
    elif zero:
        parts = [*weight.unbind(1), *[torch.zeros_like(weight[:, 0])] * (channels - old)]
    else:
        copies = [len(range(start, channels, old)) for start in range(old)]
        parts = [weight[:, place % old] / copies[place % old] for place in range(channels)]
    return torch.stack(parts, dim=1)


def untransformed(surgery: Surgery, channels: int) -> None:
    """Turn off torchvision's `transform_input`, which reads three channels, and let the first layer do its work.

    The scale goes into the first weight, the shift into the running mean of the norm behind it: the same
    activations, but for the padded border of googlenet's first convolution.
    """
    from torch import nn

    model: Any = surgery.model
    if channels == 3 or vars(model).get("transform_input") is not True:
        return
    surgery.set(model, "transform_input", False)
    path = next((one for one, part in model.named_modules() if isinstance(part, nn.Conv2d)), "")
    conv, norm = model.get_submodule(path), model.get_submodule(f"{path.rpartition('.')[0]}.bn")
    weight = conv.weight.detach()
    scaled = weight * weight.new_tensor(_SCALES)[:, None, None]
    shift = (weight * weight.new_tensor(_SHIFTS)[:, None, None]).sum((1, 2, 3))
    made, moved = twin(conv, path), twin(norm, path)
    made.weight = nn.Parameter(scaled, requires_grad=conv.weight.requires_grad)
    moved._buffers["running_mean"] = norm.running_mean - shift
    for place, layer in ((path, made), (f"{path.rpartition('.')[0]}.bn", moved)):
        surgery.put(place, layer)
        surgery.added.pop()
