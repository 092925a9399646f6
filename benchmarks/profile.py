"""What a profile costs: a bare step, the same step watched by torchgraft, and by torch.profiler alone."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.profiler import ProfilerActivity
from torch.profiler import profile as torch_profile
from torchvision.models import get_model

from benchmarks.measure import table
from torchgraft.profile.spans import spanned
from torchgraft.profile.watch import watching

TITLE = (
    "A training step bare, watched by torchgraft, by torch.profiler alone: CPU seconds, medians of 7 rounds; a "
    "whole script the same ways: CPU / wall seconds and peak memory of the process, medians of 3"
)

MODELS = {
    "glyphs-like, batch 32": (lambda: _small(), (32, 1, 16, 16)),
    "resnet18, batch 4, 64×64": (lambda: get_model("resnet18", weights=None), (4, 3, 64, 64)),
    "vit_b_16 (2 blocks), batch 2": (lambda: _vit(), (2, 3, 224, 224)),
    "loop of 500 small operations": (lambda: _Loop(), (2, 8)),
}
ROUNDS = 7


class _Loop(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(250):
            x = torch.tanh(x) * 0.9
        given: torch.Tensor = self.fc(x)
        return given


def _small() -> nn.Module:
    from torchgraft.bundled.glyphs import glyphs

    return glyphs()


def _vit() -> nn.Module:
    from torchvision.models import VisionTransformer

    return VisionTransformer(224, 16, num_layers=2, num_heads=12, hidden_dim=768, mlp_dim=3072)


SCRIPT = """
import torch
from torch import nn
net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
x, y = torch.randn(32, 64), torch.randint(10, (32,))
for _ in range(2000):
    optimizer.zero_grad()
    nn.functional.cross_entropy(net(x), y).backward()
    optimizer.step()
"""

WHOLE = """
import cProfile, runpy, torch
from torch.profiler import ProfilerActivity, profile
python = cProfile.Profile()
with profile(activities=[ProfilerActivity.CPU]) as seen:
    python.runcall(runpy.run_path, "script.py", run_name="__main__")
print(seen.key_averages().table(sort_by="self_cpu_time_total", row_limit=15))
python.print_stats("tottime")
"""
"""What torch.utils.bottleneck did: one profiler of each kind over all of a script."""


def run() -> str:
    """Measure each way on each model, in alternating rounds; then a script."""
    return f"{_steps()}\n\n{_scripts()}"


def _scripts(rounds: int = 3) -> str:
    """Run a script of 2,000 small steps by itself, under torchgraft, and under both profilers as a whole."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "script.py").write_text(SCRIPT)
        Path(folder, "whole.py").write_text(WHOLE)
        ways = {
            "python script.py": ["script.py"],
            "torchgraft profile script.py": ["-m", "torchgraft", "profile", "script.py"],
            "cProfile and torch.profiler over all of it": ["whole.py"],
        }
        seen: dict[str, list[tuple[float, float, float]]] = {way: [] for way in ways}
        for _ in range(rounds):
            for way, arguments in ways.items():
                seen[way].append(_process([sys.executable, *arguments], folder))
    rows = []
    for way, figures in seen.items():
        cpu, wall, memory = (statistics.median(column) for column in zip(*figures, strict=True))
        rows.append((way, f"{cpu:.1f} / {wall:.1f}", f"{memory / 1e6:,.0f} MB"))
    return table(["a script of 2,000 small steps", "CPU / wall s", "peak memory"], rows)


def _process(command: list[str], folder: str) -> tuple[float, float, float]:
    """Give CPU and wall seconds of a process, and its peak memory in bytes."""
    start = time.perf_counter()
    running = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(running.pid, 0)
    running.returncode = os.waitstatus_to_exitcode(status)
    assert running.returncode == 0, command
    return used.ru_utime + used.ru_stime, time.perf_counter() - start, used.ru_maxrss * 1024


def _steps() -> str:
    rows = []
    for name, (make, shape) in MODELS.items():
        step, model = _step(make(), torch.randn(shape))
        paths = {id(module): path for path, module in model.named_modules()}
        ways = {
            "bare": step,
            "torchgraft": _ours(step, paths),
            "torch": _torch(step, False),
            "full": _torch(step, True),
        }
        seen: dict[str, list[float]] = {way: [] for way in ways}
        for number in range(ROUNDS + 1):
            for way, task in ways.items():
                start = time.process_time()
                task()
                if number:
                    seen[way].append(time.process_time() - start)
        medians = {way: statistics.median(values) for way, values in seen.items()}
        rows.append((name, f"{medians['bare']:.4f}", *(_ratio(medians, way) for way in ways if way != "bare")))
    head = [
        "model",
        "bare",
        "torchgraft, by module, memory",
        "torch.profiler",
        "torch.profiler with stacks, memory",
    ]
    return table(head, rows)


def _ratio(medians: dict[str, float], way: str) -> str:
    return f"{medians[way]:.4f} ({medians[way] / medians['bare']:.2f}×)"


def _step(model: nn.Module, x: torch.Tensor) -> tuple[Callable[[], None], nn.Module]:
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()

    return step, model


def _ours(step: Callable[[], None], paths: dict[int, str]) -> Callable[[], None]:
    def task() -> None:
        with spanned(lambda module: paths.get(id(module))), watching(torch.device("cpu"), memory=True):
            step()

    return task


def _torch(step: Callable[[], None], full: bool) -> Callable[[], None]:
    def task() -> None:
        with torch_profile(activities=[ProfilerActivity.CPU], profile_memory=full, with_stack=full):
            step()

    return task
