from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

import torchgraft as tg
from torchgraft.errors import EditError, RecipeError, SourceError, TorchgraftError
from torchgraft.loading import replay


class Small(nn.Module):
    """A tiny network with stages, a branch and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1))
        self.short = nn.Conv2d(4, 8, 1)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        return self.fc((self.body(x) + self.short(x)).mean((2, 3)))


PLACES = ["stem", "stem.0", "stem.1", "body", "body.0", "body.2", "short", "fc"]
MODULES = [
    {"nn.Conv2d": {"out_channels": 8, "kernel_size": 1}},
    {"nn.BatchNorm2d": {}},
    {"nn.Identity": {}},
    {"block.SqueezeExcite": {"reduction": 2}},
    {"nn.Linear": {"out_features": 5}},
]
place = st.sampled_from(PLACES)
module = st.sampled_from(MODULES)
edit = st.one_of(
    st.builds(
        lambda n, h: ("head", {"classes": n, "hidden": h}),
        st.integers(1, 9),
        st.lists(st.integers(1, 9), max_size=2),
    ),
    st.builds(lambda n: ("input", {"channels": n}), st.integers(1, 6)),
    st.builds(lambda at, m: ("replace", {"at": at, "with": m}), place, module),
    st.builds(lambda at, m: ("insert", {"after": at, "module": m}), place, module),
    st.builds(lambda at, m: ("insert", {"before": at, "module": m}), place, module),
    st.builds(lambda at, m: ("append", {"at": at, "module": m}), place, module),
    st.builds(lambda at: ("remove", {"at": at}), place),
    st.builds(lambda at: ("freeze", {"at": at}), place),
    st.builds(lambda at: ("freeze", {"all_but": at}), place),
    st.builds(lambda at: ("unfreeze", {"at": at}), place),
)
quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def apply_all(g: tg.Graft, edits: list, snapshot) -> list:
    """Apply what fits; whatever is refused must leave the model bit for bit as it was."""
    states = [snapshot(g.module)]
    for kind, body in edits:
        try:
            g.apply(tg.edits.kinds()[kind].model_validate(body))
        except TorchgraftError:
            assert snapshot(g.module) == states[-1]
        else:
            states.append(snapshot(g.module))
    return states


@quick
@given(edits=st.lists(edit, max_size=6))
def test_edits_undo_and_redo_exactly(snapshot, edits):
    g = tg.load(Small(), input=(3, 8, 8))
    states = apply_all(g, edits, snapshot)
    for state in reversed(states[:-1]):
        g.undo()
        assert snapshot(g.module) == state
    for state in states[1:]:
        g.redo()
        assert snapshot(g.module) == state


@quick
@given(edits=st.lists(edit, max_size=5))
def test_what_was_accepted_runs_and_replays_to_the_same_tensors(snapshot, edits):
    base = Small()
    g = tg.load(copy.deepcopy(base), input=(3, 8, 8))
    apply_all(g, edits, snapshot)
    recipe = tg.Recipe.from_yaml(g.recipe.to_yaml())
    again = replay(recipe, objects={"": copy.deepcopy(base)})
    ours, theirs = g.module.state_dict(), again.module.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    x = torch.randn(2, *g.input_shape)
    assert torch.equal(g.module.eval()(x), again.module.eval()(x))
    assert [tuple(g.module(x).shape)] == g.trace().output_shapes()


@quick
@given(edits=st.lists(edit, max_size=5))
def test_every_surviving_base_parameter_loads_from_the_bases_own_state_dict(snapshot, edits):
    g = tg.load(Small(), input=(3, 8, 8))
    base = {name: (id(t), t.shape) for name, t in g.module.state_dict(keep_vars=True).items()}
    apply_all(g, edits, snapshot)
    by_identity = {number: name for name, (number, _) in base.items()}
    for name, tensor in g.module.state_dict(keep_vars=True).items():
        if id(tensor) in by_identity:
            assert g.recipe.base_name(name) == by_identity[id(tensor)]


def test_the_result_is_plain_pytorch(resnet18):
    resnet18.head(10, hidden=[32]).insert(tg.blocks.SqueezeExcite(), after="layer2", name="se")
    model = resnet18.module
    assert not any(type(module).__module__.startswith("torchgraft") for module in model.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    twin = copy.deepcopy(model).eval()
    x = torch.randn(2, 3, 64, 64)
    assert torch.equal(twin(x), model.eval()(x))
    exported = torch.export.export(twin, (x,))
    torch.testing.assert_close(exported.module()(x), twin(x))


def test_a_model_that_does_not_fit_yet_may_be_edited_step_by_step(resnet18):
    model = resnet18.module
    model.layer3[0].conv1 = nn.Conv2d(99, 256, 3, stride=2, padding=1, bias=False)
    g = tg.load(model, input=(3, 64, 64))
    assert [finding.code for finding in g.check()] == ["S001"]
    g.replace("layer3.0.conv1", {"nn.Conv2d": {"out_channels": 256, "kernel_size": 3, "stride": 2, "padding": 1}})
    assert g.check() == ()


def test_nothing_to_undo_and_nothing_to_redo_are_told(resnet18):
    with pytest.raises(EditError, match="no edit to take back"):
        resnet18.undo()
    with pytest.raises(EditError, match="no edit to make again"):
        resnet18.redo()


def test_a_new_edit_forgets_what_was_undone(resnet18):
    resnet18.head(10).undo().head(5)
    with pytest.raises(EditError, match="no edit to make again"):
        resnet18.redo()


def test_an_input_that_is_not_known_is_asked_for():
    with pytest.raises(SourceError, match=r"say its shape without the batch"):
        tg.load(nn.Linear(3, 4)).trace()


def test_an_example_serves_as_the_input():
    g = tg.load(nn.Linear(3, 4), input=torch.empty(5, 3))
    assert g.trace().output_shapes() == [(5, 4)]


def test_a_misspelt_method_names_the_nearest(resnet18):
    with pytest.raises(AttributeError, match="did you mean freeze"):
        resnet18.freze("layer1")


def test_a_graft_prints_what_was_done(resnet18):
    resnet18.head(10)
    assert str(resnet18) == "torchvision:resnet18@none\n  1. new head for 10 classes at fc"


@pytest.mark.parametrize("wrong", [{"seed": -1}, {"seed": 1.5}, {"input": (3, 0, 8)}])
def test_a_wrong_seed_or_input_is_told(wrong):
    with pytest.raises(RecipeError, match=r"(.|\n)*tg\.load"):
        tg.load(Small(), **wrong)


@pytest.mark.parametrize("thing", [None, nn.Linear, 3])
def test_what_is_no_model_is_told(thing):
    with pytest.raises(SourceError, match="is no model"):
        tg.load(thing)


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"freeze": {"at": "fc"}}, r"a dict is no edit(.|\n)*g\.freeze\(…\)"),
        ("head", r"a str is no edit(.|\n)*g\.head\(…\)"),
    ],
)
def test_what_is_no_edit_is_refused(given, match):
    g = tg.load(Small(), input=(3, 8, 8))
    with pytest.raises(RecipeError, match=match):
        g.apply(given)
    with pytest.raises(RecipeError, match=match):
        g.apply_all([given])
    assert g.recipe.edits == ()


def test_a_misspelt_name_is_told_with_names_that_are_meant_for_use():
    with pytest.raises(AttributeError, match=r"did you mean head[^_]*$"):
        tg.load(Small(), input=(3, 8, 8)).haed(10)


def test_an_edit_of_a_recipe_that_names_nothing_is_told_by_its_number(resnet18):
    edits = [tg.edits.Head(classes=10), tg.edits.Remove(at="layer9")]
    with pytest.raises(TorchgraftError, match=r"no module 'layer9'(.|\n)*where: edit 2, layer9"):
        resnet18.apply_all(edits)
