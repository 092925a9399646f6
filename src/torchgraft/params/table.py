"""Every parameter of a model as data: shape, whether it is trained, in which group, and what values it holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torchgraft.params.groups import aligned
from torchgraft.select import Roles, parameters

if TYPE_CHECKING:
    from torch import nn

__all__ = ["FOLDED", "Line", "Parameters", "Row", "Statistics", "parameter_table"]

FOLDED = 40
"""Above so many lines, a table is folded by module."""


@dataclass(frozen=True)
class Statistics:
    """What values a tensor holds; `zeros` is the share that is exactly zero."""

    mean: float
    std: float
    min: float
    max: float
    zeros: float


@dataclass(frozen=True)
class Row:
    """One parameter.

    Attributes:
        path: its first name.
        shape: its sizes.
        dtype: as torch names it, without `torch.`.
        size: how many numbers it holds.
        trainable: whether training may change it.
        group: what group of the optimizer it is in.
        lr: its learning rate.
        weight_decay: its decay.
        statistics: of its values; None where they are not in memory.
        tied: its other names.
        edit: the number of the edit that put it in.
    """

    path: str
    shape: tuple[int, ...]
    dtype: str
    size: int
    trainable: bool
    group: str = ""
    lr: float | None = None
    weight_decay: float | None = None
    statistics: Statistics | None = None
    tied: tuple[str, ...] = ()
    edit: int | None = None


@dataclass(frozen=True)
class Line:
    """Rows that are shown as one."""

    path: str
    rows: tuple[Row, ...]

    @property
    def size(self) -> int:
        """How many numbers they hold."""
        return sum(row.size for row in self.rows)

    @property
    def statistics(self) -> Statistics | None:
        """The statistics of all their values together."""
        known = [(row.size, row.statistics) for row in self.rows if row.statistics is not None and row.size]
        if len(known) < len(self.rows) or not known:
            return None
        count = sum(size for size, _ in known)
        mean = sum(size * one.mean for size, one in known) / count
        square = sum(size * (one.std**2 + one.mean**2) for size, one in known) / count
        return Statistics(
            mean,
            max(square - mean**2, 0.0) ** 0.5,
            min(one.min for _, one in known),
            max(one.max for _, one in known),
            sum(size * one.zeros for size, one in known) / count,
        )


@dataclass(frozen=True)
class Parameters:
    """The parameters of a model, in its order.

    Attributes:
        rows: one for each parameter.
    """

    rows: tuple[Row, ...]

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def total(self) -> int:
        """How many numbers there are."""
        return sum(row.size for row in self.rows)

    @property
    def trainable(self) -> int:
        """How many numbers training may change."""
        return sum(row.size for row in self.rows if row.trainable)

    @property
    def frozen(self) -> int:
        """How many numbers training leaves as they are."""
        return self.total - self.trainable

    @property
    def new(self) -> int:
        """How many numbers edits put in."""
        return sum(row.size for row in self.rows if row.edit is not None)

    def lines(self, limit: int = FOLDED) -> list[Line]:
        """Fold the rows by module, as little as it takes to come to no more than `limit` lines."""
        deepest = max((row.path.count(".") for row in self.rows), default=0) + 1
        for depth in range(deepest, 0, -1):
            folded: dict[str, list[Row]] = {}
            for row in self.rows:
                folded.setdefault(".".join(row.path.split(".")[:depth]), []).append(row)
            if len(folded) <= limit or depth == 1:
                break
        return [Line(path, tuple(rows)) for path, rows in folded.items()] if self.rows else []

    def totals(self) -> str:
        """Say how many there are."""
        tied = sum(bool(row.tied) for row in self.rows)
        parts = [
            f"{len(self)} tensors",
            f"{self.total:,} parameters",
            f"{self.trainable:,} trainable",
            f"{self.frozen:,} frozen",
        ]
        return ", ".join(
            [*parts, *([f"{self.new:,} new"] if self.new else []), *([f"{tied} tied"] if tied else [])]
        )

    def cells(self, limit: int = FOLDED) -> list[tuple[str, ...]]:
        """Give the table as cells, its head first; columns that say nothing are left out."""
        head = ("parameter", "shape", "numbers", "dtype", "trained", "group", "lr", "decay", "mean", "std", "min",
                "max", "zeros", "")  # fmt: skip
        rows = [head, *(_cells(line) for line in self.lines(limit))]
        kept = [n for n in range(len(head)) if n < 3 or any(row[n] for row in rows[1:])]
        return [tuple(row[n] for n in kept) for row in rows]

    def __str__(self) -> str:
        rows = self.cells()
        words = [
            n for n, name in enumerate(rows[0]) if name in ("parameter", "shape", "dtype", "trained", "group", "")
        ]
        return "\n".join([*aligned(rows, left=words), "", self.totals()])


def _cells(line: Line) -> tuple[str, ...]:
    rows, one = line.rows, line.statistics
    whole = len(rows) == 1
    trained = {row.trainable for row in rows}
    notes = [f"= {name}" for row in rows for name in row.tied] if whole else []
    notes += [f"edit {number}" for number in sorted({row.edit for row in rows if row.edit is not None})]
    numbers = (
        ("",) * 5
        if one is None
        else (_mean(one), *(_short(x) for x in (one.std, one.min, one.max)), f"{one.zeros:.0%}")
    )
    return (
        rows[0].path if whole else f"{line.path}.**",
        "×".join(map(str, rows[0].shape)) if whole else f"{len(rows)} tensors",
        f"{line.size:,}",
        _common([row.dtype for row in rows]),
        "partly" if len(trained) > 1 else "yes" if trained == {True} else "no",
        _common([row.group for row in rows if row.group]),
        _span([row.lr for row in rows]),
        _span([row.weight_decay for row in rows]),
        *numbers,
        ", ".join(notes),
    )


def _common(words: Sequence[str]) -> str:
    """Give what all have in common, or how many different ones there are."""
    known = list(dict.fromkeys(words))
    return known[0] if len(known) == 1 else f"{len(known)} kinds" if known else ""


def _span(values: Sequence[float | None]) -> str:
    known = sorted({value for value in values if value is not None})
    return "" if not known else _short(known[0]) if len(known) == 1 else f"{_short(known[0])}–{_short(known[-1])}"


def _mean(one: Statistics) -> str:
    """Write a mean; what is left of rounding is zero."""
    return "0" if abs(one.mean) < 1e-7 * max(abs(one.min), abs(one.max)) else _short(one.mean)


def _short(value: float) -> str:
    return f"{value:.3g}"


def parameter_table(
    model: nn.Module,
    at: str | Iterable[str] | None = None,
    *,
    roles: Roles | None = None,
    groups: Any = None,
    added: Mapping[str, int] | None = None,
    statistics: bool = True,
) -> Parameters:
    """Write down the parameters of a model.

    Args:
        model: whose parameters they are.
        at: selectors of those that are wanted; all where none are given.
        roles: selector names that stand for paths.
        groups: an optimizer, or parameter groups: which group each is in, with what rate and decay.
        added: paths of modules that edits put in, with the number of the edit.
        statistics: read their values.

    Raises:
        SelectionError: a selector matches nothing.
    """
    wanted = frozenset(parameters(model, at, roles=roles)) if at is not None else None
    names: dict[int, list[str]] = {}
    held: dict[int, nn.Parameter] = {}
    for name, one in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(one), []).append(name)
        held[id(one)] = one
    grouped = _grouped(groups)
    rows = []
    for number, one in held.items():
        first, *others = names[number]
        if wanted is not None and wanted.isdisjoint(names[number]):
            continue
        label, lr, decay = grouped.get(number, ("", None, None))
        values = _statistics(one) if statistics else None
        size = tuple(one.shape), str(one.dtype).removeprefix("torch."), one.numel()
        edit = _edit(first, added or {})
        rows.append(Row(first, *size, one.requires_grad, label, lr, decay, values, tuple(others), edit))
    return Parameters(tuple(rows))


def _grouped(groups: Any) -> dict[int, tuple[str, float | None, float | None]]:
    """Give the group, rate and decay of each parameter by its id."""
    listed = getattr(groups, "param_groups", groups) or []
    labels = getattr(groups, "labels", [f"group {number}" for number in range(len(listed))])
    return {
        id(one): (label, _number(group.get("lr")), _number(group.get("weight_decay")))
        for label, group in zip(labels, listed, strict=True)
        for one in group["params"]
    }


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _edit(name: str, added: Mapping[str, int]) -> int | None:
    """Give the number of the edit that put a parameter in: that of the innermost module that is new."""
    homes = [path for path in added if name.startswith(f"{path}.")]
    return added[max(homes, key=len)] if homes else None


def _statistics(tensor: nn.Parameter) -> Statistics | None:
    """Read the values of a tensor; None where there are none to read."""
    if tensor.device.type == "meta" or not tensor.numel() or not (tensor.is_floating_point()):
        return None
    values = tensor.detach().float()
    low, high = values.aminmax()
    figures = values.mean(), values.std(correction=0), low, high, (values == 0).float().mean()
    mean, std, least, most, zeros = (float(one) for one in figures)
    return Statistics(mean, std, least, most, zeros)
