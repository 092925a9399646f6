from __future__ import annotations

import json
import random
import re
import shlex

import pytest
import torch
import yaml
from tests.memory.models import ADAMW, BLOCKS, SGD, made, plan
from torch import nn
from torchvision import models

import torchgraft as tg
from torchgraft.edits import kinds
from torchgraft.errors import RecipeError, TrainError
from torchgraft.memory.predict import Case, predicted
from torchgraft.memory.remedies import blocks_of
from torchgraft.memory.room import CONTEXT
from torchgraft.memory.text import text


def mib(size):
    return f"{size}MiB"


@pytest.fixture(scope="module")
def tight():
    """A ViT that does not fit as it is planned."""
    return made("vit").memory("640MiB", batch=512, optimizer=ADAMW)


def test_without_a_device_there_is_no_verdict():
    found = made("resnet").memory(batch=4, help=False)
    assert found.fits is None
    assert found.largest is None
    assert found.findings == ()
    assert found.peak == predicted(made("resnet"), Case(plan())).peak()
    assert "name a device" in str(found)


def test_the_kinds_are_all_of_the_peak():
    found = made("bert").memory(batch=3, help=False)
    assert sum(size for _, size in found.kinds) == found.peak
    assert found.peak == max(found.first, found.steady)


def test_the_modules_hold_all_weights_gradients_and_state():
    graft = made("resnet")
    found = graft.memory(batch=4, optimizer=ADAMW, help=False)
    count = sum(one.numel() for one in graft.module.parameters())
    buffers = sum(one.nbytes for one in graft.module.buffers())
    assert sum(one.weights for one in found.modules) == 4 * count + buffers
    assert sum(one.gradients for one in found.modules) == 4 * count
    steps = 4 * len(list(graft.module.parameters()))
    assert sum(one.optimizer for one in found.modules) == 8 * count + steps
    assert next(one for one in found.modules if one.path == "conv1").activations == 4 * 64 * 16 * 16 * 4


def test_what_does_not_fit_is_a_finding_with_fixes_that_fit(tight):
    (finding,) = tight.findings
    assert finding.code == "M001"
    assert finding.fixes
    names = {one.name for one in tight.remedies if one.fits}
    assert {fix.name for fix in finding.fixes} == names


def test_the_largest_batch_fits_and_one_more_does_not(tight):
    graft = made("vit")
    for batch, fits in ((tight.largest, True), (tight.largest + 1, False)):
        assert graft.memory("640MiB", batch=batch, optimizer=ADAMW, help=False).fits is fits


@pytest.mark.parametrize("name", ["accumulate", "checkpointing", "bf16", "sgd"])
def test_a_remedy_set_as_it_says_takes_what_it_says(name, tight):
    remedy = next((one for one in tight.remedies if one.name == name), None)
    if remedy is None:
        assert name == "sgd"  # whose saving is nothing beside the activations
        return
    settings = {one.partition("=")[0]: tg.Recipe.value(one.partition("=")[2]) for one in remedy.fix.settings}
    own = {path.removeprefix("train."): value for path, value in settings.items()}
    again = made("vit").memory("640MiB", **{"batch": 512, "optimizer": ADAMW, **own}, help=False)
    assert abs(again.peak - remedy.peak) < 0.01 * remedy.peak
    assert again.fits is remedy.fits


def test_freezing_is_an_edit_that_saves_what_it_says(tight):
    remedy = next(one for one in tight.remedies if one.name == "freeze")
    graft = made("vit").apply_all(remedy.fix.edits)
    assert (
        abs(graft.memory("640MiB", batch=512, optimizer=ADAMW, help=False).peak - remedy.peak) < 0.02 * tight.peak
    )


def test_freezing_is_told_as_a_command_that_can_be_pasted(tight):
    assert "torchgraft edit MODEL 'freeze: {all_but: head}'" in str(tight)
    line = next(one for one in text(tight, model="my net.yaml").splitlines() if "torchgraft edit" in one)
    assert shlex.split(line) == ["torchgraft", "edit", "my net.yaml", "freeze: {all_but: head}"]
    edit = yaml.safe_load(shlex.split(line)[-1])
    (fix,) = (one.fix for one in tight.remedies if one.name == "freeze")
    assert kinds()["freeze"].of(**edit["freeze"]).brief() == fix.edits[0].brief()


@pytest.mark.parametrize("width", [60, 80])
def test_a_terminal_gets_no_line_that_is_wider_than_it_is(tight, width):
    assert max(map(len, str(tight).splitlines())) > 80
    lines = text(tight, width).splitlines()
    commands = [line for line in lines if line.startswith("    ") and re.match(r" +(--set|torchgraft edit)", line)]
    assert len(commands) == len(tight.remedies)  # each whole, to be pasted
    assert max(len(line) for line in lines if line not in commands) <= width
    words = str(tight).split("what would take less")
    assert "".join(text(tight, 80).split("what would take less")[1].split()) == "".join(words[1].split())


def test_where_nothing_alone_is_enough_several_are_put_together():
    graft = made("decoder")
    settings = {"batch": 1, "precision": "fp32", "optimizer": SGD}
    alone = ({"checkpointing": BLOCKS["decoder"]}, {"precision": "bf16"})
    least = min(graft.memory("9GB", help=False, **{**settings, **one}).peak for one in alone)
    found = graft.memory(f"{CONTEXT + 1.05 * 0.98 * least:.0f}B", **settings)
    gentle = [one for one in found.remedies if one.name in ("checkpointing", "bf16")]
    (together,) = [one for one in found.remedies if one.name == "checkpointing+bf16"]
    assert together.saves > max(one.saves for one in gentle)
    assert len(together.fix.settings) == 2


def test_a_model_that_needs_two_samples_is_searched_down_to_these():
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 400), nn.BatchNorm1d(400), nn.Linear(400, 5))
    graft = tg.load(model, input=(3, 8, 8))
    with pytest.raises(TrainError, match="more than 1 value per channel"):
        graft.memory(batch=1)
    two, three = (CONTEXT + 1.05 * graft.memory("9GB", batch=size, help=False).peak for size in (2, 3))
    assert graft.memory(f"{two - 2**9:.0f}B", batch=4).largest == 0
    assert graft.memory(f"{(two + three) / 2:.0f}B", batch=4).largest == 2


def test_where_the_optimizer_makes_the_peak_a_fused_one_takes_less():
    with torch.device("meta"):
        wide = nn.Sequential(nn.Flatten(), nn.Linear(192, 20_000), nn.Linear(20_000, 10))
    graft = tg.load(wide, input=(3, 8, 8))
    found = graft.memory("24GB", batch=2, optimizer=ADAMW)
    remedy = next(one for one in found.remedies if one.name == "fused")
    path, _, value = remedy.fix.settings[0].partition("=")
    assert path == "train.optimizer"
    again = graft.memory("24GB", batch=2, optimizer=tg.Recipe.value(value), help=False)
    assert found.moment.phase == "optimizer"
    assert again.peak == remedy.peak


def test_not_even_one_sample_is_another_finding():
    with torch.device("meta"):
        large = nn.Sequential(nn.Flatten(), nn.Linear(192, 200_000), nn.Linear(200_000, 10))
    found = tg.load(large, input=(3, 8, 8)).memory("1GiB", batch=8, optimizer=ADAMW)
    (finding,) = found.findings
    assert finding.code == "M002"
    assert "more than there is" in str(finding)
    assert found.largest == 0


def test_a_hair_is_told():
    graft = tg.load(nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 500), nn.Linear(500, 5)), input=(3, 8, 8))
    peak = graft.memory("24GB", batch=64, help=False).peak
    room = int(peak * 1.05 + CONTEXT) // 2**20 + 2
    (finding,) = graft.memory(mib(room), batch=64).findings
    assert finding.code == "M003"
    assert finding.severity == "warning"


def test_without_a_plan_the_defaults_are_said():
    text = str(made("resnet").memory("24GB", help=False))
    assert "batch 32, fp32, adamw" in text
    assert "no training plan: these are the defaults" in text


def test_the_plan_of_the_recipe_counts_and_settings_go_before_it():
    graft = made("resnet")
    graft.recipe = graft.recipe.model_copy(update={"train": plan(batch=6, optimizer=SGD)})
    assert graft.memory(help=False).batch == 6
    assert dict(graft.memory(help=False, batch=7).facts)["batch"] == "7"
    assert "no training plan" not in str(graft.memory(help=False))


def test_it_is_data_that_json_takes(tight):
    found = json.loads(json.dumps(tight.as_data()))
    assert found["fits"] is False
    assert found["findings"][0]["code"] == "M001"
    assert found["peak"] == tight.peak
    assert {one["phase"] for one in found["line"]} == {"forward", "backward", "optimizer"}
    assert found["remedies"][0]["settings"] or found["remedies"][0]["edits"]


@pytest.mark.parametrize("settings", [{"batch": 0}, {"batches": 4}, {"precision": "fp8"}, {"accumulate": 0}])
def test_a_wrong_setting_is_told(settings):
    with pytest.raises(RecipeError, match=next(iter(settings))):
        made("resnet").memory(**settings)


def test_an_unknown_device_is_told():
    with pytest.raises(TrainError, match="neither a size nor a device"):
        made("resnet").memory("24 potatoes")


def test_the_model_and_the_random_numbers_are_as_they_were(snapshot):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.Linear(144, 5))
    graft = tg.load(model.train(), input=(3, 8, 8))
    before, states = snapshot(graft.module), (random.getstate(), torch.get_rng_state())
    graft.memory("100MiB", batch=64)
    assert snapshot(graft.module) == before
    assert random.getstate() == states[0]
    assert torch.equal(torch.get_rng_state(), states[1])


@pytest.mark.parametrize(
    ("name", "blocks"),
    [
        ("resnet18", ["layer1.*", "layer2.*", "layer3.*", "layer4.*"]),
        ("vit_b_16", ["encoder.layers.*"]),
        ("swin_t", ["features.1.*", "features.3.*", "features.5.*", "features.7.*"]),
        ("convnext_tiny", ["features.1.*", "features.3.*", "features.5.*", "features.7.*"]),
        ("vgg11", []),
    ],
)
def test_repeated_blocks_are_found(name, blocks):
    with torch.device("meta"):
        assert blocks_of(models.get_model(name, weights=None)) == blocks


def test_blocks_of_transformers_are_found():
    assert blocks_of(made("bert").module) == [BLOCKS["bert"]]
    assert blocks_of(made("decoder").module) == [BLOCKS["decoder"]]
