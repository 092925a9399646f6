from __future__ import annotations

import signal
import threading

import pytest

from torchgraft.train.stop import stoppable


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_heard_and_does_nothing_else(number):
    with stoppable() as stop:
        assert not stop.asked
        signal.raise_signal(number)
        assert stop.asked


def test_a_second_ctrl_c_ends_at_once():
    with stoppable():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_afterwards_signals_go_where_they_went_before():
    heard = []
    before = signal.signal(signal.SIGTERM, lambda *_: heard.append(1))
    try:
        with stoppable():
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert heard == [1]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_in_another_thread_nothing_is_taken_over():
    before, seen = signal.getsignal(signal.SIGINT), []

    def inside():
        with stoppable() as stop:
            seen.append((stop.asked, signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert seen == [(False, before)]
