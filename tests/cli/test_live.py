"""The live line, on a real pseudo terminal and in a file."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import re
import select
import sys
from collections.abc import Iterator
from dataclasses import replace

from tests.train.told import BEGIN, Clock, epoch, moment, run

from torchgraft.cli.live import Live
from torchgraft.history import History


@contextlib.contextmanager
def terminal() -> Iterator[tuple[io.TextIOWrapper, list[str]]]:
    """Give a terminal of 80 columns to write to, and what was written when it is closed."""
    ours, theirs = pty.openpty()
    seen: list[str] = []
    try:
        with os.fdopen(theirs, "w", encoding="utf-8") as stream:
            yield stream, seen
            stream.flush()
            while select.select([ours], [], [], 0.2)[0]:
                seen.append(os.read(ours, 65536).decode())
    finally:
        os.close(ours)


def shown_by(text: str) -> list[str]:
    """Give what stays on a screen: every carriage return begins the line anew, and the erasing leaves nothing."""
    return [re.split(r"\r\x1b\[K", line)[-1].rstrip("\r") for line in text.split("\n")]


def told(live: Live, clock: Clock, *, each: float) -> None:
    live.begin(BEGIN)
    for number in range(1, 13):
        clock.now += each
        live.step(moment(number))
        if number % 4 == 0:
            live.epoch(epoch(number // 4))
    live.end(History(epochs=tuple(epoch(one) for one in (1, 2, 3)), best=3, metric="accuracy"))


def test_in_a_file_there_is_a_line_an_epoch_and_nothing_else():
    out = io.StringIO()
    live = Live(out, io.StringIO(), clock := Clock())
    told(live, clock, each=0.5)
    lines = out.getvalue().splitlines()
    assert [line.split("  ")[0] for line in lines] == ["epoch 1/3", "epoch 2/3", "epoch 3/3", "best"]
    assert lines[-1] == "best     epoch 3: accuracy 60.0%"
    assert "\r" not in out.getvalue()
    assert "\x1b" not in out.getvalue()


def test_in_a_file_an_epoch_of_more_than_a_minute_tells_where_it_is_every_half_minute():
    out = io.StringIO()
    live = Live(out, io.StringIO(), clock := Clock())
    told(live, clock, each=16.0)
    within = [line for line in out.getvalue().splitlines() if "step" in line]
    assert [line.split("  ")[1] for line in within] == ["step 2/4", "step 4/4"] * 3
    assert within[1].endswith("2:08 left")


def test_in_a_file_an_epoch_of_less_than_a_minute_is_one_line_even_after_half_a_minute():
    out = io.StringIO()
    live = Live(out, io.StringIO(), clock := Clock())
    told(live, clock, each=12.0)
    assert not [line for line in out.getvalue().splitlines() if "step" in line]


def test_a_resumed_training_says_where_it_goes_on():
    out = io.StringIO()
    run(Live(out, io.StringIO()).watch(), first=9, begin=replace(BEGIN, epoch=3))
    assert out.getvalue().startswith("resumed  at step 8 of 12\n")


def test_on_a_terminal_the_line_moves_and_what_is_printed_stands_above_it():
    with terminal() as (screen, seen):
        live = Live(screen, screen, clock := Clock())
        assert live.live
        live.begin(BEGIN)
        for number in range(1, 5):
            clock.now += 0.06
            live.step(moment(number))
        live.epoch(epoch(1))
    text = "".join(seen)
    assert text.count("\x1b[K") == 3  # two drawings in 0.24 s, at least 0.1 s apart, and one taken away
    stays = shown_by(text)
    assert stays[0].startswith("epoch 1/3  loss 1.000")
    assert stays[1] == ""


def test_a_warning_while_the_line_is_shown_does_not_stand_in_it():
    with terminal() as (screen, seen):
        live = Live(screen, screen, clock := Clock())
        before = sys.stdout, sys.stderr
        sys.stdout = sys.stderr = screen
        try:
            with live.shown():
                live.begin(BEGIN)
                clock.now += 1
                live.step(moment(1))
                print("mind the gap", file=sys.stderr)
                print("printed")
                clock.now += 1
                live.step(moment(2))
        finally:
            sys.stdout, sys.stderr = before
    stays = shown_by("".join(seen))
    assert "mind the gap" in stays
    assert "printed" in stays
    assert stays[-1] == ""


def test_a_dumb_terminal_gets_plain_lines(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    with terminal() as (screen, _):
        assert not Live(screen, screen).live


def test_a_terminal_of_plain_letters_gets_plain_letters():
    with terminal() as (screen, seen):
        screen.reconfigure(encoding="ascii")
        live = Live(screen, screen, clock := Clock())
        live.begin(replace(BEGIN, epochs=3))
        clock.now += 1
        live.step(moment(1))
    assert "epoch 1/3" in "".join(seen)
    assert "".join(seen).isascii()
