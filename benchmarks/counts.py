"""Parameters, MACs and shapes by torchgraft beside torch's own counters and hooks, on whole zoos; and by peers."""

from __future__ import annotations

import contextlib
import copy
import io
import itertools
import os
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision import models

import torchgraft as tg
from benchmarks.measure import table
from benchmarks.zoo import Classifier, _on_meta, named, timm_models, torchvision
from torchgraft.trace.tree import mapped, tensors

TITLE = (
    "Parameters, MACs and shapes: agreement with torch's FlopCounterMode (flops / 2), named_parameters and hooks"
)
TIMM = 120
SAMPLE = (
    "alexnet", "resnet18", "googlenet", "densenet121", "mobilenet_v3_small", "shufflenet_v2_x0_5",
    "efficientnet_b0", "regnet_y_400mf", "convnext_tiny", "swin_t", "swin_v2_t", "vit_b_32",
)  # fmt: skip
SAMPLE_TIMM = (
    "levit_128s",
    "mobilevit_xxs",
    "coat_tiny",
    "mixer_s32_224",
    "deit_tiny_patch16_224",
    "xcit_nano_12_p16_224",
)


@dataclass(frozen=True)
class Case:
    """A model, how it is built, and what it takes with a batch of so many."""

    name: str
    build: Callable[[], nn.Module]
    takes: Callable[[int], Any]
    real: bool = False


@dataclass(frozen=True)
class Verdict:
    """Where torchgraft and torch disagree; empty where they don't."""

    name: str
    modules: int = 0
    parameters: str = ""
    macs: str = ""
    by_module: str = ""
    shapes: str = ""
    failed: str = ""


# the zoos


def zoos() -> dict[str, list[Case]]:
    """Give every zoo."""
    return {
        "torchvision, classifiers": [_case(one) for one in torchvision()],
        "torchvision, segmentation": list(_segmentation()),
        "torchvision, video": list(_video()),
        "torchvision, detection (real tensors)": list(_detection()),
        "timm": [_case(one) for one in _timm()],
        "transformers": list(_transformers()),
        "built for this": list(_own()),
    }


def _case(one: Classifier) -> Case:
    return Case(one.name, one.build, lambda batch, one=one: torch.empty(batch, *one.shape, device="meta"))  # type: ignore[misc]


def _timm() -> list[Classifier]:
    """Give the first of each family, and more from all over the list, until there are enough."""
    first = list(timm_models())
    known = {one.name for one in first}
    rest = [name for name in timm.list_models() if name not in known and _classifies(name)]
    more = rest[:: max(len(rest) // max(TIMM - len(first), 1), 1)]
    return [*first, *map(named, more)][:TIMM]


def _classifies(name: str) -> bool:
    settings = timm.get_pretrained_cfg(name)
    return bool(settings and settings.num_classes and settings.classifier)


def _segmentation() -> Iterator[Case]:
    for name in models.list_models(module=models.segmentation):
        yield Case(
            name,
            lambda name=name: _on_meta(lambda: models.get_model(name, weights=None, weights_backbone=None)),  # type: ignore[misc]
            lambda batch: torch.empty(batch, 3, 224, 224, device="meta"),
        )


def _video() -> Iterator[Case]:
    for name in models.list_models(module=models.video):
        yield Case(
            name,
            lambda name=name: _on_meta(lambda: models.get_model(name, weights=None)),  # type: ignore[misc]
            lambda batch: torch.empty(batch, 3, 16, 224, 224, device="meta"),
        )


def _detection() -> Iterator[Case]:
    """Their flow depends on values: small images, and both sides see the same."""

    def images(batch: int) -> Any:
        drawn = torch.Generator().manual_seed(0)
        return ([torch.rand(3, 160, 160, generator=drawn) for _ in range(batch)],)

    for name in models.list_models(module=models.detection):
        size = {} if name.startswith("ssd") else {"min_size": 160, "max_size": 160}
        yield Case(
            name,
            lambda name=name, size=size: models.get_model(name, weights=None, weights_backbone=None, **size),  # type: ignore[misc]
            images,
            real=True,
        )


def _transformers() -> Iterator[Case]:
    import transformers as hf

    def tokens(batch: int) -> Any:
        return {
            "input_ids": torch.zeros(batch, 12, dtype=torch.long),
            "attention_mask": torch.ones(batch, 12).long(),
        }

    wide = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 128}
    gpt = {"n_embd": 64, "n_layer": 3, "n_head": 4, "vocab_size": 300, "n_positions": 64}
    bert, llama = {"vocab_size": 300, **wide}, {"vocab_size": 300, **wide, "num_key_value_heads": 2}
    eager = {**bert, "attn_implementation": "eager"}
    yield Case("BERT", lambda: hf.BertForSequenceClassification(hf.BertConfig(**bert)), tokens)
    yield Case("BERT, eager attention", lambda: hf.BertModel(hf.BertConfig(**eager)), tokens)
    yield Case("GPT-2", lambda: hf.GPT2LMHeadModel(hf.GPT2Config(**gpt)), tokens)
    yield Case("Llama", lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**bert)), tokens)
    yield Case("Llama, grouped queries", lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**llama)), tokens)


class _Tagger(nn.Module):
    """Words, a recurrent layer both ways, a linear layer at every place."""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.words = nn.Embedding(50, 16)
        self.rnn = kind(16, 24, num_layers=2, bidirectional=True, batch_first=True)
        self.out = nn.Linear(48, 7)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.rnn(self.words(x))[0])  # type: ignore[no-any-return]


class _Shared(nn.Module):
    """A layer that is called three times, a tied weight, a bare parameter, a dict that comes out."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.layer, self.out = nn.Embedding(50, 16), nn.Linear(16, 16), nn.Linear(16, 50, bias=False)
        self.out.weight = self.words.weight
        self.mix = nn.Parameter(torch.randn(16, 16))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        y = self.words(x)
        for _ in range(3):
            y = self.layer(y).relu() @ self.mix
        return {"logits": self.out(y), "features": y}


def _own() -> Iterator[Case]:
    def words(batch: int) -> Tensor:
        return torch.zeros(batch, 9, dtype=torch.long)

    def image(batch: int) -> Tensor:
        return torch.empty(batch, 3, 32, 32, device="meta")

    def row(batch: int) -> Tensor:
        return torch.empty(batch, 9, 16, device="meta")

    layer = {"d_model": 16, "nhead": 2, "dim_feedforward": 32, "batch_first": True}
    yield from (Case(kind.__name__, lambda kind=kind: _Tagger(kind), words) for kind in (nn.LSTM, nn.GRU, nn.RNN))  # type: ignore[misc]
    yield Case("reused, tied, bare, dict", _Shared, words)
    yield Case("nn.TransformerEncoder", lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(**layer), 2), row)
    convolutions = nn.Conv2d(3, 8, 3, padding="same"), nn.ConvTranspose2d(8, 4, 2, 2, groups=2)
    yield Case("transposed convolutions", lambda: nn.Sequential(*convolutions), image)


# torchgraft beside torch


def judged(case: Case) -> Verdict:
    """Compare what torchgraft says of a model with what torch counts."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model = case.build().eval().requires_grad_(False)
            graft = tg.load(model, input=case.takes(2), real=case.real)
            return _compared(case, model, graft)
        except Exception as error:
            return Verdict(case.name, failed=f"{type(error).__name__}: {str(error).splitlines()[0][:80]}")


def _compared(case: Case, model: nn.Module, graft: tg.Graft) -> Verdict:
    trace = graft.trace()
    if trace.mismatch is not None:
        return Verdict(case.name, failed=trace.mismatch.message[:80])
    rows = [row for row in graft.show().rows if row.sort == "module"]
    whole = graft.show().whole
    batch = 2 if case.real else 1  # values decide there: the same images on both sides
    counts = _on_meta_counted(case, model) or _counted(model, _placed(case.takes(batch), model))
    scale = (lambda macs: macs * 2) if case.real else (lambda macs: macs)
    theirs, ours = counts.get("", 0), scale(whole.macs)
    if case.real:
        ours = sum(op.macs for op in trace.ops)
    parameters = sum(one.numel() for _, one in model.named_parameters())
    seen = _hooked(model, _placed(case.takes(2), model))
    own = {} if case.real else {row.path: row.macs for row in rows if row.state != "again" and row.calls}
    wrong = [path for path, macs in own.items() if macs != counts.get(path, 0)]
    bent = [row.path for row in rows if row.calls and row.path in seen and list(row.gave) != seen[row.path]]
    return Verdict(
        case.name,
        len(rows),
        "" if whole.parameters == parameters else f"{whole.parameters:,} for {parameters:,}",
        "" if ours == theirs else f"{ours:,} for {theirs:,}",
        _listed(wrong),
        _listed(bent),
    )


def _listed(paths: list[str]) -> str:
    return f"{len(paths)}, such as {paths[0]}" if paths else ""


def _placed(given: Any, model: nn.Module) -> Any:
    """Give an example on the device that the model is on."""
    device = next(itertools.chain(model.parameters(), model.buffers())).device
    return mapped(lambda one: torch.zeros_like(one, device=device) if one.device != device else one, given)


def _run(model: nn.Module, given: Any) -> Any:
    with torch.no_grad():
        if isinstance(given, dict):
            return model(**given)
        return model(*given) if isinstance(given, tuple) else model(given)


def _counted(model: nn.Module, given: Any) -> dict[str, int]:
    """Give the MACs of every module by torch's own counter."""
    with FlopCounterMode(display=False) as counter:
        _run(model, given)
    found = {name.partition(".")[2]: sum(kinds.values()) // 2 for name, kinds in counter.flop_counts.items()}
    return {**found, "": counter.get_total_flops() // 2}


def _on_meta_counted(case: Case, model: nn.Module) -> dict[str, int]:
    """Count on meta, where one can: on the CPU, torch's counter leaves out what fused kernels do."""
    if case.real:
        return {}
    twin = copy.deepcopy(model).to("meta")
    try:
        return _counted(twin, _placed(case.takes(1), twin))
    except RuntimeError:  # it looks at values
        return {}


def _hooked(model: nn.Module, given: Any) -> dict[str, list[tuple[int, ...]]]:
    """Give the shapes that every module gave at its first call."""
    seen: dict[str, list[tuple[int, ...]]] = {}
    paths = {id(module): path for path, module in model.named_modules()}

    def note(module: nn.Module, _: Any, gave: Any) -> None:
        seen.setdefault(paths[id(module)], [tuple(one.shape) for one in tensors(gave)])

    handles = [module.register_forward_hook(note) for module in model.modules()]
    try:
        _run(model, given)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def agreement(cases: dict[str, list[Case]]) -> tuple[str, list[Verdict]]:
    """Write how far torchgraft and torch agree, and give what they disagree on."""
    rows, odd = [], []
    for zoo, members in cases.items():
        found = []
        for case in members:
            found.append(judged(case))
            print(zoo, found[-1], file=sys.stderr) if os.environ.get("TORCHGRAFT_BENCH_TALK") else None
        ran = [one for one in found if not one.failed]
        equal = [
            f"{sum(not getattr(one, part) for one in ran)}"
            for part in ("parameters", "macs", "by_module", "shapes")
        ]
        rows.append((zoo, len(found), len(ran), *equal, f"{sum(one.modules for one in ran):,}"))
        odd += [one for one in found if one.failed or one.parameters or one.macs or one.by_module or one.shapes]
    head = [
        "zoo",
        "models",
        "ran",
        "parameters equal",
        "MACs equal",
        "MACs of every module",
        "shapes of every module",
        "modules",
    ]
    return table(head, rows), odd


# peers


def _torchinfo(model: nn.Module, given: Any) -> tuple[int, int]:
    import torchinfo

    kind = {"input_data": given}
    found = torchinfo.summary(model, verbose=0, device="cpu", **kind)
    return found.total_params, found.total_mult_adds


def _torchsummary(model: nn.Module, given: Any) -> tuple[int, None]:
    import torchsummary

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        torchsummary.summary(model, tuple(given.shape[1:]), device="cpu")
    line = next(line for line in printed.getvalue().splitlines() if line.startswith("Total params"))
    return int(line.partition(":")[2].replace(",", "")), None


def _fvcore(model: nn.Module, given: Any) -> tuple[int, int]:
    from fvcore.nn import FlopCountAnalysis, parameter_count

    arguments = tuple(given.values()) if isinstance(given, dict) else (given,)
    found = FlopCountAnalysis(model, arguments).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    return parameter_count(model)[""], int(found.total())


def _calflops(model: nn.Module, given: Any) -> tuple[int, int]:
    from calflops import calculate_flops

    said = {"kwargs": given} if isinstance(given, dict) else {"args": [given]}
    with contextlib.redirect_stdout(io.StringIO()):
        _, macs, parameters = calculate_flops(model, print_results=False, output_as_string=False, **said)
    return int(parameters), int(macs)


def _torchgraft(model: nn.Module, given: Any) -> tuple[int, int]:
    whole = tg.load(model, input=mapped(lambda one: torch.cat([one, one]), given)).show().whole
    return whole.parameters, whole.macs


PEERS: dict[str, Callable[[nn.Module, Any], tuple[int, int | None]]] = {
    "torchgraft": _torchgraft,
    "torchinfo": _torchinfo,
    "torchsummary": _torchsummary,
    "fvcore": _fvcore,
    "calflops": _calflops,
}


def _peer_cases() -> list[Case]:
    chosen = [one for one in torchvision() if one.name in SAMPLE]
    others = [named(name) for name in SAMPLE_TIMM]
    return [*map(_real, (*chosen, *others)), *_transformers(), *_own()]


def _real(one: Classifier) -> Case:
    """Give a classifier on the CPU, since not every peer can do without numbers."""

    def build() -> nn.Module:
        return one.build().to_empty(device="cpu").apply(_filled)

    return Case(one.name, build, lambda batch: torch.zeros(batch, *one.shape))


def _filled(module: nn.Module) -> None:
    for one in (*module._parameters.values(), *module._buffers.values()):
        if one is not None:
            one.data.fill_(0.5) if one.is_floating_point() else one.data.zero_()


def peers() -> str:
    """Count where each peer agrees with torch, where it fails, and what it leaves changed."""
    tally: dict[str, Counter[str]] = {name: Counter() for name in PEERS}
    cases = _peer_cases()
    for case in cases:
        for name, ask in PEERS.items():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tally[name].update(_tallied(case, ask))
    head = [
        "of",
        "ran",
        "parameters right",
        "MACs right",
        "within 1 %",
        "off by more",
        "counts none",
        "left the model changed",
    ]
    rows = [
        (name, *(found[key] for key in ("ran", "parameters", "exact", "near", "far", "none")), _changes(found))
        for name, found in tally.items()
    ]
    return table([f"{len(cases)} models, on the CPU", *head[1:]], rows)


def _changes(found: Counter[str]) -> str:
    words = [
        f"{what} of {found[what]}"
        for what in ("buffers", "training flag", "hooks", "device", "RNG")
        if found[what]
    ]
    return ", ".join(words) or "no"


def _tallied(case: Case, ask: Callable[[nn.Module, Any], tuple[int, int | None]]) -> Iterator[str]:
    model = case.build().eval()
    given = _placed(case.takes(1), model)
    parameters = sum(one.numel() for one in model.parameters())
    still = copy.deepcopy(model).requires_grad_(False)
    theirs = (_on_meta_counted(case, still) or _counted(still, given)).get("", 0)
    before, rng = _state(model), torch.get_rng_state()
    try:
        found, macs = ask(model, given)
    except (Exception, SystemExit):
        return
    finally:
        yield from (what for what, one in _state(model).items() if one != before[what])
        if not torch.equal(rng, torch.get_rng_state()):
            yield "RNG"
    yield "ran"
    if found == parameters:
        yield "parameters"
    if macs is None:
        yield "none"
    else:
        yield "exact" if macs == theirs else "near" if abs(macs - theirs) <= 0.01 * theirs else "far"


def _state(model: nn.Module) -> dict[str, Any]:
    small = [(name, one) for name, one in model.named_buffers() if one.numel() < 5000 and one.device.type == "cpu"]
    return {
        "buffers": [(name, one.dtype, str(one.tolist())) for name, one in small],
        "training flag": [one.training for one in model.modules()],
        "hooks": [len(one._forward_hooks) + len(one._forward_pre_hooks) for one in model.modules()],
        "device": {str(one.device) for one in model.parameters()},
    }


def run() -> str:
    """Compare on every zoo, and beside the peers."""
    equal, odd = agreement(zoos())
    told = [
        f"- {one.name}: "
        + "; ".join(
            f"{part.replace('_', ' ')} {said}"
            for part in ("failed", "parameters", "macs", "by_module", "shapes")
            if (said := getattr(one, part))
        )
        for one in odd
    ]
    return "\n\n".join([equal, "\n".join(told) or "No disagreement.", peers()])
