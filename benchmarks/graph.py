"""A model to an SVG file: torchgraft beside torchview, torchviz and torchlens, which need Graphviz."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping

from benchmarks.measure import table

TITLE = (
    "A drawing of the model as SVG: CPU seconds (Graphviz included) / MiB more at the peak than before, "
    "medians of 3 processes each; CNNs and ViTs 1×3×224×224, text 1×64 tokens; the decoder, of 7 billion "
    "parameters, is on meta"
)
MODELS = ("resnet18", "resnet152", "swin_b", "vit_l_16", "BERT-base", "decoder 7B")
TOOLS = ("torchgraft", "torchgraft, all open", "torchview", "torchviz", "torchlens")
_RUNS = 3
_MOST = 400
"""Seconds that a run may take."""

_MODEL = """
import os, resource, sys, tempfile, warnings
warnings.filterwarnings("ignore")
import torch
torch.set_num_threads(1)
name, tool = sys.argv[1:]
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

_TOOLS: Mapping[str, tuple[str, str]] = {
    "torchgraft": (
        "import torchgraft as tg\nimport torchgraft.graph.svg, torchgraft.loading",
        "tg.load(model, input=given).draw(path)",
    ),
    "torchgraft, all open": (
        "import torchgraft as tg\nimport torchgraft.graph.svg, torchgraft.loading",
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
def spent():
    return sum(one.ru_utime + one.ru_stime for one in map(resource.getrusage, (0, resource.RUSAGE_CHILDREN)))
def peak():
    own, children = map(resource.getrusage, (0, resource.RUSAGE_CHILDREN))
    return max(own.ru_maxrss, held() + children.ru_maxrss) if children.ru_maxrss else own.ru_maxrss
def held():
    return int(open("/proc/self/statm").read().split()[1]) * 4
before, cpu = held(), spent()
{task}
assert os.path.getsize(path) > 1000
print("MEASURED", spent() - cpu, (peak() - before) / 1024)
"""


def run() -> str:
    """Draw every model with every tool in fresh processes."""
    rows = [[name, *(_cell(name, tool) for tool in TOOLS)] for name in MODELS]
    return table(["model", *TOOLS], rows)


def _cell(name: str, tool: str) -> str:
    start, task = _TOOLS[tool]
    script = "\n".join([_MODEL, start, _MEASURE.format(task=task)])
    found = []
    for _ in range(_RUNS):
        try:
            done = subprocess.run(
                [sys.executable, "-c", script, name, tool], capture_output=True, text=True, timeout=_MOST
            )
        except subprocess.TimeoutExpired:
            return f"– (over {_MOST} s)"
        line = next((one for one in done.stdout.splitlines() if one.startswith("MEASURED")), None)
        if line is None:
            return f"– ({_reason(done.stderr)})"
        found.append([float(word) for word in line.split()[1:]])
    cpu, more = (sorted(column)[len(found) // 2] for column in zip(*found, strict=True))
    return f"{cpu:.2f} / {more:.0f}"


def _reason(error: str) -> str:
    """Give the last line of a traceback, short."""
    lines = [line for line in error.splitlines() if line.strip() and not line.startswith(" ")]
    return (lines or ["it ended without a word"])[-1][:90].replace("|", "/")
