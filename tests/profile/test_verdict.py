from __future__ import annotations

import pytest

from torchgraft.probes.speed import Speed, Split
from torchgraft.profile.verdict import judged


def findings(split, **facts):
    return {one.code: one for one in judged(Speed("a training step", 0.1, Split(*split), **facts), "net")}


@pytest.mark.parametrize(
    ("split", "code"),
    [
        ((0.6, 0.2, 0.1, 0.1), "M101"),
        ((0.0, 0.7, 0.2, 0.1), "M102"),
        ((0.0, 0.1, 0.7, 0.2), "M103"),
        ((0.0, 0.1, 0.1, 0.8), "M104"),
        ((0.1, 0.3, 0.3, 0.3), "M105"),
    ],
)
def test_one_sentence_says_what_a_step_is_bound_by(split, code):
    found = findings(split)
    assert list(found) == [code]
    assert found[code].facts
    assert found[code].hint


def test_the_wait_for_data_comes_with_what_it_costs():
    one = findings((0.75, 0.05, 0.1, 0.1), workers=0, cores=8)["M101"]
    assert "75 ms of 100 ms" in one.facts[0]
    assert "0 workers" in one.facts[0]
    assert "4× as fast" in one.facts[1]
    assert "workers 8" in one.hint


@pytest.mark.parametrize(("workers", "words"), [(1, "with 1 worker"), (2, "with 2 workers")])
def test_workers_are_counted_in_good_english(workers, words):
    assert findings((0.75, 0.05, 0.1, 0.1), workers=workers)["M101"].facts[0].endswith(words)


def test_what_was_tried_comes_first_and_what_did_not_help_is_not_advised():
    one = findings(
        (0, 0.1, 0.1, 0.8), precision="fp32", images=True, tried=(("bf16", 1.4), ("channels_last", 0.8))
    )
    hint = one["M104"].hint
    assert hint.startswith("bf16: 1.40× as fast when tried")
    assert hint.count("bf16") == 1
    assert "channels_last" not in hint


def test_few_threads_are_told_unless_more_were_tried_in_vain():
    split = (0, 0.1, 0.1, 0.8)
    assert "1 of 4 cores" in findings(split, threads=1, cores=4)["M106"].facts[0]
    assert "M106" not in findings(split, threads=1, cores=4, tried=(("4 threads", 0.7),))
    assert "M106" not in findings(split, threads=4, cores=4, busy=3.6)
    assert "1.2 of 4 threads work" in findings(split, threads=4, cores=4, busy=1.2)["M106"].facts[0]


def test_a_slow_update_is_told_with_its_fused_form():
    found = findings((0, 0.2, 0.5, 0.3), optimizer=0.35, fused=False)
    assert "35 ms of 100 ms" in found["M107"].facts[0]
    assert "fused=True" in found["M107"].hint
    assert "fused" not in findings((0, 0.2, 0.5, 0.3), optimizer=0.35, fused=True)["M107"].hint
