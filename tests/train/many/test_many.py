"""One training in one, two and four processes: the same curve, and any of them goes on where another stopped."""

from __future__ import annotations

import json
import shutil

import pytest
from tests.train.many.launch import apart, differing, figures, ran, tensors
from tests.train.many.runs import run

from torchgraft.train.world import ALONE

SGD = {"accumulate": 2}
ADAM = {"optimizer": {"adamw": {"lr": 3e-3}}}
FSDP = {"parallel": "fsdp"}
STOP = [2, 2]


def job(name, kind="still", plan=None, **rest):
    return {"name": name, "kind": kind, "plan": plan or {}, **rest}


def halves(name, plan):
    """A training that is whole, and the same one stopped and gone on with."""
    return [
        job(name, "moving", plan),
        job(f"{name}-1", "moving", plan, states=f"of {name}", stop=[2, 3]),
        job(f"{name}-2", "moving", plan, states=f"of {name}", resume=True),
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Everything is run once: alone, in four processes, in two, and alone again."""
    home = tmp_path_factory.mktemp("many")

    def alone(jobs):
        for one in jobs:
            run(one, home, ALONE)

    alone([job("sgd", plan=SGD), job("adam", plan=ADAM), job("1 stops", plan=ADAM, states="from 1", stop=STOP)])
    ran(4, home, [
        job("4 ddp", plan=SGD),
        job("4 fsdp", plan={**ADAM, **FSDP}),
        job("4 fsdp stops", plan={**ADAM, **FSDP}, states="from 4 fsdp", stop=STOP),
    ])  # fmt: skip
    for name in ("a", "b"):
        shutil.copytree(home / "from 1", home / f"from 1 {name}")
    ran(2, home, [
        job("2 ddp", plan=SGD),
        job("2 fsdp", plan={**SGD, **FSDP}),
        *halves("ddp", {"keep": "best"}),
        *halves("fsdp", {**FSDP, "ema": 0.9, "keep": "best"}),
        job("1 to 2 ddp", plan=ADAM, states="from 1 a", resume=True),
        job("1 to 2 fsdp", plan={**ADAM, **FSDP}, states="from 1 b", resume=True),
        job("4 fsdp to 2 fsdp", plan={**ADAM, **FSDP}, states="from 4 fsdp", resume=True),
        job("2 ddp stops", plan=ADAM, states="from 2 ddp", stop=STOP),
        job("2 ddp to 2 fsdp", plan={**ADAM, **FSDP}, states="from 2 ddp", resume=True),
        job("2 ddp stops", plan=ADAM, states="from 2 ddp too", stop=STOP),
        job("2 fsdp stops", plan={**ADAM, **FSDP}, states="from 2 fsdp", stop=STOP),
    ])  # fmt: skip
    alone([
        job("2 ddp to 1", plan=ADAM, states="from 2 ddp too", resume=True),
        job("2 fsdp to 1", plan=ADAM, states="from 2 fsdp", resume=True),
    ])  # fmt: skip
    return home


@pytest.mark.parametrize(
    ("alone", "many"), [("sgd", "2 ddp"), ("sgd", "2 fsdp"), ("sgd", "4 ddp"), ("adam", "4 fsdp")]
)
def test_several_processes_give_the_curve_of_one(folder, alone, many):
    one, other = figures(folder, alone), figures(folder, many)
    assert len(one["losses"]) == 8
    assert other["losses"] == pytest.approx(one["losses"], abs=1e-5)
    assert [norm for norm in other["norms"] if norm] == pytest.approx(
        [norm for norm in one["norms"] if norm], 1e-5
    )
    for ours, theirs in zip(one["epochs"], other["epochs"], strict=True):
        assert theirs["train_loss"] == pytest.approx(ours["train_loss"], abs=1e-5)
        assert theirs["val_loss"] == pytest.approx(ours["val_loss"], abs=1e-5)
        assert theirs["val"] == ours["val"]
        assert theirs["train"] == ours["train"]
    assert apart(tensors(folder, alone), tensors(folder, many)) < 1e-5


@pytest.mark.parametrize("way", ["ddp", "fsdp"])
def test_as_many_processes_go_on_bit_for_bit_with_dropout_and_statistics_of_their_own(folder, way):
    assert figures(folder, f"{way}-1")["ended"] == "interrupted"
    whole, resumed = tensors(folder, way), tensors(folder, f"{way}-2")
    assert differing(whole, resumed) == []
    assert figures(folder, f"{way}-2")["epochs"] == figures(folder, way)["epochs"]
    assert differing(whole, tensors(folder, f"{way}-1"))


@pytest.mark.parametrize(
    "name",
    ["1 to 2 ddp", "1 to 2 fsdp", "2 ddp to 2 fsdp", "4 fsdp to 2 fsdp", "2 ddp to 1", "2 fsdp to 1"],
)
def test_more_or_fewer_processes_go_on_with_the_same_curve(folder, name):
    whole, resumed = figures(folder, "adam"), figures(folder, name)
    assert resumed["losses"] == pytest.approx(whole["losses"][-len(resumed["losses"]) :], abs=1e-5)
    assert 0 < len(resumed["losses"]) < len(whole["losses"])
    for ours, theirs in zip(whole["epochs"], resumed["epochs"], strict=True):
        assert theirs["train_loss"] == pytest.approx(ours["train_loss"], abs=1e-5)
        assert theirs["train"] == ours["train"]
    assert apart(tensors(folder, "adam"), tensors(folder, name)) < 1e-5


def test_of_a_state_that_is_shared_out_no_file_holds_a_whole_parameter_and_none_is_pickled(folder):
    from safetensors import safe_open

    home = folder / "from 4 fsdp"  # which two processes went on with
    known = json.loads((home / "state.json").read_text())
    parts = sorted((home / known["state"]["folder"]).iterdir())
    assert {one.name for one in parts} == set(known["state"]["files"])
    assert len(parts) == 2
    rows = []
    for one in parts:
        with safe_open(one, "pt") as file:
            rows.append(file.get_slice("model/blocks.0.lin.weight").get_shape())
    assert rows == [[12, 24], [12, 24]]


def test_one_process_writes_the_state_of_a_model_that_is_copied(folder):
    assert {one.name for one in (folder / "from 2 ddp too").iterdir()} == {"state.safetensors"}
