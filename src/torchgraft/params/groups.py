"""Parameter groups: every trainable parameter in exactly one, no frozen one in any."""

from __future__ import annotations

import difflib
import fnmatch
import inspect
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from torchgraft.errors import RecipeError
from torchgraft.select import Roles, parameters, selected
from torchgraft.select.roles import PARAMETER_ROLES
from torchgraft.wording import named

if TYPE_CHECKING:
    from torch import nn

__all__ = ["ALIASES", "NO_DECAY", "Groups", "Settings", "check_groups", "parameter_groups"]

NO_DECAY = ("norms", "biases", "vectors")
"""What weight decay spares: pulling scales and shifts to zero fits nothing to the data (He et al., 2019)."""

Settings = Mapping[str | tuple[str, ...], Mapping[str, Any]]
"""The settings of a group, by its selector or selectors."""


class Groups(list[dict[str, Any]]):
    """Parameter groups as torch.optim takes them; printed, they are a table.

    Attributes:
        labels: what each group is, in words: its selector, its layer, whether it is spared from decay.
    """

    def __init__(self, groups: Iterable[dict[str, Any]] = (), labels: Iterable[str] = ()) -> None:
        super().__init__(groups)
        self.labels = tuple(labels)

    def __str__(self) -> str:
        if not self:
            return "no groups: every parameter is frozen"
        rows: list[tuple[str, ...]] = [("group", "lr", "weight decay", "tensors", "parameters", "other settings")]
        rows += [_row(label, group) for label, group in zip(self.labels, self, strict=False)]
        total = sum(one.numel() for group in self for one in group["params"])
        rows.append(("in all", "", "", str(sum(len(group["params"]) for group in self)), f"{total:,}", ""))
        return "\n".join(aligned(rows, left=(0, 5)))

    __repr__ = __str__


def aligned(rows: Sequence[Sequence[str]], *, left: Collection[int]) -> Iterator[str]:
    """Write rows of cells in columns, numbers to the right."""
    wide = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        placed = enumerate(zip(row, wide, strict=True))
        yield "  ".join(f"{cell:<{w}}" if n in left else f"{cell:>{w}}" for n, (cell, w) in placed).rstrip()


def _row(label: str, group: Mapping[str, Any]) -> tuple[str, ...]:
    others = {k: v for k, v in group.items() if k not in ("params", "names", "lr", "weight_decay")}
    return (
        label,
        _short(group.get("lr")),
        _short(group.get("weight_decay")),
        str(len(group["params"])),
        f"{sum(one.numel() for one in group['params']):,}",
        ", ".join(f"{name} {value}" for name, value in others.items()),
    )


def _short(value: Any) -> str:
    """Write a rate; the optimizer's own, where none is given, is said as such."""
    return "optimizer's" if value is None else f"{float(value):.3g}"


def parameter_groups(
    model: nn.Module,
    settings: Settings,
    default: Mapping[str, Any],
    *,
    roles: Roles | None = None,
    no_decay: str | Iterable[str] = NO_DECAY,
    layer_decay: float | None = None,
    depths: Callable[[], Mapping[str, int]] | None = None,
) -> Groups:
    """Sort trainable parameters into groups.

    Args:
        model: whose parameters are sorted.
        settings: selector (or a tuple of them) -> settings of its group; where several select a parameter, the
            last wins.
        default: settings of the group for all others.
        roles: selector names that stand for paths.
        no_decay: what gets no weight decay where one is named, and what `model.no_weight_decay()` names as well; a
            group that selects nothing else, and names a decay, keeps it. `()` switches this off.
        layer_decay: multiply each rate by this, to the power of the number of layers that come after (Clark et
            al., 2020; Bao et al., 2022).
        depths: gives the number of each parameter's layer, for `layer_decay`.

    Returns:
        one dict a group with `params`, their `names`, and its settings; empty groups are left out.

    Raises:
        SelectionError: a selector matches nothing.
        RecipeError: what stands beside a selector are no settings, one is misspelt, or there is no rate to decay.
    """
    if not isinstance(settings, Mapping):
        raise RecipeError(f"{named(settings)} names no groups", where="groups", hint="{'head': {'lr': 1e-3}}")
    asked: list[tuple[str, ...]] = [(), *((text,) if isinstance(text, str) else text for text in settings)]
    own = [default, *settings.values()]
    for texts, one in zip(asked, own, strict=True):
        _check(", ".join(texts), one)
    if layer_decay is not None and not 0 < layer_decay <= 1:
        raise RecipeError(
            f"layer_decay is {layer_decay}",
            where="groups",
            hint="a factor a layer, more than 0 and 1 at the most, such as 0.75",
        )
    sorter = _Sorter(model, tuple(asked), tuple(own), roles or {})
    spared = sorter.spared(tuple([no_decay] if isinstance(no_decay, str) else no_decay))
    places = depths() if layer_decay is not None and depths is not None else {}
    groups = sorter.groups(spared, places, layer_decay)
    check_groups(groups, model)
    return groups


_Key = tuple[int, int, bool]
"""The number of the settings, the depth, and whether it is spared from decay."""


@dataclass(frozen=True)
class _Sorter:
    """Sorts the parameters of one model; settings number 0 are the default's."""

    model: nn.Module
    asked: tuple[tuple[str, ...], ...]
    own: tuple[Mapping[str, Any], ...]
    roles: Roles

    @cached_property
    def given(self) -> list[dict[str, Any]]:
        """All settings, those of the default included."""
        return [{**self.own[0], **one} for one in self.own]

    def trainable(self) -> list[tuple[str, nn.Parameter]]:
        return [(name, one) for name, one in self.model.named_parameters() if one.requires_grad]

    def owners(self) -> dict[int, int]:
        """Give the number of the settings of each parameter that a selector selects."""
        return {
            number: place
            for place, texts in enumerate(self.asked)
            if texts
            for number in selected(self.model, texts, roles=self.roles)
        }

    def spared(self, no_decay: tuple[str, ...]) -> frozenset[int]:
        """Give the parameters that decay spares, where any is named."""
        if not no_decay or not any(_decays(one) for one in self.given):
            return frozenset()
        texts = [one for one in no_decay if one not in PARAMETER_ROLES or PARAMETER_ROLES[one](self.model)]
        names = set(parameters(self.model, texts, roles=self.roles)) if texts else set()
        names |= set(_declared(self.model))
        held = self.model.named_parameters(remove_duplicate=False)
        return frozenset(id(one) for name, one in held if name in names)

    def groups(self, spared: frozenset[int], places: Mapping[str, int], decay: float | None) -> Groups:
        """Put the parameters together that share settings, layer and decay."""
        owners, last = self.owners(), max(places.values(), default=0)
        meant = self._meant(owners, spared)
        members: dict[_Key, list[tuple[str, nn.Parameter]]] = {}
        for name, one in self.trainable():
            number = owners.get(id(one), 0)
            free = id(one) in spared and number not in meant and _decays(self.given[number])
            members.setdefault((number, places.get(name, last), free), []).append((name, one))
        made, labels = [], []
        for key in sorted(members):
            made.append(_group(members[key], self._settings(key, last, decay)))
            labels.append(self._label(key, [name for name, _ in members[key]] if decay is not None else []))
        return Groups(made, labels)

    def _meant(self, owners: Mapping[int, int], spared: frozenset[int]) -> set[int]:
        """Give the settings that name a decay for a group of spared parameters alone: it is meant."""
        mixed = {number for key, number in owners.items() if key not in spared}
        return {number for number in set(owners.values()) - mixed if "weight_decay" in self.own[number]}

    def _settings(self, key: _Key, last: int, decay: float | None) -> dict[str, Any]:
        number, depth, free = key
        settings = dict(self.given[number])
        if "lr" in settings and "lr_scale" in settings:  # of timm's groups; torch's optimizers do not know it
            settings["lr"] = settings["lr"] * settings.pop("lr_scale")
        if decay is not None:
            if "lr" not in settings:
                raise RecipeError("layer_decay needs a rate to decay", where="groups", hint="groups(…, lr=1e-3)")
            settings["lr"] = settings["lr"] * decay ** (last - depth)
        return {**settings, "weight_decay": 0.0} if free else settings

    def _label(self, key: _Key, layer: Sequence[str]) -> str:
        number, depth, free = key
        parts = [", ".join(self.asked[number]) or ("all others" if len(self.asked) > 1 else "all")]
        parts += [f"layer {depth}{_place(layer)}"] if layer else []
        return ", ".join([*parts, *(["no decay"] if free else [])])


def _place(names: Sequence[str]) -> str:
    """Say where parameters lie, if all lie in one module: ` (layer2.0)`."""
    columns = zip(*(name.split(".")[:-1] for name in names), strict=False)
    shared = [parts[0] for parts in takewhile(lambda parts: len(set(parts)) == 1, columns)]
    return f" ({'.'.join(shared)})" if shared else ""


def _group(members: list[tuple[str, nn.Parameter]], settings: Mapping[str, Any]) -> dict[str, Any]:
    return {"params": [one for _, one in members], "names": [name for name, _ in members], **settings}


def _decays(settings: Mapping[str, Any]) -> bool:
    return bool(settings.get("weight_decay"))


def _declared(model: nn.Module) -> Iterable[str]:
    """Give the parameters that the model itself wants spared, as timm's models and Swin's own code say it."""
    patterns = _said(model, "no_weight_decay")
    words = _said(model, "no_weight_decay_keywords")
    for name, _ in model.named_parameters():
        if any(fnmatch.fnmatchcase(name, one) for one in patterns) or any(word in name for word in words):
            yield name


def _said(model: nn.Module, method: str) -> tuple[str, ...]:
    said = getattr(model, method, None)
    return tuple(said()) if callable(said) else ()


def check_groups(groups: Iterable[Mapping[str, Any]], model: nn.Module) -> None:
    """Make sure that each trainable parameter is in exactly one group, and each frozen one in none.

    Raises:
        RecipeError: names those that are not.
    """
    held = Counter(id(one) for group in groups for one in group["params"])
    for name, one in model.named_parameters():
        if held[id(one)] != int(one.requires_grad):
            what = "frozen, but in a group" if not one.requires_grad else f"in {held[id(one)] or 'no'} groups"
            raise RecipeError(f"{name} is {what}", where="groups", hint="g.groups(…) sorts each into one")


_NEAR = 0.75
"""Likeness (of difflib) from which an unknown setting is a misspelt one: `lrr` and `lr` have 0.8, `lr_scale` and
`lr`, of timm's layer-wise decay, 0.4."""


ALIASES = {
    "learning_rate": "lr",
    "learningrate": "lr",
    "wd": "weight_decay",
    "l2": "weight_decay",
    "l2_penalty": "weight_decay",
    "beta1": "betas",
    "beta2": "betas",
    "epsilon": "eps",
}
"""What other libraries call the settings of torch's optimizers."""


def _check(text: str, given: Any) -> None:
    """Refuse settings that are none, and names that come near one that optimizers take; others may be meant."""
    where = f"groups, {text}" if text else "groups"
    if not isinstance(given, Mapping):
        raise RecipeError(
            f"{given!r:.40} are no settings", where=where, hint=f"write {{{text!r}: {{'lr': 1e-3}}}}: a dict"
        )
    known = _known()
    for name in given:
        alias = [ALIASES[str(name).lower()]] if str(name).lower() in ALIASES else []
        near = alias or difflib.get_close_matches(str(name), known, n=1, cutoff=_NEAR)
        if name not in known and near:
            raise RecipeError(f"no optimizer takes '{name}'", where=where, hint=f"did you mean {near[0]}?")
    for name in ("lr", "weight_decay", "momentum"):
        value = given.get(name, 0)
        if isinstance(value, (int, float)) and not value >= 0:
            raise RecipeError(f"{name} is {value}", where=where, hint="a number of 0 or more is needed")


def _known() -> frozenset[str]:
    """Give the settings that the optimizers of torch take, and that its schedules keep in a group."""
    import torch

    made = [one for one in vars(torch.optim).values() if isinstance(one, type)]
    taken = {
        name
        for one in made
        if issubclass(one, torch.optim.Optimizer)
        for name in inspect.signature(one.__init__).parameters
    }
    return frozenset(taken - {"self", "params", "defaults"} | {"initial_lr", "max_lr", "min_lr"})
