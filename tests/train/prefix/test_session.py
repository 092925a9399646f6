"""A whole training: with what the frozen part gives computed once, and without."""

from __future__ import annotations

import pytest
import torch
from tests.train.prefix.nets import equal
from tests.train.stripes import DATA, graft

from torchgraft.train.opening import session_for
from torchgraft.train.rates import starting
from torchgraft.train.watch import Watch
from torchgraft.trainplan import TrainPlan


def run(*, free=("fc",), epochs=4, **settings):
    """Train by hand, so that the session can be looked at."""
    g = graft()
    g.freeze(all_but=list(free))
    plan = TrainPlan(data="stripes", epochs=epochs, batch=20, **settings)
    torch.manual_seed(0)
    read = 0
    with starting(g, plan) as steps:
        session = session_for(g, DATA, plan, g.recipe.preprocess, torch.device("cpu"), steps=steps)
        while not session.is_done:
            session.open_epoch()
            for batch in session.feeds.train.batches(session.epoch):
                read += batch.inputs is not None
                session.step(batch)
            session.close_epoch()
        session.finish("finished")
    return g.module.state_dict(), session, read


def figures(session):
    return [epoch.model_dump(exclude={"seconds"}) for epoch in session.epochs]


@pytest.mark.parametrize(
    "settings",
    [{}, {"ema": 0.9}, {"accumulate": 2}, {"augment": "light", "views": 2}, {"precision": "bf16"}],
    ids=str,
)
def test_weights_and_figures_are_the_same_as_without(settings):
    plain, without, _ = run(cache="off", **settings)
    ours, session, _ = run(cache="memory", **settings)
    assert equal(plain, ours)
    assert figures(without) == figures(session)
    assert without.caches[0].answered == 0


def test_from_the_second_epoch_on_no_sample_is_read():
    _, session, read = run(cache="memory")
    train, val = session.caches
    assert read == 5
    assert (train.whole, train.answered) == (5, 15)
    assert (val.whole, val.answered) == (3, 9)
    assert train.words.startswith(
        "frozen part computed once, after flatten in the model: [512], 2.05 kB a sample, 197 kB"
    )


def test_each_variant_is_computed_once():
    _, session, read = run(cache="memory", augment="light", views=2, epochs=6)
    assert read == 10
    assert session.caches[0].answered == 20


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"cache": "memory", "augment": "light"}, "varied anew each time"),
        ({"cache": "memory", "mixup": 0.2}, "blend each sample with another one"),
        ({"cache": "off"}, "turns it off"),
        ({"cache": "auto", "epochs": 1}, "it would not pay"),
        ({"cache": "memory", "free": ("stem", "fc")}, "nothing is frozen"),
        ({"cache": "memory", "cache_limit": 1e-9}, "cache_limit"),
        ({"cache": "disk"}, "no folder"),
    ],
    ids=str,
)
def test_where_nothing_is_kept_it_says_why(settings, words):
    _, session, _ = run(**{"epochs": 2, **settings})
    assert session.caches[0].answered == 0
    assert words in session.caches[0].words


def test_what_is_unfrozen_on_the_way_is_trained():
    settings = {"unfreeze": [{"epoch": 3, "at": "stem"}]}
    plain, _, _ = run(cache="off", **settings)
    ours, session, _ = run(cache="memory", **settings)
    assert equal(plain, ours)
    assert session.caches[0].answered == 5
    assert session.caches[0].words == "nothing is kept of the frozen part: nothing is frozen"


def test_a_training_says_what_it_computes_once(tmp_path):
    g = graft()
    g.freeze(all_but=["fc"])
    said = []
    g.train(DATA, epochs=3, batch=16, watch=Watch(note=said.append))
    assert said == [
        "frozen part computed once, after flatten in the model: [512], 2.05 kB a sample, 197 kB in memory"
    ]


def test_a_training_that_goes_on_in_the_middle_of_an_epoch():
    settings = {"cache": "memory", "keep": "last", "ema": 0.9}
    whole, _, _ = run(**settings)

    def half(stop, snapshot=None):
        g = graft()
        g.freeze(all_but=["fc"])
        plan = TrainPlan(data="stripes", epochs=4, batch=20, **settings)
        torch.manual_seed(0 if snapshot is None else 5)
        session = session_for(g, DATA, plan, g.recipe.preprocess, torch.device("cpu"))
        if snapshot is not None:
            session.restore(snapshot, {})
        while not session.is_done:
            session.open_epoch()
            for batch in session.feeds.train.batches(session.epoch, start=session.batch):
                session.step(batch)
                if (session.epoch, session.batch) == stop:
                    return session.snapshot(), session
            session.close_epoch()
        session.finish("finished")
        return g.module.state_dict(), session

    snapshot, _ = half((2, 2))
    ours, session = half(None, snapshot)
    assert equal(whole, ours)
    assert session.caches[0].answered
