"""A model to an SVG file: torchgraft beside torchview, torchviz and torchlens, which need Graphviz."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping

from benchmarks.measure import table

TITLE = (
    "A drawing of the model as SVG: CPU seconds, the first in a fresh process → median of 3 more (Graphviz's "
    "processes and the start of QuickJS and dagre included, imports not) / MiB more at the peak than before; "
    "images 1×3×224×224, text 1×64 tokens; the decoder is on meta"
)
MODELS = ("resnet18", "resnet152", "swin_b", "vit_l_16", "BERT-base", "decoder 7B")
TOOLS = ("torchgraft", "torchgraft, all open", "torchview", "torchviz", "torchlens")
_MOST = 300
"""Seconds that a process may take."""

_MODEL = """
import os, resource, sys, tempfile, warnings
warnings.filterwarnings("ignore")
import torch
torch.set_num_threads(1)
name, tool, what = sys.argv[1:]
text = name in ("BERT-base", "decoder 7B")
if name == "BERT-base":
    from transformers import BertConfig, BertModel
    model, given = BertModel(BertConfig()).eval(), torch.zeros(1, 64, dtype=torch.long)
elif name == "decoder 7B":
    from transformers import LlamaConfig, LlamaForCausalLM
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(max_position_embeddings=4096)).eval()
    given = torch.zeros(1, 64, dtype=torch.long, device="meta")
else:
    from torchvision import models
    model, given = models.get_model(name, weights=None).eval(), torch.zeros(1, 3, 224, 224)
folder = tempfile.mkdtemp()
path = os.path.join(folder, "model.svg")
"""

_OURS = "import torchgraft as tg, quickjs, torchgraft.graph.svg, torchgraft.loading, torchgraft.store.files"
_TOOLS: Mapping[str, tuple[str, str]] = {
    "torchgraft": (
        _OURS,
        "tg.load(model, input=given).draw(path)",
    ),
    "torchgraft, all open": (
        _OURS,
        "tg.load(model, input=given).draw(path, depth=99, fold=False)",
    ),
    "torchview": (
        "from torchview import draw_graph",
        "draw_graph(model, input_data=given, device=given.device.type, expand_nested=True, filename='model', "
        "directory=folder).visual_graph.render(format='svg', outfile=path)",
    ),
    "torchviz": (
        "from torchviz import make_dot\nfrom torchgraft.trace.tree import tensors",
        "make_dot(tuple(tensors(model(given))), params=dict(model.named_parameters()))"
        ".render(format='svg', outfile=path, directory=folder)",
    ),
    "torchlens": (
        "import torchlens as tl",
        "tl.trace(model, given).draw(vis_outpath=path[:-4], vis_fileformat='svg', vis_save_only=True)",
    ),
}

_MEASURE = """
import statistics, threading
def draw():
    {task}
    assert os.path.getsize(path) > 1000
    os.remove(path)
def spent():
    return sum(one.ru_utime + one.ru_stime for one in map(resource.getrusage, (0, resource.RUSAGE_CHILDREN)))
def timed():
    before = spent()
    draw()
    return spent() - before
def held(id):
    try:
        return int(open(f"/proc/{{id}}/statm").read().split()[1]) / 256
    except (FileNotFoundError, ProcessLookupError):
        return 0
def children():
    found = []
    for thread in os.listdir("/proc/self/task"):
        try:
            found += open(f"/proc/self/task/{{thread}}/children").read().split()
        except FileNotFoundError:
            pass
    return found
def watch():
    while not done.is_set():
        peak.append(held("self") + sum(map(held, children())))
        done.wait(0.004)
if what == "memory":
    import gc
    gc.collect()
    done, peak = threading.Event(), [held("self")]
    watcher = threading.Thread(target=watch)
    watcher.start()
    draw()
    done.set()
    watcher.join()
    print("MEASURED", max(peak) - peak[0])
else:
    first = timed()
    print("MEASURED", first, statistics.median(timed() for _ in range(3)))
"""


def run() -> str:
    """Draw every model with every tool, each in processes of its own."""
    rows = [[name, *(_cell(name, tool) for tool in TOOLS)] for name in MODELS]
    return table(["model", *TOOLS], rows)


def _cell(name: str, tool: str) -> str:
    try:
        first, later = _measured(name, tool, "time")
        (more,) = _measured(name, tool, "memory")
    except RuntimeError as error:
        return f"– ({error})"
    return f"{first:.2f} → {later:.3f} / {more:.0f}"


def _measured(name: str, tool: str, what: str) -> list[float]:
    """Measure in a fresh process.

    Raises:
        RuntimeError: the tool failed; says why.
    """
    start, task = _TOOLS[tool]
    script = "\n".join([_MODEL, start, _MEASURE.format(task=task)])
    command = [sys.executable, "-c", script, name, tool, what]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_MOST)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"over {_MOST} s") from None
    line = next((one for one in done.stdout.splitlines() if one.startswith("MEASURED")), None)
    if line is None:
        raise RuntimeError(_reason(done.stderr))
    return [float(word) for word in line.split()[1:]]


def _reason(error: str) -> str:
    """Give the last line of a traceback, short."""
    lines = [line for line in error.splitlines() if line.strip() and not line.startswith((" ", "\t"))]
    said = [line for line in lines if "Error" in line or "Exception" in line]
    return (said or lines or ["it ended without a word"])[-1][:90].replace("|", "/")
