from __future__ import annotations

import pytest

from torchgraft.profile.events import OUTSIDE, Allocation, Ledger, Sums, is_product, middle, on_device
from torchgraft.profile.held import Held, peak


@pytest.mark.parametrize(
    "name",
    ["addmm", "mm", "bmm", "mv", "mkldnn_convolution", "convolution_backward", "cudnn_convolution", "conv2d", "dot",
     "_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_efficient_attention_backward", "mkldnn_rnn_layer",
     "_thnn_fused_lstm_cell", "linear", "baddbmm", "convolution_overrideable"],
)  # fmt: skip
def test_products_are_known(name):
    assert is_product(f"aten::{name}")


@pytest.mark.parametrize(
    "name",
    ["add_", "native_batch_norm", "copy_", "gelu", "max_pool2d_with_indices", "_softmax", "mul", "norm", "mean"],
)
def test_what_only_moves_memory_is_no_product(name):
    assert not is_product(f"aten::{name}")


def test_the_middle_of_several_steps_has_no_pause():
    ledgers = [Ledger({("forward", "fc"): Sums(products=seconds)}) for seconds in (1.0, 90.0, 1.2)]
    assert middle(ledgers).sums["forward", "fc"].products == 1.2


def test_an_accelerators_seconds_stand_for_operations_and_the_rest_is_idle():
    host = {("forward", "fc"): Sums(moving=0.2, between=0.4), ("backward", OUTSIDE): Sums(between=1.0)}
    owners = {
        1: ("forward", "fc", "aten::addmm"),
        2: ("backward", "fc", "aten::mm"),
        3: ("backward", "fc", "aten::sum"),
    }
    ledger = Ledger(host, {("forward", "aten::addmm"): [0.2, 1]}, [], owners)
    on_device(ledger, [(1, 0.3), (2, 0.5), (3, 0.1), (99, 7.0)])
    assert ledger.sums["forward", "fc"].products == 0.3
    assert ledger.sums["forward", "fc"].between == pytest.approx(0.3)  # of 0.6 by the clock, the device worked 0.3
    back = ledger.sums["backward", "fc"]
    assert (back.products, back.moving) == (0.5, 0.1)
    assert ledger.sums["backward", OUTSIDE].between == pytest.approx(0.4)
    assert ledger.operations["forward", "aten::addmm"] == [0.3, 1]


def test_the_peak_is_found_with_those_who_hold_it():
    steps = [
        Allocation(1, 0xA, 100, "forward", "a"),
        Allocation(2, 0xB, 200, "forward", "b"),
        Allocation(3, 0xC, 50, "backward", "b"),
        Allocation(4, 0xB, -200, "backward", "b"),
        Allocation(5, 0xB, 30, "backward", "a"),
        Allocation(6, 0xD, 10, "optimizer", OUTSIDE),
    ]
    found = peak(steps, [Held("weights", "a", 1000)], {0xC: "b", 0xB: "a"})
    assert (found.bytes, found.phase, found.path) == (1350, "backward", "b")
    assert found.kinds == {"weights": 1000, "gradients": 50, "activations": 300}
    assert found.holders[:2] == (("a", "weights", 1000), ("b", "activations", 200))


def test_a_peak_before_the_step_that_counts_is_left_out():
    steps = [Allocation(1, 0xA, 500, "forward", "a"), Allocation(2, 0xA, -500, "forward", "a")]
    later = [Allocation(9, 0xB, 60, "forward", "b")]
    assert peak([*steps, *later], [], {}, since=5).bytes == 60
