"""Values of layers in a pass: hooks, torchvision's extractor and torchlens beside a capture."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from benchmarks.measure import alternate, table

TITLE = (
    "Values of layers in one pass, one image of 224×224 or 128 words: CPU / wall seconds, medians of 5 "
    "alternating runs; in brackets the memory that it takes beyond a bare pass, MiB"
)
MODELS = {
    "resnet152": "layer3.10",
    "swin_b": "features.5.5",
    "vit_l_16": "encoder.layers.encoder_layer_11",
    "bert-base": "encoder.layer.5",
}
EVERY = ("bare pass", "hooks, wrong after in-place", "hooks with clone", "torchlens", "torchgraft")
ONE = (
    "bare pass",
    "hook, whole pass",
    "torchvision's extractor",
    "extractor, made before",
    "torchgraft",
    "torchgraft, made before",
)
_FROM_HERE = "from benchmarks.capture import peak; peak({name!r}, {task!r}, {every!r})"


def run() -> str:
    """Measure time in this process, and memory in a fresh one for each task."""
    found = [_written(True, EVERY), _written(False, ONE)]
    return "\n\n".join(
        [
            "Every layer:",
            found[0],
            "One layer in the middle:",
            found[1],
            "`hooks, wrong after in-place` keep references: what an in-place ReLU writes to is not what the layer "
            "gave. torchgraft shares memory until somebody writes. `made before`: the extractor's graph, or the "
            "graft's trace, is there already. A 7B decoder is left out: on meta there are no values to see.",
        ]
    )


def _written(every: bool, names: tuple[str, ...]) -> str:
    rows = []
    for name in MODELS:
        tasks = _tasks(name, every)
        costs = alternate({task: tasks[task] for task in names if task in tasks and task != "torchlens"})
        if "torchlens" in tasks:
            costs |= _slow(tasks["torchlens"])
        bare = _peak(name, "bare pass", every)
        cells = []
        for task in names:
            if task not in costs:
                cells.append("fails")
                continue
            more = "" if task == "bare pass" else f" [{max(_peak(name, task, every) - bare, 0):.0f}]"
            cells.append(f"{costs[task]}{more}")
        rows.append((name, *cells))
    return table(["model", *names], rows)


def _slow(task: Callable[[], object]) -> dict[str, Any]:
    try:
        task()
    except Exception:
        return {}
    return alternate({"torchlens": task}, runs=2)


def _peak(name: str, task: str, every: bool) -> float:
    code = _FROM_HERE.format(name=name, task=task, every=every)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return float(json.loads(done.stdout.splitlines()[-1])) if done.returncode == 0 else float("nan")


def peak(name: str, task: str, every: bool) -> None:
    """Print the peak of this process in MiB, above what it held after a bare pass."""
    import gc

    tasks = _tasks(name, every)
    tasks["bare pass"]()
    gc.collect()
    with open("/proc/self/clear_refs", "w") as told:
        told.write("5")  # the peak begins anew
    before = _status("VmRSS")
    kept = tasks[task]()
    print(json.dumps(_status("VmHWM") - before))
    del kept


def _status(name: str) -> float:
    with open("/proc/self/status") as told:
        return next(int(line.split()[1]) / 1024 for line in told if line.startswith(name))


def _model(name: str) -> tuple[Any, Any, dict[str, Any]]:
    """Give a graft, its input, and the same as arguments."""
    import torch

    import torchgraft as tg

    torch.manual_seed(0)
    if name != "bert-base":
        return tg.load(f"torchvision:{name}@none"), torch.randn(1, 3, 224, 224), {}
    from transformers import BertConfig, BertModel

    words = {
        "input_ids": torch.randint(0, 30000, (1, 128)),
        "attention_mask": torch.ones(1, 128, dtype=torch.long),
    }
    return tg.load(BertModel(BertConfig()), input=words), None, words


def _tasks(name: str, every: bool) -> dict[str, Callable[[], object]]:
    import torch

    from torchgraft.trace.tree import mapped

    graft, image, words = _model(name)
    model, layer = graft.module.eval(), MODELS[name]
    given = (image,) if image is not None else ()

    def call(one: Any = model) -> object:
        with torch.no_grad():
            return one(*given, **words)

    def hooks(keep: Callable[[Any], Any], paths: list[str]) -> object:
        seen: dict[str, list[Any]] = {}
        handles = [
            model.get_submodule(path).register_forward_hook(
                lambda module, args, out, path=path: seen.setdefault(path, []).append(keep(out))
            )
            for path in paths
        ]
        call()
        for handle in handles:
            handle.remove()
        return seen

    def cloned(out: Any) -> Any:
        return mapped(torch.Tensor.clone, out)

    def captured(one: Any, *at: str) -> object:
        with one.capture(*at) as seen:
            call()
        return seen

    paths = [path for path, _ in model.named_modules() if path]
    if every:
        return {
            "bare pass": call,
            "hooks, wrong after in-place": lambda: hooks(lambda out: out, paths),
            "hooks with clone": lambda: hooks(cloned, paths),
            "torchlens": lambda: _torchlens(model, given, words),
            "torchgraft": lambda: captured(graft),
        }
    return {
        "bare pass": call,
        "hook, whole pass": lambda: hooks(lambda out: out, [layer]),
        **_extractors(model, layer, image, call),
        "torchgraft": lambda: captured(_anew(graft), layer),
        "torchgraft, made before": lambda: captured(graft, layer),
    }


def _anew(graft: Any) -> Any:
    """Give the same model with nothing remembered."""
    import torchgraft as tg

    return tg.load(graft.module, input=graft._inputs())


def _torchlens(model: Any, given: tuple[Any, ...], words: dict[str, Any]) -> object:
    import torch
    import torchlens

    with torch.no_grad():
        return torchlens.trace(model, list(given), words)


def _extractors(
    model: Any, layer: str, image: Any, call: Callable[..., object]
) -> dict[str, Callable[[], object]]:
    from torchvision.models.feature_extraction import create_feature_extractor

    if image is None:
        return {}
    made = create_feature_extractor(model, [layer])
    return {
        "torchvision's extractor": lambda: call(create_feature_extractor(model, [layer])),
        "extractor, made before": lambda: call(made),
    }
