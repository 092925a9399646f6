from __future__ import annotations

import pytest
import torch
from rich.table import Table

import torchgraft as tg
from torchgraft.cli import main
from torchgraft.cli.console import complain, console, say
from torchgraft.errors import TorchgraftError

ODD = "[/x] [red]rosy[/red] :smile: [bold"


def test_what_a_user_wrote_is_printed_as_it_is(capsys):
    table = Table("note", box=None)
    table.add_row(ODD)
    console().print(table)
    console().print(ODD)
    say("word", ODD)
    complain(TorchgraftError(ODD, ODD, ODD))
    done = capsys.readouterr()
    assert done.out.count(ODD) == 3
    assert done.err.count(ODD) == 3


@pytest.mark.parametrize("note", [ODD, "two\nlines"])
def test_a_note_of_any_words_is_listed(note, capsys, tmp_path):
    torch.manual_seed(0)
    tg.load(torch.nn.Linear(2, 2), input=(2,)).save(tmp_path, note=note)
    with pytest.raises(SystemExit) as left:
        main(["log", str(tmp_path)])
    assert left.value.code == 0
    printed = capsys.readouterr().out
    assert all(line in printed for line in note.splitlines())
