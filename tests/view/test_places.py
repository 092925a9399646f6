"""A file that is not ours is never written over."""

from __future__ import annotations

import io

import pytest
from PIL import Image, PngImagePlugin

from torchgraft.errors import StoreError
from torchgraft.view.canvas import png
from torchgraft.view.places import MARKS, check_place, is_ours, marked_png

FOREIGN = {
    ".svg": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
    ".html": b'<!doctype html><meta name="generator" content="Hugo">',
    ".dot": b"digraph model {}",
    ".json": b'{"version": 1, "title": "mine", "traceEvents": []}',
}


def picture(**texts: str) -> bytes:
    held, buffer = PngImagePlugin.PngInfo(), io.BytesIO()
    for name, text in texts.items():
        held.add_text(name, text)
    Image.new("RGB", (3, 2), "red").save(buffer, "PNG", pnginfo=held)
    return buffer.getvalue()


FOREIGN[".png"] = picture(Software="Matplotlib", Comment="Software: torchgraft")


@pytest.mark.parametrize("ending", MARKS)
def test_a_file_of_the_users_own_is_not_ours(tmp_path, ending):
    path = tmp_path / f"mine{ending}"
    path.write_bytes(FOREIGN[ending])
    assert not is_ours(path)
    with pytest.raises(StoreError, match="would be lost") as refused:
        check_place(path)
    assert "name another file" in refused.value.hint
    assert path.read_bytes() == FOREIGN[ending]


def test_a_marked_picture_is_ours_and_looks_the_same(tmp_path):
    path = tmp_path / "one.png"
    path.write_bytes(marked_png(picture(Comment="another chunk")))
    assert is_ours(path)
    with Image.open(path) as image:
        image.load()
        assert image.info["Software"] == "torchgraft"
        assert image.getpixel((0, 0)) == (255, 0, 0)
    path.write_bytes(png(Image.new("RGB", (3, 2))))
    assert is_ours(path), "every picture of the canvas is marked"


def test_a_truncated_picture_is_not_ours(tmp_path):
    path = tmp_path / "one.png"
    path.write_bytes(marked_png(picture())[:40])
    assert not is_ours(path)


def test_a_missing_or_empty_file_costs_nothing(tmp_path):
    (tmp_path / "empty.svg").touch()
    assert check_place(tmp_path / "empty.svg") == ".svg"
    assert check_place(tmp_path / "new.PNG") == ".png"


def test_what_is_read_is_not_written_over_under_any_name(tmp_path):
    path = tmp_path / "one.png"
    path.write_bytes(marked_png(picture()))
    (tmp_path / "two.png").symlink_to(path)
    with pytest.raises(StoreError, match="the file that is read"):
        check_place(tmp_path / "two.png", inputs=[tmp_path / "none.png", path])
