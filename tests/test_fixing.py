from __future__ import annotations

import pytest
import torch
from torch import nn

import torchgraft as tg
from torchgraft import fixing
from torchgraft.errors import EditError
from torchgraft.loading import replay
from torchgraft.recipe import Recipe
from torchgraft.review import review


def wide() -> nn.Module:
    """A network for images of 32×32."""
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.MaxPool2d(8), nn.Flatten(), nn.Linear(4 * 16, 5))


def test_fixes_are_offered_best_first_and_the_model_is_as_it_was(snapshot):
    g = tg.load(wide(), input=torch.randn(2, 3, 64, 64))
    before = snapshot(g.module)
    (finding,) = g.check()
    assert [fix.name for fix in finding.fixes] == ["pin", "stretch", "resize"]
    assert finding.fixes[0].sentence.endswith("+0 parameters, keeps every trained weight")
    assert "loses 325 trained weights" in finding.fixes[2].sentence
    assert snapshot(g.module) == before
    assert not g.recipe.edits


def test_the_second_fix_or_one_by_name_is_taken_on_request():
    example = torch.randn(2, 3, 64, 64)
    assert isinstance(tg.load(wide(), input=example).fix(2).module[0], nn.Upsample)
    assert tg.load(wide(), input=example).fix("resize").module[3].in_features == 256
    assert tg.load(wide(), input=example).fix().recipe.edits[0].kind() == "insert"


def test_a_fix_that_is_not_there_is_refused_with_those_that_are(snapshot):
    g = tg.load(wide(), input=torch.randn(2, 3, 64, 64))
    before = snapshot(g.module)
    for which in (4, "paint"):
        with pytest.raises(EditError, match=r"(?s)fix '?(4|paint).*one of pin, stretch, resize"):
            g.fix(which)
    assert snapshot(g.module) == before


def frozen() -> nn.Module:
    """A network that fits, whose findings offer fixes of their own."""
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2)).requires_grad_(False)


def test_a_fix_that_a_warning_or_a_note_offers_is_taken_by_its_name_or_number():
    assert [fix.name for one in tg.load(frozen(), input=(4,)).check() for fix in one.fixes] == [
        "unfreeze",
        "eval_mode",
    ]
    for which in ("unfreeze", 1):
        g = tg.load(frozen(), input=(4,)).fix(which)
        assert [edit.kind() for edit in g.recipe.edits] == ["unfreeze"]
        assert [name for name, one in g.module.named_parameters() if one.requires_grad] == ["3.weight", "3.bias"]


def test_a_note_behind_a_finding_without_fixes_is_reached_by_name():
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).requires_grad_(False)
    model = nn.Sequential(body, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    g = tg.load(model, input=(3, 8, 8)).fix("eval_mode")
    assert [edit.kind() for edit in g.recipe.edits] == ["eval_mode"]


def test_what_no_finding_offers_is_refused_and_what_is_offered_is_named(snapshot):
    g = tg.load(frozen(), input=(4,))
    before = snapshot(g.module)
    for which in (0, 3, 9, -1, "eval_modee"):
        with pytest.raises(EditError, match=r"(?s)fix '?(0|3|9|-1|eval_modee).*one of unfreeze"):
            g.fix(which)
    assert snapshot(g.module) == before


def test_on_a_model_that_fits_only_what_was_asked_for_can_be_missing():
    g = tg.load(wide(), input=(3, 32, 32))
    for which in (1, 9, "nothing"):
        with pytest.raises(EditError, match="none is offered"):
            g.fix(which)
    assert not g.fix().recipe.edits


def test_left_to_itself_it_takes_no_fix_that_nobody_needs():
    assert not tg.load(frozen(), input=(4,)).fix().recipe.edits


@pytest.mark.parametrize("fix", ["unfreeze", "2", "eval_modee"])
def test_the_command_line_takes_what_a_finding_offers_and_refuses_the_rest(tmp_path, fix):
    (tmp_path / "net.py").write_text(
        "from torch import nn\n"
        "def net():\n    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).requires_grad_(False)\n"
    )
    target = f"{tmp_path / 'net.py'}:net"
    if fix == "unfreeze":
        assert review(target, input=(4,), fix=fix).added == 1
        return
    with pytest.raises(EditError, match="one of unfreeze"):
        review(target, input=(4,), fix=fix)


def test_fix_alone_is_no_fault_on_the_command_line_where_nothing_is_amiss(tmp_path):
    (tmp_path / "net.py").write_text("from torch import nn\ndef net():\n    return nn.Linear(4, 8)\n")
    for fix in ("1", "adapt"):
        assert review(f"{tmp_path / 'net.py'}:net", input=(4,), fix=fix).added == 0


def test_where_nothing_fits_it_says_so_and_changes_nothing(snapshot):
    class Square(nn.Module):
        def forward(self, x):
            return torch.mm(x, x)

    g = tg.load(Square(), input=torch.randn(2, 3))
    before = snapshot(g.module)
    with pytest.raises(EditError, match="no fix fits"):
        g.fix()
    assert snapshot(g.module) == before


def test_several_faults_are_mended_in_one_go_and_replay():
    def model() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(4), nn.Conv2d(6, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Linear(8, 5)
        )

    torch.manual_seed(0)
    g = tg.load(model(), input=(3, 16, 16)).fix()
    assert g.check() == ()
    again = replay(Recipe.from_yaml(g.recipe.to_yaml()), objects={"": model()})
    assert [name for name, _ in again.module.named_modules()] == [name for name, _ in g.module.named_modules()]
    shapes = [tensor.shape for tensor in g.module.state_dict().values()]
    assert [tensor.shape for tensor in again.module.state_dict().values()] == shapes


def test_undo_takes_every_step_back(snapshot):
    g = tg.load(wide(), input=torch.randn(2, 1, 64, 64))
    before = snapshot(g.module)
    g.fix()
    assert g.check() == ()
    while g.recipe.edits:
        g.undo()
    assert snapshot(g.module) == before


def test_a_model_without_faults_costs_no_search(monkeypatch):
    monkeypatch.setattr(fixing, "_tried", lambda *_: pytest.fail("a fix was looked for"))
    assert tg.check(wide(), torch.randn(2, 3, 32, 32)) == ()


def test_a_proof_runs_for_real_and_leaves_all_as_it_was(snapshot):
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    g = tg.load(model, input=(4,))
    before, dice = snapshot(model), torch.get_rng_state()
    assert fixing.prove(g) is None
    assert snapshot(model) == before
    assert torch.equal(torch.get_rng_state(), dice)
    assert all(one.grad is None for one in model.parameters())


def test_a_proof_tells_gradients_that_are_not_finite():
    class Root(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.zeros(4))

        def forward(self, x):
            return (self.w * x).abs().sqrt() + self.w.sqrt()

    found = fixing.prove(tg.load(Root(), input=(4,)))
    assert found is not None
    assert "the gradients of w are not finite" in found.facts[0]
