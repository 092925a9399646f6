from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from torchgraft.memory.largest import MOST, largest


@given(
    fixed=st.integers(0, 10**9),
    slope=st.integers(1, 10**7),
    steeper=st.integers(0, 10**7),
    bend=st.integers(1, 500),
    room=st.integers(1, 10**11),
    start=st.integers(1, 4096),
)
def test_it_is_the_largest_that_fits_whatever_the_line_does(fixed, slope, steeper, bend, room, start):
    asked = []

    def need(batch):
        asked.append(batch)
        return fixed + slope * batch + steeper * max(0, batch - bend)

    found = largest(need, lambda size: size <= room, room, start)
    assert found == 0 or need(found) <= room
    assert found == MOST or need(found + 1) > room
    assert len(asked) < 32


def test_a_straight_line_takes_few_predictions():
    asked = []

    def need(batch):
        asked.append(batch)
        return 1000 + 37 * batch

    assert largest(need, lambda size: size <= 10_000, 10_000, 32) == 243
    assert len(asked) <= 5
