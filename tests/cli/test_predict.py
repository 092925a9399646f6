from __future__ import annotations

import io
import json
import warnings

import pytest
from tests.texts import CLASSES, written

import torchgraft as tg
from torchgraft.cli.main import main
from torchgraft.keep import save
from torchgraft.tokens import Texts, Tokens

pytestmark = pytest.mark.filterwarnings("ignore::torchgraft.errors.TorchgraftWarning")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with a version of texts."""
    home = tmp_path_factory.mktemp("home")
    g = tg.load(f"transformers:{written('bert', home)}#AutoModelForSequenceClassification").head(2)
    g.recipe = g.recipe.model_copy(update={"preprocess": Texts(tokens=Tokens(max_length=20))})
    save(g, home / "runs", classes=CLASSES)
    return home


def run(*words, capsys):
    with pytest.raises(SystemExit) as left:
        main(["predict", *map(str, words)])
    return left.value.code, *capsys.readouterr()


def test_texts_are_given_outright_or_line_by_line(runs, capsys):
    (runs / "texts.txt").write_text("my dog sees a cat\n")
    code, out, _ = run(f"{runs / 'runs'}@v1", runs / "texts.txt", "--text", "the cat", "--top", 1, capsys=capsys)
    assert code == 0
    first, second = out.splitlines()
    assert first.startswith("the cat   ")
    assert second.startswith("my dog sees a cat   ")
    assert first.count("%") == 1


def test_json_is_one_object_a_line(runs, capsys):
    code, out, _ = run(f"{runs / 'runs'}@v1", "--text", "the cat", "--text", "", "--json", capsys=capsys)
    answers = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [one["text"] for one in answers] == ["the cat", ""]
    assert answers[0]["classes"] == list(CLASSES)
    assert set(answers[0]) == {"text", "classes", "probabilities"}


def test_lines_come_through_a_pipe(runs, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("the cat\n\na dog\n"))
    code, out, _ = run(f"{runs / 'runs'}@v1", "-", capsys=capsys)
    assert (code, len(out.splitlines())) == (0, 2)


def test_a_text_may_begin_with_a_dash_and_is_printed_as_it_is(runs, capsys):
    code, out, _ = run(f"{runs / 'runs'}@v1", "--text", "-1 [bold]", capsys=capsys)
    assert code == 0
    assert out.startswith("-1 [bold]   ")


def test_nothing_to_predict_is_told(runs, capsys):
    code, _, err = run(f"{runs / 'runs'}@v1", capsys=capsys)
    assert code == 2
    assert "no image and no text is given" in err
    assert '--text "…"' in err


def test_warnings_are_told_in_words(runs, capsys):
    base = f"transformers:{runs / 'bert'}#AutoModelForSequenceClassification"
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        with pytest.raises(SystemExit):
            main(["show", base])
    err = capsys.readouterr().err
    assert err.startswith("warning: ")
    assert "drawn anew" in err
    assert ".py:" not in err
