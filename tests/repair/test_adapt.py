"""Adapt restores the contract of a place, whatever the place is given and whatever it gives."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import torchgraft as tg
from torchgraft.errors import EditError

X = torch.randn(2, 3, 16, 16)


class Joined(nn.Module):
    """Takes a list of maps, as the layers of a DenseNet do."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(12, 4, 3, padding=1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        return self.conv(torch.cat(maps, 1))


class Listed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 8, 3, padding=1)
        self.joined = Joined()
        self.head = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.joined([self.first(x), self.second(x)]).mean((2, 3)))


class Attended(nn.Module):
    """Tokens through an attention that is given three tensors and gives a pair."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, 4)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2).transpose(1, 2)
        seen, _ = self.attention(x, x, x, need_weights=False)
        return self.head((x + seen).mean(1))


class Shared(nn.Module):
    """One activation, called at two places of different size."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.act = nn.ReLU()
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.act(self.two(self.act(self.one(x)))).mean((2, 3)))


class LastMaps(nn.Module):
    """Maps whose channels come last, as Swin's."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 4, 4)
        self.mix = nn.Linear(12, 12)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).permute(0, 2, 3, 1)
        return self.head((x + self.mix(x)).mean((1, 2)))


class Stride(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, ::2] if x.dim() == 3 else x[:, ::2, ::2]


def proved(g: tg.Graft, x: Tensor = X) -> None:
    out = g.module(x)
    out.sum().backward()
    assert out.shape == (2, 5)
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in g.module.parameters())


@pytest.mark.parametrize("way", ["adapt", "propagate"])
@pytest.mark.parametrize("nested", [False, True])
def test_a_layer_that_is_given_a_list_gets_its_tensors_joined(way, nested):
    new = nn.Conv2d(7, 9, 3, padding=1)
    g = tg.load(Listed(), input=(3, 16, 16))
    g.replace("joined", nn.Sequential(new, nn.MaxPool2d(2)) if nested else new, fix=way)
    assert any(isinstance(part, nn.Conv2d) and part.in_channels == 12 for part in g.module.joined.modules())
    proved(g)


def test_what_a_layer_of_a_list_gives_is_what_it_gave():
    g = tg.load(Listed(), input=(3, 16, 16)).replace("joined", nn.Conv2d(7, 9, 3, padding=1), fix="adapt")
    assert g.trace().gave("joined")[0].shape == (2, 4, 16, 16)
    proved(g)


def test_what_stands_for_an_attention_gets_the_query_and_gives_a_pair():
    g = tg.load(Attended(), input=(3, 16, 16)).replace("attention", nn.Linear(9, 11), fix="adapt")
    assert [edit.sentence() for edit in g.recipe.edits[1:]] == [
        "attention gets 'given_0' only, and gives a pair",
        "attention.base is resized to 8 inputs",
        "a projection of [16, 11] to [16, 8] is inserted after attention.base as fit",
    ]
    proved(g)


def test_a_pair_is_given_even_where_nothing_breaks():
    g = tg.load(Attended(), input=(3, 16, 16)).replace("attention", nn.Linear(8, 8), fix="adapt")
    x = g.module.stem(X).flatten(2).transpose(1, 2)
    expected = g.module.head((x + g.module.attention.base(x)).mean(1))
    torch.testing.assert_close(g.module(X), expected)


def test_a_module_called_at_places_of_different_size_is_refused_with_a_finding(snapshot):
    g = tg.load(Shared(), input=(3, 16, 16))
    before = snapshot(g.module)
    with pytest.raises(EditError) as refused:
        g.replace("act", nn.Sequential(nn.Conv2d(8, 8, 1), nn.MaxPool2d(16)), fix="adapt")
    assert refused.value.findings
    assert snapshot(g.module) == before


def test_a_module_called_twice_with_one_contract_is_mended_for_both_calls():
    model = Shared()
    model.two = nn.Conv2d(8, 8, 3, padding=1)
    g = tg.load(model, input=(3, 16, 16)).replace("act", nn.Conv2d(7, 9, 3, padding=1), fix="adapt")
    assert len(g.trace().calls_of("act")) == 2
    assert {g.trace().values[n].shape for call in g.trace().calls_of("act") for n in call.gave} == {(2, 8, 16, 16)}
    proved(g)


@pytest.mark.parametrize("halve", [False, True])
def test_maps_whose_channels_come_last_are_projected_there(halve):
    new = nn.Sequential(nn.Linear(15, 17), Stride() if halve else nn.Identity())
    g = tg.load(LastMaps(), input=(3, 16, 16)).replace("mix", new, fix="adapt")
    assert g.trace().gave("mix")[0].shape == (2, 4, 4, 12)
    assert not any(isinstance(part, nn.Conv2d) and part.in_channels == 4 for part in g.module.mix.modules())
    proved(g)


def test_tokens_are_interpolated_along_the_sequence():
    model = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.Flatten(2), nn.Linear(16, 16), nn.Flatten(), nn.Linear(128, 5))
    g = tg.load(model, input=(3, 16, 16)).replace("2", nn.Sequential(nn.Linear(16, 16), Stride()), fix="adapt")
    assert g.trace().given("3")[0].shape == (2, 8, 16)
    proved(g)


def test_a_silent_change_of_the_resolution_is_taken_back_at_the_place():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1), nn.AdaptiveAvgPool2d(1))
    model.extend([nn.Flatten(), nn.Linear(8, 5)])
    g = tg.load(model, input=(3, 16, 16)).replace(
        "1", nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.MaxPool2d(2)), fix="adapt"
    )
    assert g.trace().given("2")[0].shape == (2, 8, 16, 16)
    proved(g)


def test_a_table_that_reaches_a_new_layer_fits_it_too():
    class Table(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("table", torch.randn(7, 2))
            self.bias, self.head = nn.Linear(2, 48), nn.Linear(48, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(x.flatten(1)[:, :48] + self.bias(self.table).mean(0))

    g = tg.load(Table(), input=(3, 16, 16)).replace("bias", nn.Linear(5, 50), fix="adapt")
    assert g.trace().gave("bias")[0].shape == (7, 48)
    proved(g)


def test_a_module_with_further_arguments_is_wrapped_with_its_signature():
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3, padding=1)

        def forward(self, x: Tensor, factor: float = 1.0) -> Tensor:
            return self.conv(x) * factor

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scaled, self.head = Scaled(), nn.Linear(8, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.scaled(x, factor=2.0).mean((2, 3)))

    g = tg.load(Model(), input=(3, 16, 16))
    plain = g.module(X)
    g.insert(nn.Identity(), after="scaled")
    assert torch.equal(g.module(X), plain)
    g.insert(nn.Conv2d(8, 16, 3, padding=1), after="scaled", fix="adapt")
    proved(g)


def test_an_inserted_block_starts_as_the_identity_even_where_its_width_is_projected():
    g = tg.load(Listed().eval(), input=(3, 16, 16))
    plain = g.module(X)
    g.insert(nn.Conv2d(8, 16, 3, padding=1), after="second", start="identity", fix="adapt")
    assert torch.equal(g.module(X), plain)
    proved(g)
    gate = next(one for name, one in g.module.named_parameters() if name.endswith("gate"))
    assert gate.grad.abs() > 0


def test_an_insert_that_starts_as_the_identity_says_so(snapshot):
    g = tg.load(Listed(), input=(3, 16, 16))
    before = snapshot(g.module)
    g.insert(nn.Conv2d(8, 8, 1), after="second", name="new", start="identity")
    assert g.recipe.edits[0].sentence().endswith("is inserted after second as new, and starts as the identity")
    assert snapshot(g.undo().module) == before


def test_a_wrapped_module_still_shows_the_attributes_that_its_parent_reads():
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.conv(x).mean((2, 3)) / self.conv.out_channels)

    g = tg.load(Model(), input=(3, 16, 16)).insert(nn.Conv2d(8, 16, 1), after="conv", fix="adapt")
    proved(g)
