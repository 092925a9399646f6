from __future__ import annotations

import copy
import json
import os
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import resnet18

import torchgraft as tg
from torchgraft.errors import RecipeError, SelectionError, SourceError
from torchgraft.view.summary import as_data
from torchgraft.view.summary_lines import lines_of
from torchgraft.view.summary_text import coloured, html, plain

GOLDEN = Path(__file__).parent / "golden"


class Mixed(nn.Module):
    """Everything that is easily counted wrong: two inputs, a dict out, tied, shared, bare, unused, functional."""

    def __init__(self):
        super().__init__()
        self.place = nn.Parameter(torch.zeros(5, 16))
        self.words = nn.Embedding(50, 16)
        self.rnn = nn.LSTM(16, 16, batch_first=True)
        self.blocks = nn.ModuleList(Block() for _ in range(3))
        self.again = nn.Linear(16, 16)
        self.out = nn.Linear(16, 50, bias=False)
        self.out.weight = self.words.weight
        self.second = self.again
        self.spare = nn.Sequential(nn.Linear(3, 3), nn.ReLU())

    def forward(self, ids, mask):
        x = self.words(ids) + self.place
        x, (state, _) = self.rnn(x)
        for block in self.blocks:
            x = block(x)
        x = self.second(self.again(x)) * mask
        return {"logits": self.out(x), "more": {"state": state}}


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(16)
        self.make = nn.Linear(16, 32)
        self.act = nn.ReLU(inplace=True)
        self.back = nn.Linear(32, 16)

    def forward(self, x):
        x = x + torch.softmax(x @ x.transpose(1, 2), -1) @ x
        return x + self.act(self.back(self.act(self.make(self.norm(x)))))


def example(batch=2):
    return {"ids": torch.zeros(batch, 5, dtype=torch.long), "mask": torch.ones(batch, 5, 1)}


@pytest.fixture(scope="module")
def mixed():
    return tg.load(Mixed(), input=example())


def row(summary, path, sort="module"):
    return next(one for one in summary.rows if one.path == path and one.sort == sort)


def hooked(model, given):
    """What hooks see of a real pass: the shapes that the first call of each module gave, and the calls."""
    shapes, calls, handles = {}, {}, []
    for path, module in model.named_modules():

        def seen(_module, _given, out, path=path):
            calls[path] = calls.get(path, 0) + 1
            flat = torch.utils._pytree.tree_leaves(out)
            shapes.setdefault(path, tuple(tuple(one.shape) for one in flat if isinstance(one, torch.Tensor)))

        handles.append(module.register_forward_hook(seen))
    with torch.no_grad():
        model.eval()(**given) if isinstance(given, dict) else model.eval()(given)
    for handle in handles:
        handle.remove()
    return shapes, calls


def golden(name, text):
    path = GOLDEN / name
    if os.environ.get("TORCHGRAFT_GOLDEN"):
        path.write_text(text + "\n", encoding="utf-8")
    assert text + "\n" == path.read_text(encoding="utf-8")


def edited():
    g = tg.load("resnet18@none", input=(3, 64, 64)).head(10, hidden=[64])
    g.insert(tg.blocks.SqueezeExcite(reduction=4), after="layer2", name="attention")
    return g.freeze(all_but=["head", "layer2.attention"])


# figures


def test_parameters_are_those_of_the_modules_and_each_counts_once(mixed):
    found = mixed.show()
    assert found.parameters == sum(one.numel() for one in mixed.module.parameters())
    for path, module in mixed.module.named_modules():
        assert row(found, path).parameters == sum(one.numel() for one in module.parameters()), path


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_multiply_accumulates_are_those_of_torchs_own_counter(batch):
    module = Mixed().eval()
    given = {name: one.to("meta") for name, one in example(1).items()}
    with FlopCounterMode(display=False) as counter, torch.no_grad():  # it does not see into a fused LSTM
        copy.deepcopy(module).to("meta")(**given)
    assert tg.load(module, input=example(batch)).show().macs == counter.get_total_flops() // 2


def test_shapes_and_calls_are_what_hooks_see(mixed):
    found, (shapes, calls) = mixed.show(), hooked(Mixed(), example())
    for one in found.rows:
        if one.sort == "module" and one.state != "again":
            assert (one.gave, one.calls) == (shapes.get(one.path, ()), calls.get(one.path, 0)), one.path


def test_what_is_in_a_module_adds_up_to_it(mixed):
    rows = mixed.show().rows
    for number, home in enumerate(rows):
        inside = []
        for one in rows[number + 1 :]:
            if one.depth <= home.depth:
                break
            inside += [one] if one.depth == home.depth + 1 else []
        if inside:
            assert home.macs == sum(one.macs for one in inside), home.path
            assert home.activations >= sum(one.activations for one in inside)


def test_activations_are_new_storage_alone():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.flat, self.turn, self.relu = nn.Flatten(), nn.Linear(12, 8, bias=False), nn.ReLU(inplace=True)
            self.drop, self.same = nn.Dropout(), nn.Identity()

        def forward(self, x):
            x = self.same(self.drop(self.relu(self.turn(self.flat(x)))))
            x += 1
            return x.view(-1, 2, 4).transpose(1, 2).half()

    found = tg.load(Net(), input=(3, 4)).show()
    sizes = {one.name: one.activations for one in found.rows}
    assert (sizes["turn"], sizes["flat"], sizes["relu"], sizes["drop"], sizes["same"]) == (8 * 4, 0, 0, 0, 0)
    assert found.activations == 8 * 4 + 8 * 2


def test_what_an_attention_makes_on_the_way_counts():
    found = tg.load(nn.MultiheadAttention(8, 2, batch_first=True), input=(torch.zeros(2, 5, 8),) * 3).show()
    assert found.activations > 4 * 5 * 8 * 4  # query, key, value and the result at least
    assert row(found, "out_proj").state == "its weights are used"


def test_records_given_again_from_memory_hold_the_same():
    block = nn.Sequential(nn.Linear(8, 8), nn.ReLU(inplace=True), nn.Flatten(1), nn.Unflatten(1, (2, 4)))
    shape = nn.Flatten(1)
    model = nn.Sequential(*[nn.Sequential(nn.Flatten(1), *block) for _ in range(4)], shape, nn.ReLU(inplace=True))
    g = tg.load(model, input=(2, 4))
    again, whole = g.trace(), g.trace(cached=False)
    assert again.ops == whole.ops
    assert again.calls == whole.calls
    assert g.show().activations == 4 * 8 * 4


# what is particular


def test_tied_parameters_are_marked_and_counted_once(mixed):
    found = mixed.show()
    assert row(found, "out").tied == ("words.weight",)
    assert row(found, "out").elsewhere == row(found, "out").parameters == 800
    assert row(found, "words").elsewhere == 0
    assert "(800)" in str(found)


def test_a_module_under_a_second_name_is_told_where_it_stands_first(mixed):
    second = row(mixed.show(), "second")
    assert (second.state, second.tied, second.macs, second.calls) == ("again", ("again",), 0, 0)


def test_a_reused_module_has_the_work_of_all_its_calls(mixed):
    one = row(mixed.show(), "again")
    assert (one.calls, one.macs) == (2, 2 * 5 * 16 * 16)


def test_bare_parameters_and_operations_have_lines_of_their_own(mixed):
    found = mixed.show()
    assert row(found, "place", "parameter").parameters == 80
    matmul = next(one for one in found.rows if one.path == "blocks.0" and one.name == "matmul")
    assert (matmul.sort, matmul.calls, matmul.macs) == ("operation", 2, 2 * 5 * 5 * 16)


def test_what_is_never_called_is_marked_once(mixed):
    found = mixed.show()
    assert [one.path for one in found.rows if one.state == "never called"] == ["spare", "spare.0", "spare.1"]
    assert str(found).count("never called") == 1


def test_names_of_inputs_and_outputs_are_told(mixed):
    found = mixed.show()
    assert [one.name for one in found.inputs] == ["ids", "mask"]
    assert [one.name for one in found.outputs] == ["logits", "more.state"]
    assert row(found, "").names == ("logits", "more.state")


def test_what_edits_put_in_and_what_is_frozen_is_marked():
    found = edited().show()
    assert row(found, "layer2.attention").edit == 2
    assert found.new == found.trainable == row(found, "fc").parameters + row(found, "layer2.attention").parameters
    assert found.frozen == sum(one.numel() for one in resnet18().parameters()) - 513_000


def test_where_the_pass_breaks_off_the_tree_goes_on_and_the_finding_is_told():
    model = resnet18(weights=None)
    model.layer3[0].conv1 = nn.Conv2d(96, 256, 3, 2, 1)
    found = tg.load(model, input=(3, 64, 64)).show()
    assert found.broke_at == "layer3.0.conv1"
    assert "takes 96 channels, but gets 128" in found.broke
    assert row(found, "layer2").gave == ((2, 128, 8, 8),)
    assert (row(found, "layer4").state, row(found, "layer3").state) == ("not reached", "")
    assert "breaks off in conv1" in str(found)
    assert "breaks off here" in str(tg.load(model, input=(3, 64, 64)).show("layer3.0"))


def test_a_flow_that_depends_on_values_is_followed_for_real():
    class Picky(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            return self.one(x) if x.sum().item() > 0 else self.two(x)

    found = tg.load(Picky(), input=torch.ones(2, 4), real=True).show()
    assert found.real
    assert (row(found, "one").calls, row(found, "two").state) == (1, "never called")


def test_training_mode_shows_what_only_training_calls():
    class Aux(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.aux = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x):
            x = self.body(x)
            return (x, self.aux(x)) if self.training else x

    g = tg.load(Aux(), input=(4,))
    assert row(g.show(), "aux").state == "never called"
    assert row(g.show(train=True), "aux").gave == ((2, 2),)


def test_a_model_on_meta_is_shown_and_stays_there():
    with torch.device("meta"):
        model = resnet18(weights=None)
    found = tg.load(model, input=(3, 224, 224)).show()
    assert (found.macs, found.weight_bytes) == (1_814_073_344, 4 * 11_689_512)
    assert {one.device.type for one in model.parameters()} == {"meta"}


def test_half_precision_takes_half_the_memory():
    sizes = [tg.load(nn.Linear(8, 8).to(kind), input=(8,)).show() for kind in (torch.float32, torch.float16)]
    assert [one.activations for one in sizes] == [32, 16]
    assert [one.weight_bytes for one in sizes] == [288, 144]


@pytest.mark.parametrize("broken", [False, True])
def test_looking_changes_nothing(broken):
    model = resnet18(weights=None).train()
    model.layer1.eval()
    model.conv1.weight.requires_grad_(False)
    if broken:
        model.fc = nn.Linear(3, 3)
    before = {name: one.clone() for name, one in model.state_dict().items()}
    flags = [(path, one.training, len(one._forward_hooks)) for path, one in model.named_modules()]
    grads = [(one.requires_grad, one.grad, one.device) for one in model.parameters()]
    state = torch.get_rng_state()
    str(tg.load(model, input=(3, 64, 64)).show(train=True))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(one, before[name]) for name, one in model.state_dict().items())
    assert [(path, one.training, len(one._forward_hooks)) for path, one in model.named_modules()] == flags
    assert [(one.requires_grad, one.grad, one.device) for one in model.parameters()] == grads


# the table


@pytest.mark.parametrize("width", [None, 80, 48])
def test_the_table_of_a_mixed_model_is_the_golden_one(mixed, width):
    golden(f"summary_mixed_{width or 'wide'}.txt", plain(mixed.show(takes=True), width))


def test_the_table_of_an_edited_model_is_the_golden_one():
    golden("summary_edited.txt", str(edited().show()))


@pytest.mark.parametrize("width", [200, 120, 100, 80, 60, 40, 30])
def test_no_line_is_wider_than_the_terminal(mixed, width):
    for g in (mixed, edited()):
        text = plain(g.show(takes=True), width)
        assert max(map(len, text.splitlines())) <= width
        assert coloured(g.show(takes=True), width).plain.replace(" ", "") == text.replace(" ", "")


def test_a_long_model_is_folded_and_a_part_of_it_opened():
    g = tg.load(resnet18(weights=None), input=(3, 64, 64))
    assert len(lines_of(g.show().rows)) <= 40
    assert "0–1 (BasicBlock ×2)" in str(g.show())
    assert "conv1 (Conv2d)" in str(g.show("layer1.1"))
    assert "each as" not in str(g.show(depth=9))
    assert " as 0" in str(g.show(depth=9))


def test_folded_lines_have_the_figures_of_all(mixed):
    class Deep(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList(Block() for _ in range(12))

        def forward(self, x):
            for block in self.blocks:
                x = block(x)
            return x

    found = tg.load(Deep(), input=torch.zeros(2, 5, 16)).show()
    lines = lines_of(found.rows)
    (folded,) = [line for line in lines if len(line.rows) == 11]
    assert (folded.name, folded.like) == ("1–11", "0")
    assert sum(one.parameters for one in folded.rows) == found.parameters * 11 // 12


def test_shares_can_be_of_parameters_and_memory(mixed):
    assert "of params" in str(mixed.show(by="params"))
    text = str(mixed.show("out", by="params"))
    assert "%" not in text.splitlines()[1]  # its only parameter is counted elsewhere


def test_a_part_is_chosen_by_selectors(mixed):
    found = mixed.show(["blocks.1", "out"])
    assert [one.path for one in found.rows if one.sort == "module"][:1] == ["blocks.1"]
    assert found.rows[-1].path == "out"
    assert found.parameters == mixed.show().parameters
    assert "the whole model:" in str(found)


def test_it_is_data(mixed):
    data = json.loads(json.dumps(as_data(mixed.show(depth=1))))
    assert data["macs"] == mixed.show().macs
    assert {one["depth"] for one in data["rows"]} == {0, 1}
    assert len(as_data(mixed.show())["rows"]) == len(mixed.show().rows)


def test_a_notebook_shows_it_without_breaking_lines(mixed):
    text = html(mixed.show())
    assert text.startswith("<pre")
    assert "white-space:pre;" in text
    assert mixed.show()._repr_html_() == text
    assert repr(mixed.show()) == str(mixed.show())


@pytest.mark.parametrize(
    ("asked", "error", "words"),
    [
        ({"at": "blokcs"}, SelectionError, "matches no module"),
        ({"by": "flops"}, RecipeError, "no shares by 'flops'"),
        ({"depth": -1}, RecipeError, "the depth is -1"),
    ],
)
def test_mistakes_are_told(mixed, asked, error, words):
    with pytest.raises(error, match=words):
        mixed.show(**asked)


def test_an_input_that_is_not_known_is_asked_for():
    with pytest.raises(SourceError, match="is not known"):
        tg.load(nn.Linear(2, 2)).show()


@pytest.mark.filterwarnings("ignore:Sparse CSR")
def test_a_sparse_buffer_takes_what_its_indices_and_values_take():
    class Joined(nn.Linear):
        def __init__(self):
            super().__init__(8, 3)
            self.register_buffer("pairs", torch.eye(4).to_sparse())
            self.register_buffer("rows", torch.eye(4).to_sparse_csr())

        def forward(self, x):
            return super().forward(torch.sparse.mm(self.pairs, x))

    made = tg.load(Joined(), input=torch.zeros(4, 8)).show()
    pairs, rows = 2 * 4 * 8 + 4 * 4, 5 * 8 + 4 * 8 + 4 * 4
    assert made.buffer_bytes == pairs + rows


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_what_runs_in_torchscript_is_not_said_to_be_never_called():
    scripted = torch.jit.script(nn.Sequential(nn.Linear(8, 8), nn.ReLU()))
    found = tg.load(nn.Sequential(scripted, nn.Linear(8, 2)), input=torch.zeros(2, 8)).show()
    assert {row.state for row in found.rows} == {""}


def test_the_parts_of_adapters_are_new_and_the_layers_that_they_are_put_around_are_not():
    pytest.importorskip("peft")
    g = tg.load(nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2)), input=(8,)).adapter("0", rank=2)
    table = {row.path: row for row in g.show().rows}
    assert table["0.lora_A"].edit == table["0.lora_B.default"].edit == 1
    assert table["0"].edit is table["0.base_layer"].edit is None
    assert g.show().new == g.new_parameters()[1] == 32


def test_shapes_in_which_the_batch_stands_elsewhere_are_said_to_be_of_a_batch_of_2():
    said = "shapes without N, such as [4, 2, 64], are those of a batch of 2"
    layers = tg.load(nn.LSTM(16, 64, num_layers=4, batch_first=True), input=torch.zeros(2, 5, 16))
    assert said in str(layers.show())
    assert "shapes without N" not in str(tg.load(nn.Linear(4, 3), input=(4,)).show())
