"""A model to look at: a tree of its modules with what each gives, holds, computes and keeps."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from torchgraft.errors import RecipeError, nearest
from torchgraft.probes.arguments import input_names
from torchgraft.rules import judge
from torchgraft.select import modules
from torchgraft.view.summary_rows import Row, Rows, Shape
from torchgraft.view.summary_sizes import bytes_of

if TYPE_CHECKING:
    from torchgraft.graft import Graft
    from torchgraft.trace import Trace

__all__ = ["By", "Row", "Seen", "Summary", "as_data", "show"]

By = Literal["macs", "params", "memory"]
"""What the share of a row is a share of: work, parameters, or activations."""


@dataclass(frozen=True)
class Seen:
    """A tensor that goes into the model or comes out of it: its name where it has one, shape and dtype."""

    name: str
    shape: Shape
    dtype: str


@dataclass(frozen=True, repr=False)
class Summary:
    """What a model is made of, and what one pass through it takes.

    Figures of work and memory are for one sample.

    Attributes:
        title: what the model is called.
        rows: every module, bare parameter and operation that was asked for, in the order of the pass.
        whole: the row of the whole model.
        batch: how many samples went into the pass; shapes have them all.
        train: taken in training mode.
        real: taken with small real tensors, since the flow depends on values.
        inputs: what went in.
        outputs: what came out.
        tensors: how many parameter tensors there are.
        tied: how many of them have several names.
        weight_bytes: memory of the parameters.
        buffer_bytes: memory of the buffers.
        broke: the finding, where the pass broke off.
        broke_at: the path of the module that it broke off in.
        asked: the selectors that chose the rows.
        depth: how deep the text goes; None for as deep as is well read.
        by: what shares are of.
        takes: the text shows what each module is given as well.
    """

    title: str
    rows: tuple[Row, ...]
    whole: Row
    batch: int
    train: bool
    real: bool
    inputs: tuple[Seen, ...]
    outputs: tuple[Seen, ...]
    tensors: int
    tied: int
    weight_bytes: int
    buffer_bytes: int
    broke: str = ""
    broke_at: str = ""
    asked: tuple[str, ...] = ()
    depth: int | None = None
    by: By = "macs"
    takes: bool = False

    @property
    def parameters(self) -> int:
        """Numbers in the model's parameters, each parameter once."""
        return self.whole.parameters

    @property
    def trainable(self) -> int:
        """Of these, what training may change."""
        return self.whole.trainable

    @property
    def frozen(self) -> int:
        """Of these, what training leaves as it is."""
        return self.whole.parameters - self.whole.trainable

    @property
    def new(self) -> int:
        """Of these, what edits put in."""
        return self.whole.new

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one sample; a FLOP count is twice that."""
        return self.whole.macs

    @property
    def activations(self) -> int:
        """Bytes of new storage that the operations of the pass make for one sample."""
        return self.whole.activations

    def __str__(self) -> str:
        from torchgraft.view.summary_text import plain

        return plain(self)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from torchgraft.view.summary_text import html

        return html(self)


def show(
    graft: Graft,
    at: str | Iterable[str] | None = None,
    depth: int | None = None,
    *,
    by: By = "macs",
    takes: bool = False,
    train: bool = False,
) -> Summary:
    """Show a model as a tree: `print(g.show())`. Nothing of it is run or changed: one pass on fake tensors tells.

    Args:
        graft: whose model it is.
        at: selectors of modules: only these and what is in them.
        depth: how deep the text goes, counted from the model or from what `at` selects; as deep as is well read
            when left out. The rows hold everything.
        by: what the shares are shares of: `macs`, `params` or `memory`.
        takes: show in the text what each module is given as well.
        train: take the pass in training mode.

    Raises:
        SelectionError: a selector matches no module.
        SourceError: the input of the model is not known.
        RecipeError: `depth` or `by` is none of those.
    """
    _checked(depth, by)
    trace = graft.trace(train=train)
    made = Rows(graft.module, trace, graft.added)
    rows = made.all()
    asked = () if at is None else (at,) if isinstance(at, str) else tuple(at)
    names = input_names(graft._inputs(), graft.module)
    return Summary(
        title=graft.name,
        rows=_under(rows, set(modules(graft.module, asked, roles=graft.roles))) if asked else rows,
        whole=rows[0],
        batch=trace.batch,
        train=train,
        real=trace.real,
        inputs=_seen(trace, trace.inputs, names),
        outputs=_seen(trace, trace.outputs, trace.calls[0].names if trace.calls else ()),
        tensors=made.held.tensors,
        tied=len(made.held.ties),
        weight_bytes=bytes_of(graft.module.parameters()),
        buffer_bytes=bytes_of(graft.module.buffers()),
        broke=_finding(graft, trace),
        broke_at=trace.mismatch.path if trace.mismatch is not None else "",
        asked=asked,
        depth=depth,
        by=by,
        takes=takes,
    )


def as_data(summary: Summary) -> dict[str, Any]:
    """Give a summary as plain data; rows deeper than `depth` are left out where one was asked for."""
    home = min((row.depth for row in summary.rows), default=0)
    deepest = None if summary.depth is None else home + summary.depth
    rows = [row._asdict() for row in summary.rows if deepest is None or row.depth <= deepest]
    figures = ("title", "batch", "train", "real", "tensors", "tied", "parameters", "trainable", "frozen", "new")
    more = ("weight_bytes", "buffer_bytes", "macs", "activations", "broke", "broke_at")
    seen = {name: [asdict(one) for one in getattr(summary, name)] for name in ("inputs", "outputs")}
    return {**{name: getattr(summary, name) for name in (*figures, *more)}, **seen, "rows": rows}


def _checked(depth: int | None, by: str) -> None:
    if by not in get_args(By):
        raise RecipeError(f"there are no shares by '{by}'", where="by", hint=nearest(by, get_args(By)))
    if depth is not None and depth < 0:
        raise RecipeError(f"the depth is {depth}", where="depth", hint="0 shows the model alone, 1 its parts")


def _under(rows: tuple[Row, ...], wanted: set[str]) -> tuple[Row, ...]:
    """Keep the modules that are wanted, and all below them."""
    kept: list[Row] = []
    home: int | None = None
    for row in rows:
        if home is not None and row.depth > home:
            kept.append(row)
            continue
        home = row.depth if row.sort == "module" and row.path in wanted else None
        if home is not None:
            kept.append(row)
    return tuple(kept)


def _seen(trace: Trace, numbers: tuple[int, ...], names: tuple[str, ...]) -> tuple[Seen, ...]:
    names = names if len(names) == len(numbers) else ("",) * len(numbers)
    values = [trace.values[number] for number in numbers]
    return tuple([Seen(name, one.shape, one.dtype) for name, one in zip(names, values, strict=True)])


def _finding(graft: Graft, trace: Trace) -> str:
    """Say where the pass broke off, and why."""
    if trace.mismatch is None:
        return ""
    found = judge(graft.evidence(quick=True), errors=True)
    told = next((str(one) for one in found if one.is_error), None)
    return told or f"{trace.mismatch.path}: {trace.mismatch.op}: {trace.mismatch.message}"
