"""A script profiled, in place of `python -m torch.utils.bottleneck`: Python by cProfile, operations by torch's."""

from __future__ import annotations

import cProfile
import os
import platform
import statistics
import sys
import time
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from torchgraft.probes.speed import Split
from torchgraft.profile.clocks import Clocks
from torchgraft.profile.events import OUTSIDE, Ledger, Sums
from torchgraft.profile.functions import hottest
from torchgraft.profile.machine import machine
from torchgraft.profile.main import is_script, run_as_main
from torchgraft.profile.record import Machine, Operation, Part, Phase, Profile, Run, Script
from torchgraft.profile.verdict import judged, speed_of
from torchgraft.profile.windows import Windows

__all__ = ["is_script", "profile_script"]

ENOUGH = 5
"""So many optimizer steps, at least, say what one takes and what holds it up."""


_TIMED: list[cProfile.Profile] = []


def _untimed() -> None:
    """Do not time the processes that a script starts."""
    for one in _TIMED:
        one.disable()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_untimed)


def profile_script(path: str, arguments: Sequence[str] = (), *, trace: bool = False) -> tuple[Profile, int]:
    """Run a script and say where its time went; gives its exit code as well.

    The script runs once, as `python script.py` would run it. Modules, backward passes, optimizers and loaders are
    timed over the whole run; torch's profiler records windows of it, Python functions are timed by cProfile.

    Args:
        path: of the script.
        arguments: that it gets.
        trace: keep the first window as a trace for Perfetto.

    Raises:
        SourceError: the script can't be read.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    best = machine(device)
    seen, python = Clocks(), cProfile.Profile(builtins=False)
    windows = Windows(seen, best, keep_trace=trace)

    def around(code: types.CodeType, names: dict[str, Any]) -> None:
        with seen.running(), windows.running():
            _TIMED.append(python)
            python.enable()
            try:
                exec(code, names)
            finally:
                python.disable()
                _TIMED.remove(python)

    begun, cpu = time.perf_counter(), time.process_time()
    ended = run_as_main(path, arguments, around)
    seconds = max(time.perf_counter() - begun - windows.spent, 0.0)
    busy = (time.process_time() - (seen.begun_cpu or cpu)) / (time.perf_counter() - (seen.begun or begun))
    refused = ended.code == 2 and seen.begun is None  # as argparse and click leave
    whole = Script(
        path=path,
        arguments=tuple(arguments),
        seconds=seconds,
        cpu=time.process_time() - cpu,
        ended=ended.words,
        steps=seen.steps,
        watched=windows.seconds,
        functions=hottest(python, seconds) if not refused else (),
        memory=(memory := _most_memory()),
        environment=tuple(_environment(memory)),
        before=_before(seen, begun, windows),
    )
    if refused:
        return Profile(Path(path).name, best, (), (), notes=(_options(path),), script=whole), ended.code
    return _profile(path, best, whole, _run(seen, windows.ledger, whole, busy), seen, windows), ended.code


def _before(seen: Clocks, begun: float, windows: Windows) -> float:
    """Give the seconds that a script took to get ready."""
    return max((seen.begun or begun) - begun - windows.before, 0.0)


def _options(path: str) -> str:
    return (
        "the script ended with exit code 2 before any step, as one that does not know its arguments; options of "
        f"torchgraft come before the script's name: torchgraft profile --to trace.json {path} …"
    )


def _profile(path: str, best: Machine, whole: Script, run: Run, seen: Clocks, windows: Windows) -> Profile:
    name = Path(path).name
    speed = speed_of(
        run,
        best,
        what="the script, once at work,",
        workers=seen.workers,
        fused=seen.fused,
        batch=0,
    )
    notes = [
        f"torch's profiler saw {windows.seconds:.1f} s of it; cProfile makes calls of Python functions slower"
    ]
    if not windows.seconds:
        notes = ["the script was over before torch's profiler saw anything of it"]
    if windows.failed:
        notes.append(f"torch's profiler could not go on: {windows.failed}")
    if run.too_few:
        notes.append(_few(run.steps))
    found = judged(speed, name) if windows.seconds and not run.too_few else ()
    return Profile(name, best, (), (run,), found, (), tuple(notes), whole, windows.trace)


def _few(steps: int) -> str:
    words = "1 step is" if steps == 1 else f"{steps} steps are"
    return f"{words} too few to say what a step takes and what holds it up; let it take {ENOUGH} or more"


def _run(seen: Clocks, ledger: Ledger, script: Script, busy: float) -> Run:
    """Put what the script did, once at work, down to phases and modules."""
    seconds = max(script.seconds - script.before, 0.0)
    phases = {name: seen.phases.get(name, 0.0) for name in ("data", "forward", "backward", "optimizer")}
    seconds = max(seconds, sum(phases.values()), 1e-9)
    other = seconds - sum(phases.values())
    told = {**phases, "elsewhere": other}
    return Run(
        kind="script",
        seconds=seconds,
        spread=(seconds, seconds),
        steps=seen.steps,
        samples=0,
        phases=tuple(Phase(name, value) for name, value in told.items() if value > 0.0005 * seconds),
        parts=tuple(_parts(seen, ledger)),
        outside=_outside(seen, ledger, other),
        split=_split(phases["data"], seconds, ledger),
        busy=busy,
        operations=_operations(ledger),
        each=statistics.median(seen.gaps) if seen.steps >= ENOUGH else 0.0,
    )


def _parts(seen: Clocks, ledger: Ledger) -> list[Part]:
    backward = {path: one for (phase, path), one in ledger.sums.items() if phase == "backward"}
    watched = sum(one.total for one in backward.values())
    scale = seen.phases.get("backward", 0.0) / watched if watched else 0.0
    found = []
    for path, kind in seen.kinds.items():
        back = backward.get(path, Sums())
        sums = [one for (_, its), one in ledger.sums.items() if its == path]
        within = sum(one.useful for one in sums)
        between, products = sum(one.between for one in sums), sum(one.products for one in sums)
        bound = "Python" if between > within else "compute" if products > within - products else "memory"
        part = Part(
            path, kind, seen.calls.get(path, 0), seen.own.get(path, 0.0), back.total * scale, products,
            within - products, between, bound=bound if sums else "",
        )  # fmt: skip
        found.append(part)
    return found


def _outside(seen: Clocks, ledger: Ledger, other: float) -> Part:
    back = ledger.sums.get(("backward", OUTSIDE), Sums())
    watched = ledger.phase("backward").total
    scale = seen.phases.get("backward", 0.0) / watched if watched else 0.0
    return Part("", "", forward=other, backward=back.total * scale)


def _split(data: float, seconds: float, ledger: Ledger) -> Split:
    """Take the wait for data by the clock, and the rest as the windows showed it."""
    sums = [one for (phase, _), one in ledger.sums.items() if phase != "data"]
    parts = [sum(getattr(one, name) for one in sums) for name in ("between", "moving", "products")]
    waits = min(data / seconds, 1.0) if seconds > 0 else 0.0
    whole = sum(parts)
    rest = [(1 - waits) * one / whole for one in parts] if whole else [1 - waits, 0.0, 0.0]
    return Split(waits, *rest)


def _operations(ledger: Ledger, most: int = 12) -> tuple[Operation, ...]:
    found: dict[str, list[float]] = {}
    for (phase, name), (seconds, calls) in ledger.operations.items():
        if phase != "data":
            known = found.setdefault(name, [0.0, 0])
            known[0] += seconds
            known[1] += calls
    order = sorted(found.items(), key=lambda one: -one[1][0])
    return tuple(Operation(name, seconds, calls) for name, (seconds, calls) in order[:most])


def _most_memory() -> int:
    """Give the most bytes that this process held in RAM; 0 where the system does not tell, as Windows."""
    try:
        import resource
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _environment(memory: int) -> list[tuple[str, str]]:
    here = torch.cuda.is_available()
    cuda = f"CUDA {torch.version.cuda}, {torch.cuda.device_count()} devices" if here else "no CUDA"
    return [
        ("torch", f"{torch.__version__}, {cuda}, Python {platform.python_version()} on {platform.system()}"),
        *([("memory", f"{memory / 1e6:,.0f} MB of RAM at most")] if memory else []),
    ]
