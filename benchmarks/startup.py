"""How long the command line takes to start, beside what `import torch` alone takes."""

from __future__ import annotations

import sys

from benchmarks.measure import alternate_processes, table

TITLE = "Start-up: CPU / wall seconds, medians of 7 alternating runs"


def run() -> str:
    """Measure commands that need no model."""
    me = [sys.executable, "-m", "torchgraft"]
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "torchgraft --help": [*me, "--help"],
        "torchgraft adapt --help": [*me, "adapt", "--help"],
        "torchgraft rules": [*me, "rules"],
        "python -c 'import torch'": [sys.executable, "-c", "import torch"],
        "python -c 'import timm'": [sys.executable, "-c", "import timm"],
    }
    return table(
        ["command", "CPU / wall s"], [(name, cost) for name, cost in alternate_processes(commands).items()]
    )
