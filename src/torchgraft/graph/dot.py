"""A drawing in the language of Graphviz: clusters for open boxes, nodes for closed ones."""

from __future__ import annotations

from collections.abc import Iterator

from torchgraft.graph.colours import LIGHT
from torchgraft.graph.drawing import Box, Drawing, Edge
from torchgraft.graph.tones import line_of, tone
from torchgraft.graph.words import told
from torchgraft.view.places import MARKS

__all__ = ["dot"]


def dot(drawing: Drawing) -> str:
    """Write a drawing as a graph for `dot`, with the boxes open that it says."""
    facts = [f"{name} {value}" for name, value in drawing.facts]
    title = "\\n".join([_escaped(drawing.title), *map(_escaped, facts)])
    lines = [
        MARKS[".dot"].decode().rstrip(),
        "digraph model {",
        f'  graph [label="{title}", labelloc=t, compound=true, fontname="DejaVu Sans", fontsize=11, '
        f'bgcolor="{LIGHT.page}"]',
        '  node [shape=box, style="rounded,filled", fontname="DejaVu Sans", fontsize=10]',
        '  edge [fontname="DejaVu Sans", fontsize=8, arrowsize=0.6]',
        *_inside(drawing.root, drawing.opened, "  "),
        *(_edge(*one) for one in _edges(drawing.root, drawing.opened)),
        "}",
    ]
    return "\n".join(lines) + "\n"


def _inside(box: Box, opened: frozenset[str], indent: str) -> Iterator[str]:
    for child in box.boxes:
        if not _is_open(child, opened):
            yield f"{indent}{_node(child)}"
            continue
        colours = tone(child, open=True)
        yield f"{indent}subgraph {_quoted(f'cluster {child.id}')} {{"
        said = f'label="{_escaped(_heading(child))}", tooltip="{_escaped(told(child))}"'
        drawn = f'style="rounded,filled", fillcolor="{colours.fill}", color="{colours.line}"'
        yield f"{indent}  graph [{said}, labelloc=t, labeljust=l, {drawn}]"
        yield from _inside(child, opened, f"{indent}  ")
        yield f"{indent}}}"


def _is_open(box: Box, opened: frozenset[str]) -> bool:
    return box.id in opened and bool(box.boxes)


def _node(box: Box) -> str:
    colours = tone(box, open=False)
    label = "\\n".join(_escaped(text) for text in (_heading(box), box.detail) if text)
    shape = ', shape=oval, style="filled"' if box.role in ("input", "output") else ""
    shape = ', style="rounded,filled,dashed"' if box.role == "constant" else shape
    return (
        f'{_quoted(box.id)} [label="{label}", fillcolor="{colours.fill}", color="{colours.line}", '
        f'tooltip="{_escaped(told(box))}"{shape}]'
    )


def _heading(box: Box) -> str:
    times = f"× {box.times}" if box.times > 1 else ""
    calls = f"call {box.call} of {box.calls}" if box.calls > 1 else ""
    return " ".join(one for one in (box.label, box.kind if box.kind != box.label else "", times, calls) if one)


def _edges(root: Box, opened: frozenset[str]) -> Iterator[tuple[list[str], list[str], Edge]]:
    """Give the edges between closed boxes: those to an open one go on to what in it they lead to."""
    starts: dict[str, list[str]] = {}
    ends: dict[str, list[str]] = {}
    _ports(root, opened, starts, ends)
    for box in _open_boxes(root, opened):
        for edge in box.edges:
            if edge.source and edge.target:
                yield starts[edge.source], ends[edge.target], edge


def _open_boxes(box: Box, opened: frozenset[str]) -> Iterator[Box]:
    yield box
    for child in box.boxes:
        if _is_open(child, opened):
            yield from _open_boxes(child, opened)


def _ports(box: Box, opened: frozenset[str], starts: dict[str, list[str]], ends: dict[str, list[str]]) -> None:
    """Write down at which closed boxes the ways out of and into each box begin and end."""
    for child in box.boxes:
        if not _is_open(child, opened):
            starts[child.id] = ends[child.id] = [child.id]
            continue
        _ports(child, opened, starts, ends)
        inner = child.boxes
        out = [one for edge in child.edges if not edge.target for one in starts[edge.source]]
        into = [one for edge in child.edges if not edge.source and edge.target for one in ends[edge.target]]
        starts[child.id] = list(dict.fromkeys(out)) or starts[inner[-1].id]
        ends[child.id] = list(dict.fromkeys(into)) or ends[inner[0].id]


def _edge(sources: list[str], targets: list[str], edge: Edge) -> str:
    label = f"{edge.shape} × {edge.times}" if edge.times > 1 else edge.shape
    colour = line_of(edge.mark, skip=False)
    return "\n".join(
        f'  {_quoted(source)} -> {_quoted(target)} [label="{_escaped(label)}", color="{colour}"]'
        for source in sources
        for target in targets
    )


def _quoted(name: str) -> str:
    return f'"{_escaped(name)}"'


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
