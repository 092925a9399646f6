"""Rules that read what the probes recorded, and give findings."""

from torchgraft.check.finding import Finding, Fix
from torchgraft.check.rule import Evidence, Rule, judge, rules

__all__ = ["Evidence", "Finding", "Fix", "Rule", "judge", "rules"]
