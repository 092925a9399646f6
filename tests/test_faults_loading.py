"""Faults of loading, each beside its healthy twin: the one is told by its cause, the other gives no warning.

docs/faults.md lists them.
"""

from __future__ import annotations

import argparse
import copy
import io

import pytest
import torch
import transformers
from torch import nn
from torch.nn.utils import parametrizations, prune
from torch.optim.swa_utils import AveragedModel

import torchgraft as tg
from torchgraft.errors import SourceError

IMAGE = (3, 16, 16)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.body, self.fc = nn.Conv2d(8, 16, 3), nn.Linear(16, 5)

    def forward(self, x):
        return self.fc(self.body(self.norm(self.stem(x)).relu()).mean((2, 3)))


class Whole(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone, self.head = Net(), nn.Linear(5, 3)

    def forward(self, x):
        return self.head(self.backbone(x))


def trained(build=Net):
    """A model whose every tensor has values that no fresh one has."""
    torch.manual_seed(5)
    model = build()
    with torch.no_grad():
        for one in model.state_dict().values():
            if one.is_floating_point():
                one += 0.1 + 0.1 * torch.rand_like(one)
            else:
                one += 100
    return model


STATE = trained().state_dict()
WHOLE = trained(Whole).state_dict()


def filled(build=Net, state=None):
    model = build()
    model.load_state_dict(STATE if state is None else state)
    return model


def prefixed(prefix, state=STATE):
    return {f"{prefix}{name}": one for name, one in state.items()}


def inside(word):
    """The names of a whole whose backbone was wrapped by itself."""
    return {name.replace("backbone.", f"backbone.{word}."): one for name, one in WHOLE.items()}


def after(change, build=Net, state=None):
    model = filled(build, state)
    change(model)
    return model


def lost(load):
    """A model into which weights were meant to go, and did not."""
    model = Net()
    load(model)
    return model


def loop(model):
    for name, parameter in model.named_parameters():
        parameter = nn.Parameter(STATE[name])  # noqa: F841  # the fault itself


def lightning():
    return {"epoch": 3, "state_dict": prefixed("model."), "hyper_parameters": {}, "optimizer_states": []}


def split(change):
    """The state of a model one of whose weights is kept in parts."""
    model = filled()
    change(model)
    return model.state_dict()


def best_kept(model):
    return model, model.state_dict()


def best_copied(model):
    return model, copy.deepcopy(model.state_dict())


FAULTS = {
    "DataParallel around the model, and not in the file": ("W003", lambda: (nn.DataParallel(Net()), STATE)),
    "a prefix of one's own": ("W003", lambda: (Net(), prefixed("net."))),
    "two wrappers at once": ("W003", lambda: (Net(), prefixed("_orig_mod.module."))),
    "a backbone out of a whole": ("W003", lambda: (Net(), WHOLE)),
    "a whole out of a backbone": ("W005", lambda: (Whole(), STATE)),
    "a wrapper inside of the names": ("W003", lambda: (Whole(), inside("module"))),
    "torch.compile of a part": ("W003", lambda: (Whole(), inside("_orig_mod"))),
    "an activation checkpoint's wrapper": ("W003", lambda: (Whole(), inside("_checkpoint_wrapped_module"))),
    "FSDP's wrapper": ("W003", lambda: (Net(), prefixed("_fsdp_wrapped_module."))),
    "FSDP's flat parameters": ("W009", lambda: (Net(), {"_fsdp_wrapped_module._flat_param": torch.randn(99)})),
    "one process's part": (
        "W009", lambda: (Net(), {name: one.chunk(2)[0] if one.dim() else one for name, one in STATE.items()}),
    ),
    "a prefix under strict=False": (
        "W010", lambda: (lost(lambda m: m.load_state_dict(prefixed("model."), strict=False)), STATE),
    ),
    "a part loaded with the whole's names": (
        "W010", lambda: (after(lambda m: m.backbone.load_state_dict(WHOLE, strict=False), Whole, Whole().state_dict()),
                         WHOLE),
    ),
    "a renamed head": ("W004", lambda: (Net(), {name.replace("fc", "classifier"): one for name, one in STATE.items()})),
    "gamma and beta": (
        "W004", lambda: (Net(), {name.replace("norm.weight", "norm.gamma").replace("norm.bias", "norm.beta"): one
                                 for name, one in STATE.items()}),
    ),
    "a checkpoint in a checkpoint": ("W002", lambda: (Net(), {"checkpoint": {"model": STATE, "step": 3}, "cfg": {}})),
    "a checkpoint of Lightning": ("W002", lambda: (Net(), lightning())),
    "an average of the weights": ("W003", lambda: (Net(), AveragedModel(trained()).state_dict())),
    "the trained part alone": (
        "W005", lambda: (Net(), {name: one for name, one in STATE.items() if name.startswith("fc")}),
    ),
    "parameters without buffers": ("W006", lambda: (Net(), dict(trained().named_parameters()))),
    "the state of an optimizer": (
        "W001", lambda: (Net(), torch.optim.Adam(trained().parameters()).state_dict()),
    ),
    "what load_state_dict gave back": ("W001", lambda: (Net(), Net().load_state_dict(STATE))),
    "an average's list without names": ("W001", lambda: (Net(), {"decay": 0.9, "shadow_params": list(Net().parameters())})),
    "a matrix that lies the other way": ("W008", lambda: (Net(), {**STATE, "fc.weight": STATE["fc.weight"].T})),
    "a half": ("W013", lambda: (filled(), {name: one.half() for name, one in STATE.items()})),
    "codes": ("W013", lambda: (Net(), {name: (one * 50).to(torch.int8) for name, one in STATE.items()})),
    "NaN": ("W011", lambda: (Net(), {**STATE, "body.weight": STATE["body.weight"] * float("nan")})),
    "variances below zero": ("W011", lambda: (Net(), {**STATE, "norm.running_var": -STATE["norm.running_var"]})),
    "loaded into a copy": ("W010", lambda: (lost(lambda m: copy.deepcopy(m).load_state_dict(STATE)), STATE)),
    "a dict that was updated": ("W010", lambda: (lost(lambda m: m.state_dict().update(STATE)), STATE)),
    "a loop over names": ("W010", lambda: (lost(loop), STATE)),
    "initialised afterwards": ("W010", lambda: (after(lambda m: m.body.reset_parameters()), STATE)),
    "a norm that was made anew": ("W010", lambda: (after(lambda m: m.norm.reset_parameters()), STATE)),
    "statistics that were left out": (
        "W010", lambda: (lost(lambda m: m.load_state_dict(dict(trained().named_parameters()), strict=False)), STATE),
    ),
    "a bias that was set to zero": ("W010", lambda: (after(lambda m: nn.init.zeros_(m.fc.bias)), STATE)),
    "a value that halves can't hold": (
        "W011", lambda: (Net().half(), {**STATE, "fc.weight": STATE["fc.weight"] * 1e6}),
    ),
    "weight norm": ("W005", lambda: (Net(), split(lambda m: parametrizations.weight_norm(m.fc)))),
    "a pruned layer": ("W005", lambda: (Net(), split(lambda m: prune.l1_unstructured(m.fc, "weight", 0.3)))),
    "a spectral norm": ("W005", lambda: (Net(), split(lambda m: nn.utils.spectral_norm(m.fc)))),
    "a teacher beside its student": (
        "W007", lambda: (Net(), {**prefixed("student."), **prefixed("teacher.", trained().state_dict())}),
    ),
    "kernels of another framework": (
        "W008", lambda: (Net(), {**STATE, "stem.weight": STATE["stem.weight"].permute(2, 3, 1, 0)}),
    ),
    "a state dict for each part": (
        "W002", lambda: (Net(), {part: getattr(trained(), part).state_dict() for part in ("stem", "norm", "body", "fc")}),
    ),
    "weights that lie on meta": ("W001", lambda: (Net(), {name: one.to("meta") for name, one in STATE.items()})),
    "the best state, kept by reference": ("W020", lambda: best_kept(trained())),
}  # fmt: skip


def codes(model, weights):
    return {finding.code for finding in tg.check(model, IMAGE, weights=weights)}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_loading_is_told(name):
    code, make = FAULTS[name]
    assert code in codes(*make())


HEALTHY = {
    "loaded": lambda: (filled(), STATE),
    "loaded into DataParallel": lambda: (nn.DataParallel(filled()), prefixed("module.")),
    "the whole, loaded": lambda: (filled(Whole, WHOLE), WHOLE),
    "trained on since": lambda: (after(lambda m: m.body.weight.data.mul_(1.1).add_(0.001)), STATE),
    "statistics that moved since": lambda: (after(lambda m: m.norm.running_mean.add_(0.1)), STATE),
    "from before there were counters": lambda: (
        filled(), {name: one for name, one in STATE.items() if "num_batches" not in name},
    ),
    "counters that an old torch kept as vectors": lambda: (
        filled(), {name: one.reshape(1) if one.dim() == 0 else one for name, one in STATE.items()},
    ),
    "arrays": lambda: (filled(), {name: one.numpy() for name, one in STATE.items()}),
    "random, and given as they are": lambda: (lambda m: (m, copy.deepcopy(m.state_dict())))(Net()),
    "with a channel that never fires": lambda: (lambda state: (filled(state=state), state))(
        {**STATE, "norm.running_var": STATE["norm.running_var"] * torch.tensor([0.0] + [1.0] * 7)}
    ),
    "the best state, copied": lambda: best_copied(trained()),
}  # fmt: skip


@pytest.mark.parametrize("name", HEALTHY)
def test_what_was_loaded_well_gives_no_finding(name):
    assert codes(*HEALTHY[name]()) == set()


LOADED = [
    name
    for name, (code, _) in FAULTS.items()
    if code in ("W002", "W003", "W004", "W010") and not name.startswith(("a backbone out", "a part loaded"))
]


@pytest.mark.parametrize("name", LOADED)
def test_loading_it_as_torchgraft_does_brings_every_tensor(name):
    model, weights = FAULTS[name][1]()
    tg.load(model, input=IMAGE).load_weights(weights)
    wanted = WHOLE["backbone.stem.weight"] if isinstance(model, Whole) else STATE["stem.weight"]
    assert torch.equal(next(iter(model.parameters())), wanted)


FILES = {
    "beside a namespace": lambda path: torch.save({"args": argparse.Namespace(lr=0.1), "model": STATE}, path),
    "of an old torch": lambda path: torch.save(STATE, path, _use_new_zipfile_serialization=False),
}


@pytest.mark.parametrize("name", FILES)
def test_files_of_every_make_are_read(name, tmp_path):
    FILES[name](tmp_path / "weights.pt")
    model = Net()
    tg.load(model, input=IMAGE).load_weights(tmp_path / "weights.pt")
    assert torch.equal(model.fc.weight, STATE["fc.weight"])


def test_a_file_that_holds_a_model_and_one_that_is_a_web_page_are_refused(tmp_path):
    torch.save(Net(), tmp_path / "model.pt")
    (tmp_path / "page.pt").write_text("<!DOCTYPE html><html>404</html>")
    for name in ("model.pt", "page.pt", "missing.pt"):
        with pytest.raises(SourceError) as refused:
            tg.load(Net(), input=IMAGE).load_weights(tmp_path / name)
        assert refused.value.hint
        assert "W001" in codes(Net(), tmp_path / name)


def test_what_is_no_model_at_all_is_said():
    with pytest.raises(SourceError, match="is no model"):
        tg.check(Net().load_state_dict(STATE), IMAGE)


def test_bytes_that_were_not_read_yet_are_said():
    held = io.BytesIO()
    torch.save(STATE, held)
    assert "W001" in codes(Net(), held)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.out = nn.Embedding(10, 4), nn.Linear(4, 10, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, x):
        return self.out(self.embed(x))


WORDS = torch.zeros(2, 3, dtype=torch.long)


def test_a_tie_that_loading_by_assignment_parted_is_told():
    model, state = Tied(), Tied().state_dict()
    model.load_state_dict({name: one.clone() for name, one in state.items()}, assign=True)
    assert "W014" in {finding.code for finding in tg.check(model, WORDS, weights=state)}
    whole = Tied()
    whole.load_state_dict(state)
    assert "W014" not in {finding.code for finding in tg.check(whole, WORDS, weights=state)}


def test_a_tie_that_the_configuration_speaks_of_is_told_without_any_weights():
    config = transformers.GPT2Config(n_layer=1, n_head=2, n_embd=8, vocab_size=11, bos_token_id=1, eos_token_id=2)
    model = transformers.GPT2LMHeadModel(config)
    assert "P033" not in {finding.code for finding in tg.check(model, {"input_ids": WORDS})}
    model.load_state_dict({name: one.clone() for name, one in model.state_dict().items()}, assign=True)
    found = {finding.code: finding for finding in tg.check(model, {"input_ids": WORDS})}
    assert "transformer.wte.weight and lm_head.weight are two parameters" in found["P033"].facts[0]
    model.tie_weights()
    assert "P033" not in {finding.code for finding in tg.check(model, {"input_ids": WORDS})}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("weight norm", "saved with weight norm"),
        ("a pruned layer", "it was pruned"),
        ("a spectral norm", "saved with spectral norm"),
        ("a teacher beside its student", "those with 'teacher.' are a whole model as well"),
    ],
)
def test_what_is_peculiar_about_weights_is_told_by_its_name(name, words):
    code, make = FAULTS[name]
    found = {finding.code: finding for finding in tg.check(make()[0], IMAGE, weights=make()[1])}
    assert any(words in fact for fact in found[code].facts)


def test_a_checkpoint_that_holds_the_model_beside_other_parts_is_not_mixed():
    held = {"generator": STATE, "discriminator": trained(Whole).state_dict(), "epoch": 3}
    model = Net()
    done = tg.load(model, input=IMAGE).load_weights(held)
    assert torch.equal(model.fc.weight, STATE["fc.weight"])
    assert 'the weights lie in ["generator"] of a checkpoint' in str(done)


def test_sparse_weights_are_loaded_and_nothing_is_loaded_in_half():
    model = Net()
    tg.load(model, input=IMAGE).load_weights({**STATE, "fc.weight": STATE["fc.weight"].to_sparse()})
    assert torch.equal(model.fc.weight, STATE["fc.weight"])
    before = Net()
    kept = copy.deepcopy(before.state_dict())
    with pytest.raises(SourceError, match="lie on meta"):
        tg.load(before, input=IMAGE).load_weights({name: one.to("meta") for name, one in STATE.items()})
    assert all(torch.equal(one, kept[name]) for name, one in before.state_dict().items())
