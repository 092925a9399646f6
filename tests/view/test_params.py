from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import nn
from torchvision.models import resnet50

import torchgraft as tg
from torchgraft.errors import SelectionError
from torchgraft.params.table import parameter_table
from torchgraft.view.params import as_data, table, too_much

GOLDEN = Path(__file__).parent / "golden" / "params.txt"


class Net(nn.Module):
    """Two tied tables, a body, a head; the values are chosen, not drawn."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(6, 4)
        self.body = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 4, bias=False))
        self.out = nn.Linear(4, 6, bias=False)
        self.out.weight = self.words.weight
        for number, one in enumerate(self.parameters()):
            values = torch.linspace(-1, 1, one.numel()).reshape(one.shape) * (number + 1)
            one.data = torch.where(values.abs() < 0.5, 0.0, values)

    def forward(self, x):
        return self.out(self.body(self.words(x)))


def graft():
    g = tg.load(Net(), input=torch.zeros(2, 3, dtype=torch.long))
    return g.insert(nn.Linear(4, 4), after="body.0", name="extra").freeze("words")


def drawn(found, limit=40):
    out = Console(width=200, record=True, file=open("/dev/null", "w"), soft_wrap=True)  # noqa: SIM115
    out.print(table(found, limit))
    return out.export_text()


def test_the_table_looks_as_it_should():
    g = graft()
    found = g.params(["**", "not body.extra"], groups=g.groups({"body": {"lr": 1e-2}}, lr=1e-3, weight_decay=0.1))
    text = "\n".join(line.rstrip() for line in drawn(found).splitlines()) + f"\n\n{found.totals()}\n"
    assert text == GOLDEN.read_text()


def test_it_prints_in_python_as_it_does_on_the_command_line():
    g = graft()
    lines = [line.rstrip() for line in drawn(g.params()).splitlines()]
    assert str(g.params()).splitlines()[: len(lines)] == lines


def test_each_parameter_is_there_once_with_its_other_names():
    found = graft().params()
    assert [row.path for row in found][:2] == ["words.weight", "body.0.weight"]
    assert found.rows[0].tied == ("out.weight",)
    assert not found.rows[0].trainable


def test_what_edits_put_in_is_marked_and_counted():
    found = graft().params()
    assert {row.path: row.edit for row in found if row.edit} == {"body.extra.weight": 1, "body.extra.bias": 1}
    assert (found.new, found.frozen, found.total) == (20, 24, 24 + 20 + 8 + 16 + 20)


def test_statistics_are_those_of_the_values():
    found = graft().params("words")
    weight = graft().module.words.weight.detach()
    one = found.rows[0].statistics
    assert (one.mean, one.min, one.max) == pytest.approx((float(weight.mean()), -1, 1))
    assert one.std == pytest.approx(float(weight.std(correction=0)))
    assert one.zeros == pytest.approx(float((weight == 0).float().mean()))


def test_a_long_model_is_folded_and_a_part_of_it_opened():
    model = resnet50(weights=None)
    found = parameter_table(model)
    lines = found.lines()
    assert len(lines) <= 40
    assert sum(line.size for line in lines) == found.total == sum(one.numel() for one in model.parameters())
    every = torch.cat([one.detach().flatten() for one in model.layer4.parameters()])
    (whole,) = parameter_table(model, "layer4").lines(1)
    assert whole.statistics.std == pytest.approx(float(every.std(correction=0)), rel=1e-4)
    assert whole.statistics.mean == pytest.approx(float(every.mean()), rel=1e-3)
    assert [line.path for line in parameter_table(model, "layer4[-1].bn?").lines()][:1] == ["layer4.2.bn1.weight"]


def test_what_is_not_in_memory_has_no_statistics():
    with torch.device("meta"):
        found = parameter_table(nn.Linear(3, 2))
    assert [row.statistics for row in found] == [None, None]
    assert "mean" not in found.cells()[0]


def test_an_optimizer_tells_the_groups_too():
    g = graft()
    optimizer = torch.optim.SGD([one for one in g.module.parameters() if one.requires_grad], lr=0.5)
    assert {(row.group, row.lr) for row in g.params(groups=optimizer)} == {("", None), ("group 0", 0.5)}


def test_it_is_data():
    found = graft().params("body.0")
    data = json.loads(json.dumps(as_data(found)))
    assert data["total"] == 20
    assert data["parameters"][0]["shape"] == [4, 4]
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.rows[0].size = 3


def test_a_selector_that_matches_nothing_is_told():
    with pytest.raises(SelectionError, match="did you mean body"):
        graft().params("bodyy")


def test_a_narrow_table_leaves_whole_columns_out():
    drawn = tg.load("resnet18@none").params()
    left = too_much(drawn, 80)
    assert left == ["zeros", "min", "max", "dtype"]
    shown = Console(width=80, record=True, file=io.StringIO())
    shown.print(table(drawn, without=left))
    text = shown.export_text()
    assert "…" not in text
    assert "layer4.0.conv1.weight   512×256×3×3  1,179,648  yes" in text
    assert too_much(drawn, 200) == []
