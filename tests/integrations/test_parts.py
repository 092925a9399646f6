"""What the callbacks have in common."""

from __future__ import annotations

import importlib
import sys

import pytest
from tests.integrations.nets import Net

from torchgraft.errors import RecipeError, SelectionError
from torchgraft.integrations.parts import Stages


@pytest.mark.parametrize(
    ("name", "package", "inner"),
    [
        ("lightning", "lightning", "lightning.pytorch"),
        ("huggingface", "transformers accelerate", "transformers"),
        ("fastai", "fastai", "fastai.callback.core"),
    ],
)
def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, name: str, package: str, inner: str) -> None:
    monkeypatch.setitem(sys.modules, inner, None)
    monkeypatch.delitem(sys.modules, f"torchgraft.integrations.{name}", raising=False)
    with pytest.raises(ImportError, match=f"pip install {package}"):
        importlib.import_module(f"torchgraft.integrations.{name}")


def test_stages_set_the_flags_of_any_epoch_whatever_came_before() -> None:
    model = Net()
    stages = Stages(model, {2: "body.4", 4: ["body.0", "body.1"]})

    def trained() -> set[str]:
        return {name.rpartition(".")[0] for name, one in model.named_parameters() if one.requires_grad}

    always = {"body.5", "head"}
    for epoch, more in ((1, set()), (5, {"body.4", "body.0", "body.1"}), (3, {"body.4"})):
        stages.hold(epoch)
        assert trained() == always | more


@pytest.mark.parametrize(("wanted", "error"), [({1: "body"}, RecipeError), ({2: "bdoy"}, SelectionError)])
def test_a_stage_that_is_none(wanted: dict[int, str], error: type[Exception]) -> None:
    with pytest.raises(error):
        Stages(Net(), wanted)
