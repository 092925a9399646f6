"""Which parameters an initialisation draws anew and by which rule, and the new ones put in their places."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torchgraft.errors import EditError, SelectionError, nearest
from torchgraft.select import parameters
from torchgraft.surgery.journal import every
from torchgraft.surgery.values.drawing import bare, drawn, held_as, renewed
from torchgraft.surgery.values.follows import Followers, branch_ends
from torchgraft.surgery.values.initial import Initial
from torchgraft.surgery.values.layerkinds import Place, places, refuse_computed
from torchgraft.surgery.values.lsuv import normal_batch, scales

if TYPE_CHECKING:
    from torch import Tensor, nn

    from torchgraft.edits.init import Init
    from torchgraft.surgery.journal import Surgery
    from torchgraft.trace import Trace

__all__ = ["Draw", "draws", "ends", "followed", "put"]

_WEIGHTS = ("conv", "linear", "embedding", "recurrent", "attention")
"""Kinds that `weight` means, where they have no rule of their own."""


@dataclass(frozen=True)
class Draw:
    """One parameter that is drawn anew.

    Attributes:
        place: where it is.
        rule: how; None where only the forget gates of it change.
        forget: what the forget gates of this bias are set to; None leaves them.
    """

    place: Place
    rule: Initial | None = None
    forget: float | None = None

    @property
    def has_gain(self) -> bool:
        """Tell whether the rule depends on what follows the layer."""
        return self.rule is not None and bool({"gain", "nonlinearity"}.intersection(self.rule.takes))

    @property
    def asks(self) -> bool:
        """Tell whether the rule says itself that the trace is to be asked."""
        return self.rule is not None and "auto" in self.rule.args.values()


def draws(edit: Init, surgery: Surgery, last: Sequence[str]) -> list[Draw]:
    """Give what is drawn anew, each parameter once, in the order of the model.

    Raises:
        SelectionError: a selector matches nothing.
        EditError: no rule names any of what is selected, or its values are not its own.
    """
    chosen = parameters(surgery.model, edit.at, roles=surgery.roles)
    ending = {f"{path}.weight" for path in last}
    found: dict[int, Draw] = {}
    for place in places(surgery.model, dict.fromkeys([*chosen, *ending])):
        one = _draw(edit, place, place.path in last and place.own == "weight")
        if one is not None:
            found.setdefault(id(place.tensor), one)
    for one in found.values():
        refuse_computed(one.place)
    if edit.lstm_forget_bias is not None and not any(one.forget is not None for one in found.values()):
        raise EditError("no LSTM with a bias is selected", where=", ".join(edit.at), hint="select one")
    if not found:
        kinds = dict.fromkeys(place.kind for place in places(surgery.model, chosen))
        raise EditError(
            f"no rule names any of what is selected, which is of kind {', '.join(kinds)}",
            where=", ".join(edit.at),
            hint=f"say how {next(iter(kinds))} is drawn: init(…, {next(iter(kinds))}=…)",
        )
    return list(found.values())


def _draw(edit: Init, place: Place, ends_branch: bool) -> Draw | None:
    rule = Initial(name="zeros") if ends_branch else _rule(edit, place)
    forget = None
    if edit.lstm_forget_bias is not None and type(place.home).__name__ in ("LSTM", "LSTMCell"):
        forget = {"bias_ih": edit.lstm_forget_bias, "bias_hh": 0.0}.get(place.own[:7])
    return None if rule is None and forget is None else Draw(place, rule, forget)


def _rule(edit: Init, place: Place) -> Initial | None:
    """Give the rule of a parameter: that of its kind, or `weight` where it has none."""
    rules = edit.rules
    if place.part_of and place.kind == "linear" and "attention" in rules:
        return rules["attention"]
    if place.kind in rules or place.kind not in _WEIGHTS:
        return rules.get(place.kind)
    rule = rules.get("weight")
    scaled = rule is not None and rule.name == "lsuv"
    return None if scaled and place.kind not in ("conv", "linear") else rule


# what the trace tells


def _look(surgery: Surgery, asked: str, *, train: bool = False) -> Trace:
    trace = surgery.look(train)
    if trace.mismatch is not None:
        raise EditError(
            f"the model does not run, so '{asked}' can't be found",
            where=trace.mismatch.path or "init",
            hint="mend it first, or write out what is meant",
        )
    return trace


def ends(edit: Init, surgery: Surgery) -> tuple[str, ...]:
    """Give the paths of the norms that start at zero.

    Raises:
        EditError: no branch among what is selected ends in a norm.
        SelectionError: a norm that is named is not there.
    """
    if not isinstance(edit.zero_last, bool):
        known = dict(surgery.model.named_parameters(remove_duplicate=False))
        for path in edit.zero_last:
            if f"{path}.weight" not in known:
                homes = [name.removesuffix(".weight") for name in known]
                raise SelectionError(f"no norm '{path}' has a scale", where="zero_last", hint=nearest(path, homes))
        return edit.zero_last
    if not edit.zero_last:
        return ()
    chosen = set(parameters(surgery.model, edit.at, roles=surgery.roles))
    found = tuple(name.rpartition(".")[0] for name in branch_ends(_look(surgery, "zero_last")) if name in chosen)
    if not found:
        raise EditError(
            "no residual branch in what is selected ends in a norm with a scale",
            where=", ".join(edit.at),
            hint="name the norms: zero_last=['layer1.0.bn2'], or the last layers: init(at=…, linear='zeros')",
        )
    return found


def followed(edit: Init, surgery: Surgery, drawing: Sequence[Draw]) -> Any:
    """Give `nonlinearity` with what the trace says written out: its name -> the parameters that it follows.

    A later name counts more than an earlier one, so `linear` stands first for all where all are asked for.
    """
    auto = edit.nonlinearity == "auto"
    asked = [one for one in drawing if one.has_gain and (auto or one.asks)]
    if isinstance(edit.nonlinearity, dict) or not asked:
        return None if auto else edit.nonlinearity
    modules = dict(surgery.model.named_modules(remove_duplicate=False))
    seen = [Followers(_look(surgery, "nonlinearity"), modules)]
    if not all(seen[0].knows(one.place.name) for one in asked):  # an auxiliary head is only run in training
        seen.append(Followers(_look(surgery, "nonlinearity", train=True), modules))
    found: dict[str, tuple[str, ...]] = {"linear": edit.at} if auto else {}
    for one in drawing:
        follows = edit.nonlinearity if one not in asked else _follows(one.place, seen)
        if one.has_gain and isinstance(follows, str) and follows != "linear":
            found[follows] = (*found.get(follows, ()), one.place.name)
    return found


def _follows(place: Place, seen: Iterable[Followers]) -> str:
    """Name what follows a layer; gates and attention have nonlinearities of their own, which need no gain."""
    if place.kind not in ("conv", "linear", "embedding"):
        return "linear"
    return next((one.after(place.name) for one in seen if one.knows(place.name)), "linear")


# putting


def put(edit: Init, surgery: Surgery, drawing: Sequence[Draw], batch: Any) -> dict[str, float]:
    """Draw every tensor and exchange the old ones; give the factors of those that `lsuv` scaled, by name."""
    table = _table(edit, surgery)
    made = {one.place.name: _values(edit, surgery, one, table) for one in drawing}
    late = [one for one in drawing if one.rule is not None and one.rule.name == "lsuv"]
    holders = _holders(surgery, drawing)
    for one in drawing:
        if one not in late:
            _exchange(surgery, one, made[one.place.name], holders)
    found = dict(edit.scales) if edit.scales or not late else _scaled(surgery, late, made, batch)
    for one in late:
        _exchange(surgery, one, made[one.place.name] * found.get(one.place.name, 1.0), holders)
    return found


def _table(edit: Init, surgery: Surgery) -> dict[str, str] | str:
    """Give what follows each parameter by name, or what follows all."""
    if not isinstance(edit.nonlinearity, dict):
        return edit.nonlinearity or ""
    found = {}
    for follows, asked in edit.nonlinearity.items():
        chosen = parameters(surgery.model, asked, roles=surgery.roles)
        found.update({place.name: follows for place in places(surgery.model, chosen)})
    return found


def _values(edit: Init, surgery: Surgery, one: Draw, table: dict[str, str] | str) -> Tensor:
    place = one.place
    if one.rule is None:
        values = place.tensor.detach().to(device=None if place.tensor.is_meta else "cpu", copy=True)
    else:
        follows = table if isinstance(table, str) else table.get(place.name, "linear" if one.asks else "")
        values = drawn(place, one.rule, seed=surgery.seed, model=surgery.model, follows=follows, mode=edit.mode)
    if one.forget is not None:
        size = values.shape[0] // 4  # input, forget, cell and output gate, in this order
        values[size : 2 * size] = one.forget
    return values


_Holders = dict[int, list[tuple["nn.Module", str]]]


def _holders(surgery: Surgery, drawing: Sequence[Draw]) -> _Holders:
    """Find every module and name that holds each parameter, in one walk however many there are."""
    found: _Holders = {id(one.place.tensor): [] for one in drawing}
    for module in every(surgery.model):
        for name, tensor in module._parameters.items():
            if id(tensor) in found:
                found[id(tensor)].append((module, name))
    return found


def _exchange(surgery: Surgery, one: Draw, values: Tensor, holders: _Holders) -> None:
    new = renewed(values, one.place.tensor)
    for module, name in holders[id(one.place.tensor)]:
        surgery.hold(module, name, new)
    surgery.drawn.append(new)
    if one.rule is not None and one.rule.name == "reset" and one.place.kind == "norm":
        fresh = bare(one.place)
        for name, buffer in one.place.home._buffers.items():
            begun = fresh._buffers[name]
            if buffer is not None and begun is not None:
                surgery.hold(one.place.home, name, held_as(begun, buffer))


def _scaled(surgery: Surgery, late: Sequence[Draw], made: dict[str, Tensor], batch: Any) -> dict[str, float]:
    """Let a pass find the factors, on the given batch or on one of its own."""
    if any(one.is_meta for one in surgery.model.parameters()):
        raise EditError("lsuv needs weights with values", where="init, lsuv", hint="load the weights first")
    rules = [one.rule.args for one in late if one.rule is not None]
    samples = max(int(rule.get("samples", 16)) for rule in rules)
    if batch is None:
        batch = normal_batch(surgery.model, _look(surgery, "lsuv"), samples=samples, seed=surgery.seed)
    targets = [
        (one.place, renewed(made[one.place.name].clone(), one.place.tensor), rule)
        for one, rule in zip(late, rules, strict=True)
    ]
    return scales(surgery.model, targets, batch)
