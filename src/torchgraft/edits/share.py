"""Share: one module in several places of the pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from torchgraft.edits.base import Edit
from torchgraft.errors import EditError
from torchgraft.schema import Places
from torchgraft.select import modules
from torchgraft.surgery.journal import every

if TYPE_CHECKING:
    from torch import nn

    from torchgraft.surgery.journal import Surgery

__all__ = ["Share"]


class Share(Edit):
    """Let the places `at` use the module `to` instead of their own, as ALBERT's layers do (Lan et al., 2020).

    It is the same module at each path, so its keys stand in the state dict under each of them. Layers that know
    their number, by which they find their slot in a cache, stay modules of their own and hold the same tensors.

    Attributes:
        at: the places that give way; `to` itself may be among them.
        to: the module that they use.
        by: whether they share the `module` or its `tensors`; written when the edit is applied.
        moved: new keys, and the base's.
    """

    written: ClassVar[frozenset[str]] = frozenset({"moved"})
    at: Places
    to: str
    by: Literal["module", "tensors"] | None = None
    moved: dict[str, str] = Field(default_factory=dict)

    def apply(self, surgery: Surgery) -> Share:
        """Move the references.

        Raises:
            SelectionError: a place, or the module, does not exist.
            EditError: a place holds or is held by the module, has other sizes, or there is none.
        """
        source = surgery.module(self.to)
        chosen = modules(surgery.model, self.at, roles=surgery.roles)
        paths = set(chosen)
        places = [
            path
            for path in chosen
            if surgery.module(path) is not source
            and not any(path[:end] in paths for end, letter in enumerate(path) if letter == ".")
        ]
        if not places:
            raise EditError(f"nothing but {self.to} itself is selected", where=self.to, hint="name other places")
        for path in places:
            _fits(surgery, path, self.to)
        numbered = any("layer_idx" in vars(one) for one in every(source))
        by = self.by or ("tensors" if numbered else "module")
        for path in places:
            if by == "module":
                surgery.put(path, source)
                surgery.added.pop()
            else:
                _lend(surgery, source, surgery.module(path))
        return self.model_copy(update={"by": by, "moved": dict.fromkeys(places, self.to)})

    def sentence(self) -> str:
        """Say what is shared."""
        what = f"the weights of {self.to}" if self.by == "tensors" else self.to
        return f"{', '.join(self.at)} {'uses' if len(self.at) == 1 else 'use'} {what}"


def _fits(surgery: Surgery, path: str, to: str) -> None:
    if path.startswith(f"{to}.") or to.startswith(f"{path}."):
        raise EditError(
            f"one of {path} and {to} holds the other", where=path, hint="share modules beside one another"
        )
    ours = {name: list(tensor.shape) for name, tensor in surgery.module(path).state_dict().items()}
    theirs = {name: list(tensor.shape) for name, tensor in surgery.module(to).state_dict().items()}
    odd = [name for name in {**theirs, **ours} if ours.get(name) != theirs.get(name)]
    if odd:
        name = odd[0]
        raise EditError(
            f"{path} and {to} are of different sizes: {name} is {ours.get(name, 'missing')} in {path} and "
            f"{theirs.get(name, 'missing')} in {to}",
            where=path,
            hint="share modules of the same kind and size; replace puts another module into a place",
        )


def _lend(surgery: Surgery, source: nn.Module, place: nn.Module) -> None:
    """Let the modules of a place hold the tensors of the source's."""
    theirs = dict(source.named_modules(remove_duplicate=False))
    for path, module in place.named_modules(remove_duplicate=False):
        for table in ("_parameters", "_buffers"):
            for name, tensor in getattr(theirs[path], table).items():
                if name in getattr(module, table) and getattr(module, table)[name] is not tensor:
                    surgery.hold(module, name, tensor)
