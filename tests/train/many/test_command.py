"""`torchrun -m torchgraft train recipe.yaml`: one voice, one version, one error."""

from __future__ import annotations

import pytest
from tests.train.many.launch import started

import torchgraft as tg

RECIPE = """\
base: bundled:glyphs
edits: [{{head: {{classes: 10}}}}, {{freeze: {{all_but: head}}}}]
train: {{data: "{data}", epochs: 2, batch: 64, parallel: {way}}}
"""


def ends(folder, data, way="ddp"):
    recipe = folder / "recipe.yaml"
    recipe.write_text(RECIPE.format(data=data, way=way))
    process = started(2, "-m", "torchgraft", "train", recipe, "--out", folder / "runs")
    return process.communicate(timeout=240)[0], process.returncode


def test_an_error_of_every_process_is_told_once(tmp_path):
    output, code = ends(tmp_path, f"folder:{tmp_path / 'nowhere'}")
    assert code == 1  # torchrun's own; ours is 2
    assert "exitcode  : 2" in output
    assert len([line for line in output.splitlines() if line.startswith("error:")]) == 1
    told = output[: output.index("torch/distributed")]
    assert "nowhere" in told
    assert "Traceback" not in told


@pytest.mark.slow
@pytest.mark.parametrize("way", ["ddp", "fsdp"])
def test_several_processes_leave_one_version_and_speak_with_one_voice(tmp_path, way):
    output, code = ends(tmp_path, "sklearn:digits", way)
    assert code == 0, output
    assert output.count("epoch 2/2") == 1
    assert f"2 processes ({way})" in output
    assert "Warning" not in output
    versions = list((tmp_path / "runs" / "versions").glob("*.json"))
    assert len(versions) == 1
    assert not list((tmp_path / "runs" / "states").iterdir())
    g = tg.open(f"{tmp_path / 'runs'}@v1")
    assert g.version.metrics["accuracy"] > 0.3
