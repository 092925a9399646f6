from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.train.told import epoch

from torchgraft.train.pace import Progress
from torchgraft.train.telling import duration, epoch_line, figure, live_line, plain_line

NOW = Progress(
    epoch=3, epochs=10, step=120, steps=400, number=920, total=4000, loss=0.53219, lr=0.0003, speed=1234.4,
    left=754.0,
)  # fmt: skip


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "0 s"), (59.4, "59 s"), (61, "1:01"), (3599, "59:59"), (11565, "3:12:45"), (184320, "2 d 03:12"), (float("inf"), "…")],
)  # fmt: skip
def test_times_are_told_as_one_reads_them(seconds, words):
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("accuracy", 0.9123, "accuracy  91.2%"),
        ("mean_iou", 0.5, "mean iou  50.0%"),
        ("mae", 0.51239, "mae 0.5124"),
        ("rmse", 12345.6, "rmse 1.235e+04"),
        ("accuracy", float("nan"), "accuracy nan"),
    ],
)
def test_shares_are_told_in_percent_and_other_figures_as_numbers(name, value, words):
    assert figure(name, value) == words


def test_an_epoch_line_tells_every_figure_of_any_task():
    assert epoch_line(epoch(2), 12, speed=1234.0) == (
        "epoch  2/12  loss 0.500  validation loss 1.000  accuracy  40.0%  mae 3.25  lr 0.01  1,234 samples/s  1.5 s"
    )


def test_a_log_line_tells_all_of_it():
    assert plain_line(NOW) == "epoch 3/10  step 120/400  loss 0.532  lr 0.0003  1,234 samples/s  12:34 left"


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (
            110,
            "epoch 3/10  ━━━━━╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌  step 120/400  loss 0.532  lr 0.0003  1,234 samples/s  12:34 left",
        ),
        (86, "epoch 3/10  step 120/400  loss 0.532  lr 0.0003  1,234 samples/s  12:34 left"),
        (68, "epoch 3/10  loss 0.532  lr 0.0003  1,234 samples/s  12:34 left"),
        (56, "epoch 3/10  loss 0.532  1,234 samples/s  12:34 left"),
        (36, "epoch 3/10  loss 0.532  12:34 left"),
        (24, "epoch 3/10  loss 0.532"),
        (5, "epoc"),
    ],
)
def test_a_narrow_terminal_gets_what_matters_most(width, line):
    shown = live_line(NOW, width)
    assert shown.replace("━", "").replace("╌", "").split() == line.replace("━", "").replace("╌", "").split()
    assert len(shown) < width


def test_the_line_keeps_its_parts_while_their_numbers_grow():
    for width in range(20, 120):
        early = replace(NOW, step=1, lr=1e-5, speed=12.0, left=61.0, loss=1.0)
        late = replace(NOW, step=399, lr=0.00123, speed=99999.0, left=3599.0)
        shown = [re.sub(r"[-\d.,:e/]+|[━╌]+", "", live_line(one, width)).split() for one in (early, late)]
        assert shown[0] == shown[1]


def test_a_wide_terminal_gets_a_bar_of_what_is_done():
    assert live_line(NOW, 200).count("━") == 7
    assert live_line(NOW, 200).count("╌") == 23
    assert "#######-----------------------" in live_line(NOW, 200, plain=True)


@given(st.integers(1, 250), st.integers(0, 10**9), st.floats(0, 1e9), st.floats(0.01, 1e7), st.floats(0, 1e8))
def test_the_live_line_never_reaches_the_last_column(width, number, loss, speed, left):
    now = Progress(999, 1000, 10**6, 10**7, number, 10**9, loss, 1e-5, speed, left)
    for plain in (True, False):
        line = live_line(now, width, plain=plain)
        assert len(line) <= width - 1
        assert line.isascii() or not plain
