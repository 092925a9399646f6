"""Start the processes of a test, and read what they leave."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

ROOT = Path(__file__).parents[3]
RUNS = Path(__file__).with_name("runs.py")


def environment(**extra):
    return {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}",
        **extra,
    }


def started(processes, *words, **extra):
    """Start processes by torchrun, as a user does; their output goes to a pipe."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return subprocess.Popen(
        [*torchrun, *map(str, words)],
        env=environment(**extra),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def ran(processes, folder, jobs):
    """Run jobs of runs.py to their end, in processes that import torch once."""
    said = folder / f"jobs-{processes}.json"
    said.write_text(json.dumps(jobs))
    words = [sys.executable, str(RUNS), str(folder), str(said), str(processes)]
    done = subprocess.run(words, env=environment(), text=True, capture_output=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def figures(folder, name):
    return json.loads((folder / f"{name}.json").read_text())


def tensors(folder, name):
    return load_file(folder / f"{name}.safetensors")


def differing(one, other):
    """Name the tensors that are not the same bit for bit."""
    return [name for name, value in one.items() if not torch.equal(value, other[name])]


def apart(one, other):
    """Give how far two states are apart at the most."""
    return max((value.double() - other[name].double()).abs().max().item() for name, value in one.items())
