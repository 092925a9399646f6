"""False alarms: what a check finds in models that nobody edited; and whether memory and a full pass agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import torchgraft as tg
from benchmarks.measure import table
from benchmarks.resilience import TIMM
from benchmarks.zoo import Classifier, named, torchvision
from torchgraft.rules import judge

TITLE = "Findings in unedited models, and passes that agree with one that is not answered from memory"


def _of_timm() -> Iterator[Classifier]:
    """Give the models of timm that the table of resilience has, each at its own size."""
    yield from map(named, TIMM)


def _looked(one: Classifier) -> tuple[list[str], bool]:
    g = tg.load(one.build(), input=one.shape)
    found = judge(g.evidence())
    for finding in found:
        print(f"  {one.name}: {finding}", flush=True)
    agree = all(g.trace(train=train) == g.trace(train=train, cached=False) for train in (False, True))
    if not agree:
        print(f"  {one.name}: the passes differ", flush=True)
    return [finding.severity for finding in found], agree


def run() -> str:
    """Check every model as it is."""
    rows = []
    for title, zoo in (("torchvision", torchvision()), ("timm", _of_timm())):
        counts: Counter[str] = Counter()
        total = agreed = 0
        for one in zoo:
            found, agree = _looked(one)
            counts.update(set(found))
            total, agreed = total + 1, agreed + agree
        rows.append((title, total, counts["error"], counts["warning"], counts["note"], agreed))
    return table(["models", "of them", "with errors", "with warnings", "with notes", "passes agree"], rows)
