"""Every Python example of the documents runs; the blocks of one document share their names."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from torchgraft.edits import Edit, kinds
from torchgraft.recipe import Recipe

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([*ROOT.glob("docs/*.md"), ROOT / "README.md"])


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", path.read_text(), flags=re.DOTALL)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_the_python_examples_run(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": path.stem}
    registered = dict(kinds())
    for block in blocks(path, "python"):
        exec(compile(block, str(path), "exec"), names)
    for kind in kinds().keys() - registered.keys():  # an edit that a document defines is not torchgraft's
        del Edit.registry[kind]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_the_recipes_read(path):
    for block in blocks(path, "yaml"):
        text = block if "base:" in block else f"base: resnet18\nedits:\n{block}"
        Recipe.from_yaml(text, name=path.name)


def test_every_edit_is_documented():
    text = (ROOT / "docs" / "edits.md").read_text()
    assert all(re.search(rf"^## .*\b{kind}\b", text, flags=re.MULTILINE) for kind in kinds())


def test_the_page_of_rules_is_what_the_rules_say():
    spec = importlib.util.spec_from_file_location("document_rules", ROOT / "scripts" / "document_rules.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert (ROOT / "docs" / "rules.md").read_text() == script.text(), "run scripts/document_rules.py"


def test_every_rule_that_the_page_of_faults_names_is_there():
    from torchgraft.rules import rules

    named = set(re.findall(r"\b[SWPHDT]\d{3}\b", (ROOT / "docs" / "faults.md").read_text()))
    assert named <= set(rules())
