"""The report as it is printed. Write the golden files anew with: python tests/profile/test_text.py"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from torchgraft.probes.speed import Split
from torchgraft.profile.events import OUTSIDE
from torchgraft.profile.record import Machine, Part, Peak, Phase, Profile, Run, Script, Try
from torchgraft.profile.text import seconds, size, text
from torchgraft.profile.tree import lines
from torchgraft.profile.verdict import judged, speed_of

GOLDEN = Path(__file__).parent / "golden"
CPU = Machine("cpu", "Some Processor", 2, 4, 100e9, 20e9, 2e-6, 1e-6)


def layer(path, kind, ahead, back=0.0, bound="compute", **more):
    products = ahead + back if bound == "compute" else 0.0
    moving = ahead + back if bound == "memory" else 0.0
    return Part(
        path, kind, 1, ahead, back, products, moving, flops=products * 80e9, bytes=1e6, bound=bound, **more
    )


def training():
    parts = (
        layer("", "Net", 0.001, 0.0, "Python"),
        layer("stem", "Conv2d", 0.004, note="frozen"),
        layer("blocks", "Sequential", 0.0),
        layer("blocks.0", "Block", 0.0),
        layer("blocks.0.conv", "Conv2d", 0.01, 0.02),
        layer("blocks.0.norm", "BatchNorm2d", 0.002, 0.003, "memory"),
        layer("blocks.1", "Block", 0.0),
        layer("blocks.1.conv", "Conv2d", 0.015, 0.025, note="edit 2"),
        layer("blocks.1.a", "Identity", 0.0),
        layer("blocks.1.b", "Identity", 0.0001, 0.0, "Python"),
        layer("fc", "Linear", 0.0005, 0.0005),
    )
    inside = sum(one.seconds for one in parts)
    outside = Part("", "", 0, 0.001, 0.002, 0.0, 0.0, 0.003, bound="Python")
    whole = inside + outside.seconds + 0.02 + 0.006
    ahead = sum(one.forward for one in (*parts, outside))
    phases = (Phase("data", 0.02), Phase("forward", ahead), Phase("backward", inside + 0.003 - ahead))
    peak = Peak(
        30_000_000, "backward", "blocks.1.conv",
        {"weights": 8_000_000, "gradients": 2_000_000, "optimizer state": 16_000_000, "activations": 4_000_000},
        (("blocks.1.conv", "optimizer state", 12_000_000), ("blocks.1.conv", "weights", 6_000_000),
         ("blocks.0.norm", "activations", 4_000_000), (OUTSIDE, "gradients", 2_000_000)),
    )  # fmt: skip
    split = Split(0.02 / whole, 0.1, 0.1, 0.8 - 0.02 / whole)
    return Run(
        "training step", whole, (whole * 0.98, whole * 1.02), 20, 32, (*phases, Phase("optimizer", 0.006)), parts,
        outside, split, 1.9, (), 400, peak,
    )  # fmt: skip


def model():
    run = training()
    tried = (Try("bf16", "", 1.42, "training step"), Try("channels_last", "", 0.8, "training step"))
    facts = (("batch", "32"), ("optimizer", "adamw"))
    speed = speed_of(run, CPU, tried, workers=0, precision="fp32", images=True)
    return Profile("net", CPU, facts, (run,), judged(speed, "net"), tried, ("a note",))


def script():
    functions = (
        ("train.py:12 __getitem__", 640, 3.1, 3.2),
        ("torch/nn/modules/conv.py:546 _conv_forward", 20, 0.2, 0.2),
    )
    whole = Script(
        "train.py", ("--lr", "1"), 4.0, 1.5, "finished", 20, 1.2, functions, 10**9, (("torch", "2.15"),), 0.5
    )
    parts = (
        layer("Net", "Net", 0.01, 0.02),
        layer("Net.fc", "Linear", 0.2, 0.1),
        layer("Loss", "Loss", 0.01, 0.01),
    )
    phases = (Phase("data", 3.0), Phase("forward", 0.22), Phase("backward", 0.13))
    outside = Part("", "", forward=0.05)
    split = Split(0.86, 0.04, 0.02, 0.08)
    run = Run("script", 3.5, (3.5, 3.5), 20, 0, phases, parts, outside, split, 0.4, each=0.17)
    speed = speed_of(run, CPU, what="the script, once at work,", workers=2, batch=0)
    return Profile("train.py", CPU, (), (run,), judged(speed, "train.py"), script=whole)


CASES = [(name, make, width) for name, make in (("model", model), ("script", script)) for width in (60, 120)]


@pytest.mark.parametrize(("name", "make", "width"), CASES)
def test_the_report_looks_as_it_should(name, make, width):
    assert text(make(), width) + "\n" == (GOLDEN / f"{name}-{width}.txt").read_text()


@pytest.mark.parametrize(("name", "make", "width"), CASES)
def test_no_line_is_wider_than_the_terminal(name, make, width):
    assert max(map(len, text(make(), width).splitlines())) <= width


def test_a_rate_above_what_the_machine_can_do_is_left_out():
    fast = replace(layer("fc", "Linear", 1.0), flops=263e9)
    run = replace(training(), parts=(fast, layer("conv", "Conv2d", 1.0)))
    told = text(Profile("net", CPU, (), (run,)))
    assert "263" not in told
    assert "80" in told
    assert "263" in text(Profile("net", replace(CPU, flops=300e9), (), (run,)))


@pytest.mark.parametrize(("steps", "words"), [(1, "1 optimizer step,"), (3, "3 optimizer steps,")])
def test_too_few_steps_are_told_and_get_no_figure(steps, words):
    whole = script()
    told = text(replace(whole, runs=(replace(whole.runs[0], steps=steps, each=0.0),), findings=()))
    assert f"{words} too few to say what one takes" in told
    assert "it goes to" not in told


def test_a_tree_keeps_every_second():
    run = training()
    for limit in (1, 3, 5, 50):
        top = [line for line in lines(run, limit) if line.depth == 0]
        assert sum(line.whole.seconds for line in top) == pytest.approx(sum(one.seconds for one in run.parts))


def test_a_tree_opens_where_the_time_goes():
    run = training()
    assert [line.path for line in lines(run, 3)] == ["stem", "blocks", "fc", ""]
    assert "blocks.1.conv" in [line.path for line in lines(run, 50)]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0, "0"),
        (2.31e-6, "2.31 µs"),
        (0.00099996, "1 ms"),
        (0.0123, "12.3 ms"),
        (12.345, "12.3 s"),
        (5400, "5,400 s"),
    ],
)
def test_durations_are_short(value, words):
    assert seconds(value) == words


@pytest.mark.parametrize(("value", "words"), [(0, "0"), (840, "840 B"), (1_048_576, "1.05 MB"), (24e9, "24 GB")])
def test_sizes_are_short(value, words):
    assert size(value) == words


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for name, make, width in CASES:
        (GOLDEN / f"{name}-{width}.txt").write_text(text(make(), width) + "\n")
