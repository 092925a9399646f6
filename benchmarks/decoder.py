"""A decoder of 70 billion parameters on the meta device, built from its configuration: the first check."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.measure import table

TITLE = "First check of a decoder with 70.6 billion parameters on meta (both modes, two batch sizes), 2×64 tokens"

_CHECK = """
import resource, time, torch, torchgraft as tg
from transformers import AutoModelForCausalLM, LlamaConfig
config = LlamaConfig(hidden_size=8192, intermediate_size=28672, num_hidden_layers=80, num_attention_heads=64,
                     num_key_value_heads=8, vocab_size=128256, max_position_embeddings=8192)
with torch.device("meta"):
    model = AutoModelForCausalLM.from_config(config)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
cpu, wall = time.process_time(), time.perf_counter()
found = tg.check(model, torch.zeros(2, 64, dtype=torch.long))
assert not any(one.is_error for one in found), found
print(time.process_time() - cpu, time.perf_counter() - wall,
      (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024,
      resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def run() -> str:
    """Check it in a process of its own, five times."""
    runs = []
    for _ in range(5):
        done = subprocess.run([sys.executable, "-c", _CHECK], check=True, capture_output=True, text=True)
        runs.append([float(word) for word in done.stdout.split()])
    cpu, wall, more, peak = (sorted(column)[2] for column in zip(*runs, strict=True))
    row = (f"{cpu:.2f} / {wall:.2f}", f"{more:.0f}", f"{peak:.0f}")
    return table(["check, CPU / wall s", "more memory than before, MiB", "peak of the whole process, MiB"], [row])
