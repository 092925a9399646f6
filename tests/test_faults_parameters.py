"""Faults of freezing and of optimizers, each beside its healthy twin: the one is told, the other gives no warning.

docs/faults.md lists them.
"""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations, prune
from torch.optim import SGD, Adam, AdamW

import torchgraft as tg
from torchgraft.errors import RecipeError, SelectionError

IMAGE = (3, 16, 16)
DATA = (torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 4)


class Net(nn.Module):
    def __init__(self, drop=0.0):
        super().__init__()
        body = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU()]
        self.features, self.drop, self.fc = nn.Sequential(*body), nn.Dropout(drop), nn.Linear(8, 4)

    def forward(self, x):
        return self.fc(self.drop(self.features(x).mean((2, 3))))


def net(change=None, **settings):
    torch.manual_seed(0)
    model = Net(**settings)
    if change is not None:
        change(model)
    return model


def sgd(model, **settings):
    trained = [one for one in model.parameters() if one.requires_grad]
    return model, SGD(trained, **{"lr": 0.01, **settings})


def norms(attribute, value):
    def change(model):
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                setattr(module, attribute, value)

    return change


def frozen(model, *, but=("fc",)):
    model.requires_grad_(False)
    for name in but:
        model.get_submodule(name).requires_grad_(True)
    return model


def still(model):
    """The norms of a frozen body as a loop keeps them: put back after every `train()`."""
    frozen(model)
    train = model.train

    def held(mode=True):
        train(mode)
        model.features.eval()
        return model

    model.train = held
    return model.train()


def stepped(model, optimizer):
    optimizer.zero_grad(set_to_none=False)
    functional.cross_entropy(model(DATA[0]), DATA[1]).backward()
    optimizer.step()
    return model, optimizer


def later(change, model=None, make=sgd):
    """An optimizer that was made before the model was changed."""
    model, optimizer = make(model or net())
    made = change(model)
    return (made or model), optimizer


def grown(model):
    model.fc = nn.Linear(8, 7)


def flags(model, attribute, value=False, *, of="features"):
    for parameter in model.get_submodule(of).parameters():
        setattr(parameter, attribute, value)


def groups(make, **rates):
    model = net()
    return model, make([{"params": getattr(model, name).parameters(), "lr": lr} for name, lr in rates.items()])


def decayed(model, spared, **settings):
    named = list(model.named_parameters())
    split = [[one for name, one in named if spared(name, one) is wanted] for wanted in (False, True)]
    return model, AdamW([{"params": split[0]}, {"params": split[1], "weight_decay": 0.0}], **settings)


def consumed(model):
    """A generator that was counted, and so was empty when the optimizer got it."""
    head = (one for name, one in model.named_parameters() if "fc" in name)
    assert len(list(head)) == 2
    return model, SGD([{"params": model.features.parameters()}, {"params": head, "lr": 0.1}], lr=0.01)


def momentum_of_a_frozen_part(make):
    model = net()
    model, optimizer = stepped(model, make(model.parameters()))
    model.features.requires_grad_(False)
    return model, optimizer


def resumed(order):
    """An optimizer whose state was saved with the two layers in another order."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(768, 8), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
    named = [[(f"{n}.{name}", one) for name, one in model[n].named_parameters()] for n in order]
    saved = Adam([pair for layer in named for pair in layer])
    model(DATA[0]).sum().backward()
    saved.step()
    optimizer = Adam([(f"{n}.{name}", one) for n in (2, 4) for name, one in model[n].named_parameters()])
    optimizer.load_state_dict(saved.state_dict())
    model[1].requires_grad_(False)
    model.zero_grad()
    return model, optimizer


def elsewhere(model, optimizer):
    for state in optimizer.state.values():
        state["momentum_buffer"] = state["momentum_buffer"].to("meta")
    return model, optimizer


def shrunk(model, optimizer):
    optimizer.state[model.fc.weight]["momentum_buffer"] = torch.zeros(3, 8)
    return model, optimizer


def scheduled(*, late):
    model = net()
    optimizer = SGD(model.features.parameters(), lr=0.1)
    if late:
        torch.optim.lr_scheduler.StepLR(optimizer, 3)
    optimizer.add_param_group({"params": model.fc.parameters(), "lr": 0.2})
    if not late:
        torch.optim.lr_scheduler.StepLR(optimizer, 3)
    return model, optimizer


class Tied(nn.Module):
    def __init__(self, by_data):
        super().__init__()
        self.flat, self.a, self.b = nn.Linear(16, 4), nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
        if by_data:
            self.b.weight.data = self.a.weight.data
        else:
            self.b.weight.data = self.a.weight.data.clone()

    def forward(self, x):
        return self.b(self.a(self.flat(x[:, 0, 0])).relu())


class Scaled(Net):
    def __init__(self, scale):
        super().__init__()
        if isinstance(scale, nn.Parameter):
            self.scale = scale
        else:
            self.register_buffer("scale", scale)

    def forward(self, x):
        return super().forward(x) * self.scale


class Kept(Net):
    def __init__(self, keep):
        super().__init__()
        self.keep = keep

    def forward(self, x):
        return super().forward(x) * (self.keep[0] if isinstance(self.keep, list) else self.keep)


FAULTS = {
    "a flag on a module": ("P022", lambda: sgd(net(lambda m: setattr(m.features, "requires_grad", False)))),
    "a method that was overwritten": (
        "P022", lambda: sgd(net(lambda m: setattr(m.features, "requires_grad_", False))),
    ),
    "the method of each parameter": ("P022", lambda: sgd(net(lambda m: flags(m, "requires_grad_")))),
    "a misspelt flag on a module": ("P022", lambda: sgd(net(lambda m: setattr(m.features, "require_grad", False)))),
    "the word of Keras": ("P022", lambda: sgd(net(lambda m: setattr(m.features, "trainable", False)))),
    "the word of Keras on parameters": ("P022", lambda: sgd(net(lambda m: flags(m, "trainable")))),
    "frozen, as an attribute": ("P022", lambda: sgd(net(lambda m: setattr(m.features, "frozen", True)))),
    "eval, not called": ("P022", lambda: sgd(net(lambda m: setattr(m.features, "eval", True)))),
    "train, not called": ("P022", lambda: sgd(net(lambda m: setattr(m.features, "train", False)))),
    "a name that no layer has": (
        "P001", lambda: (net(lambda m: frozen(m, but=())), SGD(net().parameters(), lr=0.01)),
    ),
    "a layer without parameters unfrozen": ("P001", lambda: (frozen(net(), but=["features.5"]), SGD(net().parameters()))),
    "the training flag of the part alone": (
        "P018", lambda: sgd(net(lambda m: (frozen(m), setattr(m.features, "training", False)))),
    ),
    "a head put in after the optimizer": ("P011", lambda: later(grown)),
    "a copy": ("P011", lambda: later(copy.deepcopy)),
    "an average that is optimized instead": ("P011", lambda: (net(), SGD(copy.deepcopy(net()).parameters(), lr=0.1))),
    "the data of the parameters": ("P011", lambda: (lambda m: (m, SGD([p.data for p in m.parameters()])))(net())),
    "weights assigned after the optimizer": (
        "P011", lambda: later(lambda m: m.load_state_dict(net().state_dict(), assign=True) and None),
    ),
    "one parameter made anew": ("P010", lambda: later(lambda m: setattr(m.fc, "weight", nn.Parameter(torch.ones(4, 8))))),
    "weight norm after the optimizer": ("P010", lambda: later(lambda m: parametrizations.weight_norm(m.fc) and None)),
    "memory taken anew": ("P011", lambda: later(lambda m: m.to_empty(device="meta") and None)),
    "the weights alone": (
        "P010", lambda: (lambda m: (m, SGD([p for n, p in m.named_parameters() if "weight" in n])))(net()),
    ),
    "rates for some of the layers": (
        "P010", lambda: (lambda m: (m, SGD([{"params": m.features[0].parameters()}, {"params": m.fc.parameters()}])))(net()),
    ),
    "unfrozen, and the optimizer not told": (
        "P010", lambda: later(lambda m: m.features[3].requires_grad_(True) and None, frozen(net())),
    ),
    "a generator that was used up": ("P015", lambda: consumed(net())),
    "two optimizers over all": ("P012", lambda: (lambda m: (m, [SGD(m.parameters()), Adam(m.fc.parameters())]))(net())),
    "frozen by a rate of zero": ("P016", lambda: groups(SGD, features=0.0, fc=0.1)),
    "a rate for another optimizer": ("P016", lambda: (lambda m: (m, Adam(m.parameters(), lr=0.5)))(net())),
    "a rate under the name of another library": (
        "P035", lambda: (lambda m: (m, SGD([{"params": m.features.parameters()},
                                            {"params": m.fc.parameters(), "learning_rate": 0.1}], lr=1e-3)))(net()),
    ),
    "a misspelt setting of a group": (
        "P035", lambda: (lambda m: (m, SGD([{"params": m.parameters(), "momentun": 0.9}], lr=1e-3)))(net()),
    ),
    "a setting of another optimizer": (
        "P035", lambda: (lambda m: (m, Adam([{"params": m.parameters(), "momentum": 0.9}], lr=1e-3)))(net()),
    ),
    "the two rates exchanged": ("P031", lambda: groups(SGD, features=0.1, fc=1e-4)),
    "a decay that is no share": ("P032", lambda: (lambda m: (m, AdamW(m.parameters(), weight_decay=10.0)))(net())),
    "a momentum of one": ("P032", lambda: sgd(net(), momentum=1.0)),
    "frozen with momentum": ("P013", lambda: momentum_of_a_frozen_part(partial(SGD, lr=0.1, momentum=0.9))),
    "frozen with Adam's averages": ("P013", lambda: momentum_of_a_frozen_part(AdamW)),
    "frozen ones in a group": ("P013", lambda: (lambda m: (m, SGD(m.parameters())))(frozen(net()))),
    "norms called bn, spared by 'norm'": (
        "P017", lambda: decayed(net(), lambda name, _: "bias" in name or "norm" in name, lr=1e-2, weight_decay=0.1),
    ),
    "a state of another order": ("P027", lambda: resumed((4, 2))),
    "a state on another device": ("P014", lambda: elsewhere(*stepped(*sgd(net(), momentum=0.9)))),
    "a state of another size": ("P014", lambda: shrunk(*stepped(*sgd(net(), momentum=0.9)))),
    "a group after the schedule": ("P034", lambda: scheduled(late=True)),
    "an optimizer that was copied": ("P011", lambda: (lambda given: (given[0], copy.deepcopy(given[1])))(sgd(net()))),
    "tied by their data": ("P026", lambda: sgd(Tied(by_data=True))),
    "a buffer that is to be learnt": ("P029", lambda: sgd(Scaled(torch.ones(1, requires_grad=True)))),
    "a plain tensor that is to be learnt": ("P003", lambda: sgd(Kept(torch.ones(1, requires_grad=True)))),
    "a parameter in a list": ("P003", lambda: sgd(Kept([nn.Parameter(torch.ones(1))]))),
    "a parameter that was moved": ("P003", lambda: sgd(Kept(nn.Parameter(torch.ones(1)).double().float() * 1))),
    "a momentum of zero": ("P025", lambda: sgd(net(norms("momentum", 0.0)))),
    "the momentum of Keras": ("P025", lambda: sgd(net(norms("momentum", 0.99)))),
    "statistics switched off afterwards": ("P025", lambda: sgd(net(norms("track_running_stats", False)))),
    "statistics of a frozen part": ("P018", lambda: sgd(frozen(net()))),
    "evaluation mode that was left on": ("P021", lambda: sgd(net(drop=0.5).eval())),
}  # fmt: skip


def told(model, optimizer, **given):
    return {finding.code: finding for finding in tg.check(model, IMAGE, optimizer=optimizer, **given)}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_parameters_is_told(name):
    code, make = FAULTS[name]
    assert code in told(*make())


HEALTHY = {
    "all trained": lambda: sgd(net(), momentum=0.9),
    "a frozen body that its loop keeps still": lambda: sgd(still(net())),
    "a frozen convolution": lambda: sgd(net(lambda m: m.features[0].requires_grad_(False))),
    "rates for every layer": lambda: groups(SGD, features=1e-3, fc=1e-2),
    "settings of one's own in the groups": (
        lambda: (lambda m: (m, SGD([{"params": m.features.parameters(), "name": "body", "lr_mult": 0.1, "lr_scale": 1},
                                    {"params": m.fc.parameters(), "weight_decay_mult": 0.0}], lr=1e-3)))(net())
    ),
    "a schedule's own entries": lambda: (lambda given: (
        torch.optim.lr_scheduler.CyclicLR(given[1], 0.01, 0.1), torch.optim.lr_scheduler.OneCycleLR(given[1], 0.1, 9),
        given)[2])(sgd(net(), momentum=0.9)),
    "two optimizers that share nothing": (
        lambda: (lambda m: (m, [SGD(m.features.parameters(), lr=0.1), Adam(m.fc.parameters())]))(net())
    ),
    "matrices alone decay": lambda: decayed(net(), lambda _, one: one.ndim < 2, lr=1e-3, weight_decay=0.05),
    "a head put in before the optimizer": lambda: sgd(net(grown)),
    "weights loaded in place": lambda: later(lambda m: m.load_state_dict(net().state_dict()) and None),
    "weight norm before the optimizer": lambda: sgd(net(lambda m: parametrizations.weight_norm(m.fc))),
    "pruned after the optimizer": lambda: later(lambda m: prune.l1_unstructured(m.fc, "weight", 0.3) and None),
    "moved and cast after the optimizer": lambda: later(lambda m: m.to(memory_format=torch.channels_last) and None),
    "a state of the same order": lambda: resumed((2, 4)),
    "two parameters with equal values": lambda: sgd(Tied(by_data=False)),
    "a parameter of its own": lambda: sgd(Scaled(nn.Parameter(torch.ones(1)))),
    "a constant buffer": lambda: sgd(Scaled(torch.ones(1))),
    "the average over all batches": lambda: sgd(net(norms("momentum", None))),
    "a slow momentum": lambda: sgd(net(norms("momentum", 0.01))),
    "a class that knows what trainable is": lambda: sgd(net(lambda m: setattr(m, "trainable", False))),
    "a group before the schedule": lambda: scheduled(late=False),
    "a warm-up from zero": lambda: (lambda given: (torch.optim.lr_scheduler.LinearLR(given[1], 1e-8), given)[1])(sgd(net())),
}  # fmt: skip


@pytest.mark.parametrize("name", HEALTHY)
def test_what_is_well_gives_no_finding(name):
    assert told(*HEALTHY[name]()) == {}


@pytest.mark.parametrize(
    "name", ["all trained", "pruned after the optimizer", "a frozen body that its loop keeps still"]
)
def test_what_is_well_gives_no_error_with_data(name):
    assert not [finding for finding in told(*HEALTHY[name](), data=DATA).values() if finding.is_error]


# what only a real pass shows


class Cut(Net):
    def __init__(self, cut):
        super().__init__()
        self.cut = cut

    def forward(self, x):
        return self.fc(self.cut(self.features, x).mean((2, 3)))


def unrecorded(body, x):
    with torch.no_grad():
        return body(x)


def inferred(body, x):
    with torch.inference_mode():
        made = body(x)
    return made.clone()


CUTS = {
    "no_grad around the body": unrecorded,
    "inference mode around the body": inferred,
    "detach": lambda body, x: body(x).detach(),
    "data": lambda body, x: body(x).data,
    "numpy": lambda body, x: torch.from_numpy(body(x).detach().numpy()),
}


@pytest.mark.parametrize("name", CUTS)
def test_a_body_that_no_gradient_reaches_is_told_with_data(name):
    found = tg.check(Cut(CUTS[name]), IMAGE, data=DATA, real=name == "numpy")
    assert "T007" in {finding.code for finding in found}


def test_a_body_that_gradients_reach_is_not():
    assert tg.check(Cut(lambda body, x: body(x)), IMAGE, data=DATA) == ()


def test_a_forward_without_gradients_is_told_with_data():
    class Decorated(Net):
        @torch.no_grad()
        def forward(self, x):
            return super().forward(x)

    assert "T006" in told(*sgd(Decorated()), data=DATA)


def test_gradients_that_were_switched_off_are_told():
    model, optimizer = sgd(net())
    with torch.no_grad():
        assert told(model, optimizer)["P028"].severity == "warning"
        assert tg.check(model, IMAGE) == (), "without an optimizer nothing is about to be trained"
    assert told(model, optimizer) == {}


# what can't happen


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda g: g.freeze("feature"), "did you mean features"),
        (lambda g: g.groups({"fcc": {"lr": 0.1}}), "did you mean fc"),
    ],
)
def test_a_name_that_is_not_there_is_refused(make, words):
    with pytest.raises(SelectionError, match=words):
        make(tg.load(net(), input=IMAGE))


@pytest.mark.parametrize(
    "given", [SGD, torch.optim.lr_scheduler.StepLR(SGD(Net().parameters()), 3), [{"params": []}]]
)
def test_what_is_no_optimizer_is_refused(given):
    with pytest.raises(RecipeError, match="is no optimizer"):
        tg.check(net(), IMAGE, optimizer=given)
