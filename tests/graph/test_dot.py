"""The drawing for Graphviz. The grammar is checked by hand, so that `dot` need not be there."""

from __future__ import annotations

import re

import pytest
from tests.graph.models import drawn

from torchgraft.graph import Box, Drawing
from torchgraft.graph.dot import dot
from torchgraft.graph.opening import walk

_QUOTED = r'"(?:[^"\\]|\\.)*"'
_LIST = rf"\[(?:\w+=(?:{_QUOTED}|\w+|[\d.]+)(?:, )?)+\]"
_LINES = re.compile(
    rf"// drawn by torchgraft|\s*(?:digraph model \{{|\}}|(?:graph|node|edge) {_LIST}|subgraph {_QUOTED} \{{|{_QUOTED} {_LIST}|"
    rf"{_QUOTED} -> {_QUOTED} {_LIST})"
)


@pytest.mark.parametrize("name", ["several", "broken", "edited", "llama"])
def test_every_line_is_of_the_language_and_braces_close(name):
    text = dot(drawn(name))
    for line in text.splitlines():
        assert _LINES.fullmatch(line), line
    assert sum(line.endswith("{") for line in text.splitlines()) == sum(
        line.strip() == "}" for line in text.splitlines()
    )


@pytest.mark.parametrize("name", ["several", "llama"])
def test_edges_run_between_nodes_that_are_there(name):
    made = drawn(name)
    text = dot(made)
    closed = [child.id for box in walk(made.root) if box.id in made.opened for child in box.boxes
              if child.id not in made.opened or not child.boxes]  # fmt: skip
    nodes = re.findall(rf'^\s*({_QUOTED}) \[label="', text, flags=re.MULTILINE)
    assert sorted(node.strip('"') for node in nodes) == sorted(closed)
    for source, target in re.findall(rf"({_QUOTED}) -> ({_QUOTED})", text):
        assert {source, target} <= set(nodes)
    assert {box.id for box in made.root.boxes if box.role in ("input", "output")} <= {
        end.strip('"') for pair in re.findall(rf"({_QUOTED}) -> ({_QUOTED})", text) for end in pair} | {"in:unread"}  # fmt: skip


def test_quotes_and_backslashes_in_names_are_escaped():
    box = Box('a"b\\', "a", 'a"b\\')
    text = dot(Drawing('t"', Box("(model)", "", "", boxes=(box,)), frozenset({"(model)"})))
    assert all(_LINES.fullmatch(line) for line in text.splitlines())
