"""The command line as its user meets it: in a process of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from torchgraft.data import parse_data

BASE = "bundled:glyphs"


def run(*arguments: str, cwd: Path, **kwargs) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torchgraft", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, **kwargs)


def refused(*arguments: str, cwd: Path) -> list[str]:
    """Run a command that must be refused: exit code 2, what, where, what to do, no traceback."""
    done = run(*arguments, cwd=cwd)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    lines = done.stderr.strip().splitlines()
    assert lines[0].startswith("error: ")
    return lines


@pytest.fixture(scope="module")
def flowers(tmp_path_factory) -> Path:
    """A folder of class folders made of real digits."""
    root = tmp_path_factory.mktemp("data") / "digits"
    digits = parse_data("sklearn:digits").open()
    for number in range(160):
        image, label = digits.train[number]
        if label < 4:
            (root / f"digit {label}").mkdir(parents=True, exist_ok=True)
            image.save(root / f"digit {label}" / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def adapted(tmp_path_factory, flowers) -> tuple[Path, str]:
    """A folder where a model was adapted, and what was printed."""
    home = tmp_path_factory.mktemp("home")
    done = run("adapt", BASE, "--data", f"folder:{flowers}", "--epochs", "4", cwd=home)
    assert done.returncode == 0, done.stderr
    return home, done.stdout


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["adapt", "--help"], ["train", "--help"], ["predict", "--help"],
                  ["log", "--help"], ["rules"], ["rule", "S001"], ["log", "nowhere"]]
)  # fmt: skip
def test_what_needs_no_model_starts_without_torch(arguments, tmp_path):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "torchgraft", *arguments],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    imported = set(re.findall(r"\| +(\S+)$", done.stderr, flags=re.MULTILINE))
    assert "torchgraft.cli.main" in imported
    assert not imported & {"torch", "torchvision", "numpy", "matplotlib", "timm"}


def test_a_wrong_recipe_is_refused_before_torch_is_imported(tmp_path):
    (tmp_path / "r.yaml").write_text("base: resnet18\ntrain: {data: x, epoch: 3}\n")
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "torchgraft", "train", "r.yaml"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert not re.search(r"\| +torch$", done.stderr, flags=re.MULTILINE)


def test_adapt_prints_each_step_and_ends_with_version_report_and_next_commands(adapted):
    home, printed = adapted
    words = [line.split()[0] for line in printed.splitlines() if line[:1].strip()]
    for word in ("load", "data", "images", "head", "check", "train", "epoch", "result", "keep", "report", "next"):
        assert word in words, printed
    assert (home / "runs" / "reports" / "v1" / "report.html").is_file()
    assert "torchgraft predict v1" in printed


def test_log_lists_the_version(adapted):
    home, _ = adapted
    done = run("log", cwd=home)
    assert re.search(r"v1 +[0-9a-f]{10} .* [0-9.]+% +bundled:glyphs", done.stdout)


def test_predict_gives_classes_and_probabilities(adapted, flowers):
    home, _ = adapted
    images = sorted(flowers.glob("digit 0/*.png"))[:4]
    done = run("predict", "v1", *map(str, images), cwd=home)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 4
    assert sum(" digit 0 " in line.split("%")[0] for line in done.stdout.splitlines()) >= 3


def test_a_dry_run_writes_a_recipe_that_train_runs(tmp_path, flowers):
    done = run("adapt", BASE, "--data", str(flowers), "--dry-run", "--set", "train.epochs=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "runs").exists()
    done = run("train", "recipe.yaml", "--out", "kept", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "kept" / "reports" / "v1" / "samples.png").is_file()
    assert run("log", "kept", cwd=tmp_path).stdout.count("bundled:glyphs") == 1


def test_ctrl_c_keeps_the_state_and_says_so(tmp_path, flowers):
    command = [sys.executable, "-m", "torchgraft", "adapt", BASE, "--data", str(flowers), "--epochs", "500"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as job:
        for line in job.stdout:
            if line.startswith("epoch   2"):
                break
        time.sleep(0.1)
        job.send_signal(signal.SIGINT)
        out, err = job.communicate(timeout=120)
    assert job.returncode == 130, err
    assert "Traceback" not in err
    assert "the state reached is kept as v1" in out
    assert "interrupted" in run("log", cwd=tmp_path).stdout


# bad input


def test_an_unknown_base_names_the_nearest(tmp_path):
    assert refused("adapt", "resnet81", "--data", "sklearn:digits", cwd=tmp_path) == [
        "error: torchvision has no model 'resnet81'",
        "where: torchvision:resnet81",
        "do:    did you mean resnet18 or resnet152 or resnet101?",
    ]


def test_a_recipe_with_a_misspelt_key_names_file_line_and_nearest(tmp_path):
    (tmp_path / "r.yaml").write_text("base: bundled:glyphs\ntrain:\n  data: sklearn:digits\n  epoch: 3\n")
    assert refused("train", "r.yaml", cwd=tmp_path) == [
        "error: there is no key 'epoch'",
        "where: r.yaml:4",
        "do:    did you mean epochs?",
    ]


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["adapt", BASE], "requires an argument"),
        (["adapt", BASE, "--data", "folder:nowhere"], "nowhere"),
        (["adapt", BASE, "--data", "sklearn:digits", "--classes", "3"], "more than the 3 asked for"),
        (
            ["adapt", BASE, "--data", "sklearn:digits", "--set", "train.epoch=3"],
            "there is no setting 'train.epoch'",
        ),
        (
            ["adapt", BASE, "--data", "sklearn:digits", "--set", "trian.epochs=3"],
            "there is no setting 'trian.epochs'",
        ),
        (["adapt", BASE, "--data", "sklearn:digits", "--set", "train.epochs"], "sets nothing"),
        (["adapt", BASE, "--data", "sklearn:digits", "--set", "freeze.all_but=heat"], "matches no module"),
        (["adapt", "python:a.b:c", "--data", "sklearn:digits"], "runs code of your own"),
        (["train", "nowhere.yaml"], "the recipe can't be read"),
        (["predict", "v7", "x.png"], "no version is kept here"),
        (["rule", "S9"], "there is no rule 'S9'"),
        (["adpat"], "adpat"),
    ],
)
def test_the_users_mistakes_are_told_in_three_lines(arguments, what, tmp_path):
    assert what in refused(*arguments, cwd=tmp_path)[0]


def test_an_empty_folder_and_one_class_only_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    refused("adapt", BASE, "--data", "folder:empty", cwd=tmp_path)
    (tmp_path / "one" / "only").mkdir(parents=True)
    Image.new("L", (8, 8)).save(tmp_path / "one" / "only" / "a.png")
    assert "class" in refused("adapt", BASE, "--data", "folder:one", cwd=tmp_path)[0]


def test_a_corrupt_image_is_named_skipped_and_counted_or_refused(tmp_path, flowers):
    subprocess.run(["cp", "-r", str(flowers), str(tmp_path / "d")], check=True)
    (tmp_path / "d" / "digit 1" / "broken.png").write_bytes(b"no picture")
    done = run("adapt", BASE, "--data", "folder:d", "--dry-run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.search(r"skipped +1 sample left out, such as .*broken\.png", done.stdout)
    assert "broken.png" in "\n".join(refused("adapt", BASE, "--data", "folder:d", "--strict", cwd=tmp_path))


def test_an_image_that_can_not_be_read_is_named(adapted):
    home, _ = adapted
    (home / "x.png").write_bytes(b"no picture")
    assert "x.png" in "\n".join(refused("predict", "v1", "x.png", cwd=home))
    assert "nowhere.png" in "\n".join(refused("predict", "v1", "nowhere.png", cwd=home))


@pytest.mark.skipif(os.name != "posix", reason="needs ulimit")
def test_a_full_disk_while_saving_is_told_and_damages_nothing(adapted, flowers):
    home, _ = adapted
    before = run("log", cwd=home).stdout
    script = f"ulimit -f 100; exec {sys.executable} -m torchgraft adapt {BASE} --data '{flowers}' --epochs 1"
    done = subprocess.run(["bash", "-c", script], cwd=home, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "error: the version can't be kept" in done.stderr
    assert run("log", cwd=home).stdout == before
