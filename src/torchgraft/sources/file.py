"""`file:PATH@BASE`: the architecture of another source with the weights of a file."""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING

from torchgraft.errors import SourceError, nearest
from torchgraft.sources.base import Base, Source, parse_source

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

__all__ = ["File"]


class File(Source):
    """Weights from a safetensors file, or an older `.pt` file of tensors alone; `@` names the architecture."""

    def check(self, *, trust: bool = False) -> None:
        """See that the file is there, and that the architecture is known."""
        path = Path(self.name).expanduser()
        if not path.is_file():
            near = nearest(path.name, [one.name for one in path.parent.glob("*")]) if path.parent.is_dir() else ""
            raise SourceError(f"there is no file {path}", where=str(self), hint=near or "check the path")
        if self.tag:
            parse_source(_without_weights(self.tag)).check(trust=trust)

    def load(self, *, seed: int = 0, trust: bool = False) -> Base:
        """Build the architecture with random weights, then load the file's in their place, all of them."""
        self.check(trust=trust)
        path = Path(self.name).expanduser()
        state, noted = _read(path)
        architecture = self.tag or noted
        if not architecture:
            raise SourceError(
                "the file does not say which model its weights are for",
                where=str(self),
                hint=f"name it: file:{self.name}@torchvision:resnet18",
            )
        base = parse_source(_without_weights(architecture)).load(seed=seed, trust=trust)
        _fill(base.module, state, str(path))
        return Base(base.module, str(self), base.input, base.preprocess)


def _without_weights(text: str) -> str:
    return text if text.startswith("python:") else f"{text.partition('@')[0]}@none"


def _read(path: Path) -> tuple[Mapping[str, Tensor], str]:
    try:
        return _safetensors(path) if path.suffix == ".safetensors" else (_pickled(path), "")
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SourceError(
            f"the weights can't be read: {reason}",
            where=str(path),
            hint="give a safetensors file, or a .pt file of tensors alone: torch.save(model.state_dict(), …)",
        ) from error


def _safetensors(path: Path) -> tuple[Mapping[str, Tensor], str]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as opened:
        metadata = opened.metadata() or {}
        return {name: opened.get_tensor(name) for name in opened.keys()}, metadata.get("base", "")  # noqa: SIM118


def _pickled(path: Path) -> Mapping[str, Tensor]:
    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:  # torch's own words advise to run the code in the file
        raise ValueError("it holds more than tensors, and code from files is never run") from error
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(one, torch.Tensor) for one in state.values()):
        raise ValueError("it holds something else than a state dict")
    return state


def _fill(module: nn.Module, state: Mapping[str, Tensor], path: str) -> None:
    own = module.state_dict()
    missing = [name for name in own if name not in state]
    surplus = [name for name in state if name not in own]
    other = [name for name in own if name in state and own[name].shape != state[name].shape]
    if missing or surplus or other:
        parts = [
            f"{len(names)} {what} (such as {names[0]})"
            for what, names in (("missing", missing), ("unexpected", surplus), ("of another shape", other))
            if names
        ]
        raise SourceError(
            f"the weights are not for this model: {', '.join(parts)}",
            where=path,
            hint="name the architecture that they were saved from after the @",
        )
    module.load_state_dict(dict(state))
