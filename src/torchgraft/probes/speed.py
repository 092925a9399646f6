"""How fast something ran and what held it up, as a record that rules read; see torchgraft.profile."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["BOUNDS", "Speed", "Split"]

BOUNDS = ("data", "Python", "memory", "compute")
"""What a step can wait for."""


@dataclass(frozen=True)
class Split:
    """Shares of a step, together 1: waiting for data, Python between operations, moving memory, computing."""

    data: float
    python: float
    memory: float
    compute: float

    @property
    def largest(self) -> str:
        """Name the largest share."""
        return max(zip((self.data, self.python, self.memory, self.compute), BOUNDS, strict=True))[1]

    def of(self, bound: str) -> float:
        """Give the share of one of `BOUNDS`."""
        return dict(zip(BOUNDS, (self.data, self.python, self.memory, self.compute), strict=True))[bound]


@dataclass(frozen=True)
class Speed:
    """One training step, prediction or script, measured.

    Attributes:
        what: in words: `a training step`.
        seconds: of one step.
        split: what the time went to.
        busy: CPU seconds for each second.
        threads: of torch.
        cores: that the process may use.
        device: kind of device: `cpu`, `cuda`.
        calls: operations in one step.
        batch: samples in one step; 0 where unknown.
        precision: `fp32`, `bf16`, `fp16`; empty where unknown.
        workers: processes that load data; None where there is no loader.
        images: the model takes images and convolves them.
        hottest: the classes of modules that take most, with their shares and what bounds them.
        tried: what was tried and how many times as fast it was, best first.
        optimizer: the share of the optimizer's step.
        fused: whether it is fused; None where there is none, or it has no fused form.
        real: the data were those of the plan.
    """

    what: str
    seconds: float
    split: Split
    busy: float = 1.0
    threads: int = 1
    cores: int = 1
    device: str = "cpu"
    calls: int = 0
    batch: int = 0
    precision: str = ""
    workers: int | None = None
    images: bool = False
    hottest: tuple[tuple[str, float, str], ...] = ()
    tried: tuple[tuple[str, float], ...] = ()
    optimizer: float = 0.0
    fused: bool | None = None
    real: bool = False
