"""A summary, printed, beside those of torchinfo, torchsummary, fvcore and calflops."""

from __future__ import annotations

import contextlib
import gc
import io
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.measure import table

TITLE = (
    "A summary as text, without warm memory: CPU / wall seconds, medians of 5 runs after a first one (2 where one "
    "takes over 5 s); in brackets how much memory the first one took at most beside the model, in MiB. Each tool "
    "in a process of its own, once awake"
)
MODELS = ("resnet152", "vit_l_16", "swin_b", "BERT-base", "decoder, 7B on meta")
TOOLS = ("torchgraft", "torchinfo", "torchinfo, meta", "torchsummary", "fvcore", "calflops")
RUNS, LONG = 5, 5.0
Task = Callable[[], object]


def run() -> str:
    """Measure every tool on every model."""
    rows = [(model, *(_told(tool, model) for tool in TOOLS)) for model in MODELS]
    return table(["model", *TOOLS], rows)


def _told(tool: str, model: str) -> str:
    """Measure in a fresh process, and say why where there is nothing to measure."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.summary", tool, model], capture_output=True, text=True, timeout=1800
    )
    try:
        found = json.loads(done.stdout.strip().splitlines()[-1])
    except (IndexError, ValueError):
        return f"– (the process ended: {done.returncode})"
    if "why" in found:
        return f"– ({found['why']})"
    return f"{found['cpu']:.3f} / {found['wall']:.3f} [{found['more']:.0f}]"


def _measured(tool: str, model: str) -> dict[str, Any]:
    if model.startswith("decoder") and tool == "torchinfo":
        return {"why": "25 GiB of weights"}
    module, given = _built(model, meta=tool == "torchinfo, meta")
    _woken(tool)
    task = _TASKS[tool](module, given)
    _lowest()
    before = _peak()
    try:
        first = _cost(task)
        more = _peak() - before
        seen = [_cost(task) for _ in range(RUNS if first[1] < LONG else 2)]
    except Exception as error:
        return {"why": f"{type(error).__name__}: {(str(error).strip() or ' ').splitlines()[0][:60]}".rstrip(": ")}
    cpu, wall = (statistics.median(column) for column in zip(*seen, strict=True))
    return {"cpu": cpu, "wall": wall, "more": more}


def _cost(task: Task) -> tuple[float, float]:
    """Run a task in silence, and give its CPU and wall seconds."""
    gc.collect()
    cpu, wall = time.process_time(), time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        assert task()
    return time.process_time() - cpu, time.perf_counter() - wall


def _woken(tool: str) -> None:
    """Let a tool import what it imports late, so that this counts for none."""
    from torch import nn, zeros

    with contextlib.redirect_stdout(io.StringIO()):
        _TASKS[tool](nn.Sequential(nn.Linear(4, 4)), zeros(1, 4))()


def _built(name: str, *, meta: bool) -> tuple[Any, Any]:
    """Build a model with random weights, and an example of one sample."""
    import torch

    home = torch.device("meta" if meta or name.startswith("decoder") else "cpu")
    with home:
        if name == "BERT-base":
            from transformers import BertConfig, BertModel

            return BertModel(BertConfig()).eval(), torch.zeros(1, 128, dtype=torch.long)
        if name.startswith("decoder"):
            from transformers import AutoModelForCausalLM, LlamaConfig

            model = AutoModelForCausalLM.from_config(LlamaConfig())  # as Llama 2 with 7 billion
            return model.eval(), torch.zeros(1, 128, dtype=torch.long)
        from torchvision import models

        return models.get_model(name, weights=None).eval(), torch.zeros(1, 3, 224, 224)


def _torchgraft(model: Any, given: Any) -> Task:
    import torchgraft as tg

    return lambda: str(tg.load(model, input=given).show())


def _torchinfo(model: Any, given: Any) -> Task:
    import torchinfo

    return lambda: str(torchinfo.summary(model, input_data=given, device="cpu", verbose=0))


def _torchinfo_meta(model: Any, given: Any) -> Task:
    import torchinfo

    return lambda: str(torchinfo.summary(model, input_data=given, device="meta", verbose=0))


def _torchsummary(model: Any, given: Any) -> Task:
    import torchsummary

    def task() -> bool:
        torchsummary.summary(model, tuple(given.shape[1:]), device="cpu")
        return True

    return task


def _fvcore(model: Any, given: Any) -> Task:
    import logging

    from fvcore.nn import FlopCountAnalysis, flop_count_table

    logging.getLogger("fvcore").setLevel(logging.CRITICAL)
    return lambda: flop_count_table(FlopCountAnalysis(model, given))


def _calflops(model: Any, given: Any) -> Task:
    from calflops import calculate_flops

    return lambda: calculate_flops(model=model, args=[given], print_detailed=True)


_TASKS: dict[str, Callable[[Any, Any], Task]] = {
    "torchgraft": _torchgraft,
    "torchinfo": _torchinfo,
    "torchinfo, meta": _torchinfo_meta,
    "torchsummary": _torchsummary,
    "fvcore": _fvcore,
    "calflops": _calflops,
}


def _lowest() -> None:
    """Let the peak of this process start anew, where the kernel can do that."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak() -> float:
    """Give the most memory that this process took since, in MiB."""
    try:
        words = Path("/proc/self/status").read_text().split()
        return int(words[words.index("VmHWM:") + 1]) / 1024
    except (OSError, ValueError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    print(json.dumps(_measured(sys.argv[1], sys.argv[2])))
