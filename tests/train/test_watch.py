from __future__ import annotations

from pathlib import Path

from tests.train.told import BEGIN, epoch, moment

from torchgraft.history import History
from torchgraft.train.watch import SILENT, Watch, both

NEWS = {
    "begin": BEGIN, "step": moment(1), "epoch": epoch(1), "saved": Path("state"), "found": object(),
    "end": History(), "note": "computed once",
}  # fmt: skip


def listening(heard: list[tuple[str, str, object]], who: str) -> Watch:
    return Watch(**{name: lambda news, name=name: heard.append((who, name, news)) for name in NEWS})


def test_what_is_left_out_hears_nothing_and_fails_nothing():
    for name, news in NEWS.items():
        assert getattr(SILENT, name)(news) is None


def test_two_watches_hear_everything_the_first_one_first():
    heard: list[tuple[str, str, object]] = []
    together = both(listening(heard, "one"), listening(heard, "other"))
    for name, news in NEWS.items():
        getattr(together, name)(news)
    assert heard == [(who, name, news) for name, news in NEWS.items() for who in ("one", "other")]
