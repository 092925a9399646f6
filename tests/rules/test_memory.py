from __future__ import annotations

import dataclasses

import pytest
from torch import nn

from torchgraft.probes.fit import Fit
from torchgraft.rules.memory import CloseCall, NoSampleFits, TooLarge
from torchgraft.rules.rule import Evidence

GIB = 2**30
FITS = Fit(
    need=4 * GIB,
    standing=1 * GIB,
    allowance=1 * GIB,
    room=10 * GIB,
    place="10.0 GiB (10GiB)",
    batch=8,
    most=20,
    moment="in the backward pass, at layer1",
    holders="activations 3.00 GiB",
)


def found(fit):
    evidence = Evidence(nn.Identity(), (), memory=fit)
    return [one for rule in (TooLarge, NoSampleFits, CloseCall) for one in rule().findings(evidence)]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        ({"room": 4 * GIB, "most": 3}, ["M001"]),
        ({"room": 4 * GIB, "most": 0}, ["M002"]),
        ({"room": 5 * GIB, "most": 8}, ["M003"]),
        ({"room": 5 * GIB - 1, "most": 7}, ["M001"]),
    ],
)
def test_what_is_needed_is_compared_with_what_there_is(changes, expected):
    assert [one.code for one in found(dataclasses.replace(FITS, **changes))] == expected


def test_where_no_memory_was_predicted_nothing_is_said():
    assert found(None) == []


def test_the_finding_says_what_when_and_who():
    (finding,) = found(dataclasses.replace(FITS, room=4 * GIB, most=3))
    told = str(finding)
    for words in ("batch 8 needs 5.00 GiB", "in the backward pass, at layer1", "activations", "that fits is 3"):
        assert words in told


def test_where_the_state_alone_is_too_much_it_is_said():
    fit = dataclasses.replace(FITS, standing=9 * GIB, room=4 * GIB, most=0)
    (finding,) = found(fit)
    assert "weights, gradients and optimizer alone take 9.00 GiB, more than there is" in str(finding)
