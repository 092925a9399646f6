"""Who holds a tensor, and what transformers' models say about tied embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from torchgraft.errors import SelectionError, nearest
from torchgraft.surgery.journal import every, held

if TYPE_CHECKING:
    from torch import nn

    from torchgraft.surgery.journal import Surgery

__all__ = ["Slot", "embeddings_tied", "holders", "slot"]


class Slot(NamedTuple):
    """A module, and the name under which it holds a parameter."""

    module: nn.Module
    name: str

    @property
    def tensor(self) -> nn.Parameter:
        """The parameter itself."""
        found = self.module._parameters[self.name]
        assert found is not None
        return found


def slot(model: nn.Module, path: str) -> Slot:
    """Find who holds the parameter of that name.

    Raises:
        SelectionError: there is no such parameter; the hint names those of a module, or the nearest.
    """
    home, _, name = path.rpartition(".")
    module = held(model, home) if home else model
    if module is not None and module._parameters.get(name) is not None:
        return Slot(module, name)
    known = [one for one, _ in model.named_parameters(remove_duplicate=False)]
    inside = [one for one in known if one.startswith(f"{path}.")]
    raise SelectionError(
        f"'{path}' is a module, no parameter" if inside else f"the model has no parameter '{path}'",
        where=path,
        hint=f"one of {', '.join(inside[:3])}" if inside else nearest(path, known) or "state_dict() lists them",
    )


def holders(model: nn.Module, tensor: Any) -> list[Slot]:
    """Give everyone who holds a parameter."""
    return [
        Slot(module, name) for module in every(model) for name, one in module._parameters.items() if one is tensor
    ]


def embeddings_tied(surgery: Surgery) -> None:
    """Let a transformers model's configuration say whether its output layer holds the weight of its embedding."""
    model: Any = surgery.model
    config = vars(model).get("config")
    if config is None or not hasattr(model, "get_output_embeddings"):
        return
    entry, last = model.get_input_embeddings(), model.get_output_embeddings()
    if entry is None or last is None:
        return
    tied = getattr(entry, "weight", None) is getattr(last, "weight", ())
    if getattr(config, "tie_word_embeddings", None) != tied:
        surgery.set(config, "tie_word_embeddings", tied)
    _tied_keys(surgery, tied)


def _tied_keys(surgery: Surgery, tied: bool) -> None:
    """Keep the table by which transformers leaves out, on saving, what is a second name of another."""
    model: Any = surgery.model
    table = vars(model).get("all_tied_weights_keys")
    if not isinstance(table, dict):
        return
    named = dict(model.named_parameters(remove_duplicate=False))
    last = {id(one) for one in model.get_output_embeddings().parameters()}
    entry = model.get_input_embeddings().weight
    source = next((name for name, one in named.items() if one is entry), "")
    others = {name: one for name, one in table.items() if named.get(name) is named.get(one)}
    if tied:
        others |= {
            name: source for name, one in named.items() if id(one) in last and one is entry and name != source
        }
    if others != table:
        surgery.set(model, "all_tied_weights_keys", others)
