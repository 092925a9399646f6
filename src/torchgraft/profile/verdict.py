"""The verdict on a run: what rules of family M read, and what they find."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from torchgraft.probes.speed import Speed
from torchgraft.profile.classes import kinds
from torchgraft.profile.record import Machine, Run, Try
from torchgraft.rules import Evidence, Finding
from torchgraft.rules.rule import rules

__all__ = ["judged", "speed_of"]


def speed_of(run: Run, machine: Machine, tried: Sequence[Try] = (), **facts: object) -> Speed:
    """Give what rules read of a run.

    Args:
        run: a training step or a prediction.
        machine: what it ran on.
        tried: what was tried.
        facts: further fields of `Speed`.
    """
    known = {
        "what": f"a {run.kind}",
        "seconds": run.seconds,
        "split": run.split,
        "busy": run.busy,
        "threads": machine.threads,
        "cores": machine.cores,
        "device": machine.device.partition(":")[0],
        "calls": round(run.calls),
        "batch": run.samples,
        "hottest": tuple((one.name, one.share, one.bound) for one in kinds(run)[:8]),
        "tried": tuple((one.name, one.faster) for one in tried if one.of == run.kind),
        "optimizer": run.phase("optimizer") / max(run.seconds, 1e-12),
    }
    return Speed(**{**known, **facts})  # type: ignore[arg-type]


def judged(speed: Speed, name: str, model: nn.Module | None = None) -> tuple[Finding, ...]:
    """Let the rules of speed read a record, warnings first.

    Args:
        speed: see `speed_of`.
        name: what findings call the model or the script.
        model: rules of speed do not look at it.
    """
    evidence = Evidence(model if model is not None else nn.Module(), (), name=name, speed=speed)
    found = [
        finding for code, rule in rules().items() if code.startswith("M1") for finding in rule().findings(evidence)
    ]
    return tuple(sorted(found, key=lambda finding: finding.severity != "warning"))
