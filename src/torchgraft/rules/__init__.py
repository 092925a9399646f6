"""Rules that read what the probes recorded, and give findings."""

from torchgraft.rules.finding import Finding, Fix
from torchgraft.rules.rule import Evidence, Rule, judge, rules

__all__ = ["Evidence", "Finding", "Fix", "Rule", "judge", "rules"]
