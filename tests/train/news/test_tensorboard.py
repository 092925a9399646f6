from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tests.train.told import BEGIN, run

from torchgraft.train.news import news_of


def read(folder: Path) -> EventAccumulator:
    """Read event files as TensorBoard does."""
    seen = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
    seen.Reload()
    return seen


def points(folder: Path, name: str) -> list[tuple[int, float]]:
    return [(one.step, round(one.value, 5)) for one in read(folder).Scalars(name)]


def trained(out: Path, **how: object) -> Path:
    with news_of((), out, "run", "base: bundled:glyphs\nseed: 3\n") as watch:
        run(watch, **how)
    return out / "tensorboard" / "run"


def test_what_was_trained_is_read_back_by_tensorboard(tmp_path):
    home = trained(tmp_path)
    assert points(home, "loss/step") == [(number, round(1 / number, 5)) for number in range(1, 13)]
    assert points(home, "loss/val") == [(4, 2.0), (8, 1.0), (12, round(2 / 3, 5))]
    assert points(home, "rate/rest")[0] == (1, 0.001)
    assert set(read(home).Tags()["scalars"]) == {
        "loss/step", "loss/train", "loss/val", "gradient/norm", "rate/fc", "rate/rest", "speed/samples_per_second",
        "accuracy/train", "accuracy/val", "mae/val", "epoch",
    }  # fmt: skip
    (text,) = read(home).Tensors("recipe")
    assert text.tensor_proto.string_val == [b"```yaml\nbase: bundled:glyphs\nseed: 3\n```"]


@pytest.mark.parametrize("ended", ["interrupted", "killed"])
def test_a_resumed_training_goes_on_in_the_same_curves_without_a_double_point(ended, tmp_path):
    trained(tmp_path, last=7, ended=ended)
    home = trained(tmp_path, first=6, begin=replace(BEGIN, epoch=2))  # the state that was kept is that of step 5
    assert points(home, "loss/step") == [(number, round(1 / number, 5)) for number in range(1, 13)]
    assert [step for step, _ in points(home, "accuracy/val")] == [4, 8, 12]


def test_the_same_training_begun_anew_draws_its_curves_anew(tmp_path):
    trained(tmp_path, last=7, ended="interrupted")
    home = trained(tmp_path, last=4)
    assert [step for step, _ in points(home, "loss/step")] == [1, 2, 3, 4]
    assert len(list(home.iterdir())) == 2  # and what was there before is there still


def test_a_file_that_a_kill_cut_off_is_read_up_to_there(tmp_path):
    home = trained(tmp_path, last=7, ended="killed")
    (file,) = home.iterdir()
    file.write_bytes(file.read_bytes()[:-13])
    trained(tmp_path, first=6, begin=replace(BEGIN, epoch=2))
    assert [step for step, _ in points(home, "loss/step")] == list(range(1, 13))


def test_writing_imports_no_tensorflow_and_no_plots(tmp_path):
    asked = (
        "import sys; from pathlib import Path; from tests.train.told import run; "
        "from torchgraft.train.news import news_of\n"
        f"with news_of((), Path({str(tmp_path)!r}), 'run', '') as watch: run(watch)\n"
        "print([name for name in ('tensorflow', 'torch.utils.tensorboard', 'matplotlib', 'wandb', 'mlflow') "
        "if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
