from __future__ import annotations

import pytest

from torchgraft import yamlfile
from torchgraft.errors import RecipeError


@pytest.mark.parametrize(
    ("text", "what", "where", "do"),
    [
        ("a: 1\nb:\n  c: 1\n  c: 2", "the key 'c' stands twice", "r.yaml:4", "the first is in line 3"),
        ("{a: 1, a: 1}", "the key 'a' stands twice", "r.yaml:1", "keep one"),
        ("a: 1\nb: " + "[" * 5000 + "]" * 5000, "nested more than 64 deep", "r.yaml:2", "brackets"),
        ("a: 1\nb: " + "1" * 5000, "5000 characters", "r.yaml:2", "quote it"),
        ("a: 1\n\n\nb: \x07", "the character U+0007 is not allowed", "r.yaml:4", ""),
        ("a: !!int x", "'x' can't be read as int", "r.yaml:1", "quote it"),
        ("a: !!timestamp x", "'x' can't be read as timestamp", "r.yaml:1", "quote it"),
        ("a: !!python/object:os.system x", "this is not YAML", "r.yaml:1", ""),
        ("a: [1, 2", "this is not YAML", "r.yaml:1", ""),
    ],
)
def test_what_can_not_be_read_is_told_with_its_line(text, what, where, do):
    with pytest.raises(RecipeError) as refused:
        yamlfile.read(text, "r.yaml")
    assert what in refused.value.what
    assert refused.value.where == where
    assert do in refused.value.hint


@pytest.mark.parametrize("text", ["**", "[1, 2", "a: b: c", "[" * 5000, "1" * 5000])
def test_a_value_that_is_not_yaml_is_the_plain_text(text):
    assert yamlfile.value(text) == text


def test_keys_of_different_mappings_may_be_the_same():
    assert yamlfile.read("- {a: 1}\n- {a: 2}", "r.yaml").data == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize(
    "text", ["0E0", "1e-3", "true", "null", "~", "007", ".5", "-.inf", "no", "1_000", "0x10", ""]
)
def test_text_that_looks_like_something_else_is_written_so_that_it_stays_text(text):
    assert yamlfile.read(yamlfile.dump({"key": text}), "r.yaml").data == {"key": text}
