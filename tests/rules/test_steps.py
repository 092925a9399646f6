from __future__ import annotations

import pytest
import torch
from tests.net import Net
from torch import nn
from torch.nn import functional as F

import torchgraft as tg
from torchgraft.rules import Evidence, rules


def batch(samples=8, features=6, classes=3):
    torch.manual_seed(0)
    return torch.randn(samples, features), torch.arange(samples) % classes


def found(model, data=None, **settings):
    return {finding.code: finding for finding in tg.check(model, data=data or batch(), **settings)}


def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def test_a_sound_network_gives_no_finding():
    assert found(small()) == {}
    assert found(small(), loss=nn.CrossEntropyLoss()) == {}


def test_a_network_of_convolutions_gives_no_finding_with_its_optimizer():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    )
    data = (torch.randn(8, 3, 9, 9), torch.arange(8) % 4)
    assert found(model, data, optimizer=torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)) == {}


def test_a_loss_that_fails_is_told_with_the_words_of_torch():
    told = found(small(), loss=lambda out, y: (out @ torch.zeros(7, 1)).sum())["T001"]
    assert "the loss breaks off at" in told.facts[0]
    assert "RuntimeError" in told.facts[1]


def test_a_forward_that_fails_in_training_alone_is_told_with_its_place():
    class Fails(nn.Module):
        def forward(self, x):
            return x.view(-1, 7) if self.training and not torch.is_inference_mode_enabled() and x.grad_fn else x

    told = found(nn.Sequential(nn.Linear(6, 3), Fails()))["T001"]
    assert told.where == "Sequential / 1"


def test_the_first_operation_that_gives_nan_is_told():
    model = Net(lambda s, x: s.b(torch.log(s.a(x) - 1e9)), a=nn.Linear(6, 6), b=nn.Linear(6, 3))
    assert "first made by log in the model's own forward" in found(model)["T002"].facts


def test_a_deep_stack_of_sigmoids_is_told_to_vanish():
    torch.manual_seed(0)
    layers = [part for _ in range(14) for part in (nn.Linear(32, 32), nn.Sigmoid())]
    told = found(nn.Sequential(*layers, nn.Linear(32, 2)), batch(64, 32, 2))["T003"]
    assert (told.severity, told.where) == ("warning", "Sequential / 0")


def test_a_deep_stack_of_wide_weights_is_told_to_explode():
    torch.manual_seed(0)
    model = nn.Sequential(*[nn.Linear(16, 16, bias=False) for _ in range(8)], nn.Linear(16, 3))
    for layer in model[1:]:
        nn.init.normal_(layer.weight, std=2.0)
    nn.init.normal_(model[0].weight, std=1e-6)
    assert "T004" in found(model, batch(16, 16))


def test_a_first_loss_far_above_chance_is_told():
    model = small()
    nn.init.normal_(model[2].weight, std=500)
    assert "ln 3 = 1.1" in found(model)["T005"].facts[0]


@pytest.mark.parametrize(
    ("model", "loss"),
    [
        (Net(lambda s, x: s.a(x).detach(), a=nn.Linear(6, 3)), None),
        (small(), lambda out, y: F.cross_entropy(out, y).item()),
        (small(), lambda out, y: F.cross_entropy(out.detach(), y)),
        (Net(torch.no_grad()(lambda s, x: s.a(x)), a=nn.Linear(6, 3)), F.cross_entropy),
        (Net(lambda s, x: F.one_hot(s.a(x).argmax(1), 3).float(), a=nn.Linear(6, 3)), None),
    ],
)
def test_a_loss_without_its_graph_is_told(model, loss):
    assert found(model, loss=loss)["T006"].is_error


def test_a_body_that_is_cut_off_is_told_with_the_cut():
    told = found(Net(lambda s, x: s.head(s.body(x).detach()), body=nn.Linear(6, 6), head=nn.Linear(6, 3)))["T007"]
    assert "no gradient reaches 2 parameters of body" in told.facts
    assert "the graph ends at detach in the model's own forward" in told.facts


def test_a_body_under_no_grad_is_told():
    class Body(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 6)

        @torch.no_grad()
        def forward(self, x):
            return self.layer(x)

    assert found(nn.Sequential(Body(), nn.Linear(6, 3)))["T007"].where == "Sequential / 0.layer"


def test_a_frozen_body_is_not_told_to_be_cut_off():
    model = small()
    model[0].requires_grad_(False)
    assert found(model) == {}


def test_two_layers_of_zeros_are_dead_and_one_is_not():
    model = small()
    nn.init.zeros_(model[2].weight)
    assert "T008" not in found(model)
    nn.init.zeros_(model[0].weight)
    nn.init.zeros_(model[0].bias)
    assert "0, 2" in found(model)["T008"].facts[0]


class Remembers(nn.Module):
    def __init__(self, *, used):
        super().__init__()
        self.layer, self.hidden, self.used = nn.Linear(6, 3), None, used

    def forward(self, x):
        out = self.layer(x)
        if self.used and self.hidden is not None:
            out = out + self.hidden.mean()
        self.hidden = out
        return out


def test_a_hidden_state_with_its_graph_is_told():
    kept = found(Remembers(used=False))["T009"]
    assert (kept.severity, kept.hint) == ("warning", "keep hidden.detach()")
    assert found(Remembers(used=True))["T009"].is_error


def test_a_loss_that_keeps_its_graph_is_told_and_left_as_it_was():
    losses = []

    def summed(out, y):
        losses.append(F.cross_entropy(out, y))
        return sum(losses)

    told = found(small(), loss=summed)
    assert told["T009"].is_error
    assert "T001" not in told
    assert losses == []


def test_a_scripted_model_runs_too():
    assert "T001" not in found(torch.jit.script(small()))


def test_losses_that_are_collected_with_their_graph_are_told():
    class Collects(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.penalties = nn.Linear(6, 3), []

        def forward(self, x):
            self.penalties.append(self.layer.weight.norm())
            return self.layer(x)

    model = Collects()
    assert found(model)["T009"].severity == "warning"
    assert model.penalties == []


def test_what_weight_norm_computes_is_not_told_to_be_kept():
    assert found(nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(6, 6)), nn.Linear(6, 3))) == {}


def test_an_output_that_is_overwritten_is_told_with_both_operations():
    def forward(s, x):
        y = torch.sigmoid(s.a(x))
        y += 1
        return s.b(y)

    told = found(Net(forward, a=nn.Linear(6, 6), b=nn.Linear(6, 3)))["T010"]
    assert told.facts[0].startswith("sigmoid in")
    assert told.facts[1].startswith("add_ in")


def test_a_loss_of_many_numbers_is_told():
    assert "[8]" in found(small(), loss=nn.CrossEntropyLoss(reduction="none"))["T011"].facts[0]


def test_a_learning_rate_that_is_much_too_high_is_told():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))
    data = torch.randn(128, 32), torch.randn(128, 1) * 3

    def codes(rate):
        return found(
            model, data, loss=nn.MSELoss(), optimizer=torch.optim.SGD(model.parameters(), rate, momentum=0.9)
        )

    assert "T012" in codes(1.0)
    assert "T012" not in codes(0.01)


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.RMSprop, torch.optim.Adagrad, torch.optim.LBFGS])
def test_any_optimizer_is_tried(kind):
    model = small()
    assert "T012" not in found(model, optimizer=kind(model.parameters(), lr=1e-3))
    if kind is torch.optim.Adam:
        assert "T012" in found(model, optimizer=kind(model.parameters(), lr=30.0))


def test_gradients_that_are_there_before_are_noted():
    model = small()
    model(batch()[0]).sum().backward()
    assert found(model)["T013"].severity == "note"


def test_a_model_that_evaluation_changes_is_told():
    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 3)
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x):
            self.calls += 1
            return self.layer(x)

    assert "calls" in found(Counts())["T014"].facts[0]
    assert "T014" in found(Net(lambda s, x: F.batch_norm(s.a(x), s.n.running_mean, s.n.running_var, training=True), a=nn.Linear(6, 3), n=nn.BatchNorm1d(3)))  # fmt: skip


def test_a_table_that_is_made_at_the_first_pass_is_no_change():
    class Caches(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 3)
            self.register_buffer("places", torch.zeros(1), persistent=False)

        def forward(self, x):
            if len(self.places) != x.shape[1]:
                self.places = torch.arange(x.shape[1]) / 6
            return self.layer(x + self.places)

    assert "T014" not in found(Caches())


def test_a_dropout_that_is_always_on_is_told():
    told = found(Net(lambda s, x: F.dropout(s.a(x)), a=nn.Linear(6, 3)))["T015"]
    assert told.facts[0].startswith("dropout in")


@pytest.mark.parametrize("drop", [F.dropout, F.dropout1d, lambda x: F.dropout(x, 0.2, True)])
def test_a_dropout_that_is_always_on_is_told_without_data(drop):
    model = Net(lambda s, x: drop(s.d(s.a(x))), a=nn.Linear(6, 3), d=nn.Dropout(0.1))
    (told,) = tg.check(model, (6,))
    assert told.code == "T015"
    right = Net(lambda s, x: F.dropout(s.d(s.a(x)), training=s.training), a=nn.Linear(6, 3), d=nn.Dropout(0.1))
    assert tg.check(right, (6,)) == ()


@pytest.mark.parametrize(
    ("op", "model"),
    [
        (
            "batch_norm",
            nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6, track_running_stats=False), nn.Linear(6, 3)),
        ),
        ("softmax", Net(lambda s, x: s.a(x) * F.softmax(s.a(x), dim=0), a=nn.Linear(6, 3))),
        ("__sub__", Net(lambda s, x: s.b(s.a(x) - s.a(x).mean(0)), a=nn.Linear(6, 6), b=nn.Linear(6, 3))),
    ],
)
def test_samples_that_see_each_other_are_told_with_the_operation(op, model):
    assert any(op.strip("_") in fact for fact in found(model)["T016"].facts)


def test_attention_over_the_batch_is_told():
    class Attends(nn.Module):
        def __init__(self, *, batch_first):
            super().__init__()
            self.attention = nn.MultiheadAttention(6, 2, batch_first=batch_first)
            self.head = nn.Linear(6, 3)

        def forward(self, x):
            return self.head(self.attention(x, x, x, need_weights=False)[0].mean(1))

    data = torch.randn(8, 5, 6), torch.arange(8) % 3
    assert found(Attends(batch_first=False), data)["T016"].where.endswith("attention")
    assert "T016" not in found(Attends(batch_first=True), data)


def test_a_model_with_a_memory_is_not_told_to_mix_its_samples():
    assert "T016" not in found(Remembers(used=True))


def test_an_output_that_never_changes_is_told():
    model = small()
    nn.init.constant_(model[0].bias, -100)
    assert {"T008", "T017"} <= found(model).keys()


def test_a_forward_that_writes_to_its_weights_is_told():
    def forward(s, x):
        s.a.weight.data.clamp_(-0.1, 0.1)
        return s.a(x)

    model = Net(forward, a=nn.Linear(6, 3))
    before = model.a.weight.clone()
    assert "a.weight" in found(model)["T018"].facts[0]
    assert torch.equal(before, model.a.weight)


def test_a_flag_on_a_computed_tensor_is_told():
    def forward(s, x):
        hidden = s.a(x)
        hidden.requires_grad = False
        return s.b(hidden)

    told = found(Net(forward, a=nn.Linear(6, 6), b=nn.Linear(6, 3)))
    assert told["T019"].is_error
    assert "T001" not in told


def test_rules_of_steps_say_nothing_without_data():
    nothing = Evidence(nn.Linear(2, 2), ())
    assert not [found for code, rule in rules().items() if code[0] == "T" for found in rule().findings(nothing)]


def test_a_loss_that_fails_in_python_blames_no_operation():
    told = found(small(), loss=lambda outputs, targets: {}["missing"])["T001"]
    assert told.facts == ("the loss breaks off", "it says: KeyError: 'missing'")
