from __future__ import annotations

import contextlib
import sys
import textwrap
import time

import pytest
import torch
from torch.nn.modules import module as hooks

from torchgraft.errors import SourceError
from torchgraft.profile.clocks import Clocks
from torchgraft.profile.events import OUTSIDE
from torchgraft.profile.script import profile_script
from torchgraft.profile.windows import Windows

NET = """
import argparse, sys, time
import torch
from torch import nn
from torch.utils.data import DataLoader
from sibling import Slow

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
        self.fc = nn.Linear(8, 4)

    def forward(self, x):
        return self.fc(self.body(x).mean((2, 3)))

if __name__ == "__main__":
    ask = argparse.ArgumentParser()
    ask.add_argument("--lr", type=float)
    ask.add_argument("--workers", type=int, default=0)
    ask.add_argument("--sleep", type=float, default=0.0)
    ask.add_argument("--end", default="")
    ask = ask.parse_args()
    print("lr", ask.lr, "argv", sys.argv[1:])
    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), lr=ask.lr)
    loss = nn.CrossEntropyLoss()
    for x, y in DataLoader(Slow(ask.sleep), batch_size=4, num_workers=ask.workers):
        optimizer.zero_grad()
        loss(net(x), y).backward()
        optimizer.step()
    if ask.end == "error":
        raise ValueError("broken on purpose")
    if ask.end == "words":
        sys.exit("said on leaving")
    if ask.end:
        sys.exit(int(ask.end))
"""

SIBLING = """
import time, torch

class Slow(torch.utils.data.Dataset):
    def __init__(self, seconds):
        self.seconds = seconds

    def __len__(self):
        return 24

    def __getitem__(self, place):
        time.sleep(self.seconds)
        return torch.randn(3, 16, 16), place % 4
"""


@pytest.fixture
def script(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sibling.py").write_text(SIBLING)

    def write(text, name="train.py"):
        (tmp_path / name).write_text(textwrap.dedent(text))
        return name

    yield write
    sys.modules.pop("sibling", None)


def codes(found):
    return {one.code for one in found.findings}


def test_a_script_runs_as_main_with_its_own_arguments_and_siblings(script, capfd):
    found, code = profile_script(script(NET), ["--lr", "0.3"])
    assert capfd.readouterr().out == "lr 0.3 argv ['--lr', '0.3']\n"
    assert code == 0
    assert found.script.ended == "finished"
    assert found.script.steps == 6


def test_its_modules_loaders_and_optimizers_are_told(script):
    found, _ = profile_script(script(NET), ["--lr", "0.3"])
    run = found.runs[0]
    parts = {one.path: one for one in run.parts}
    assert {"Net", "Net.body.0", "Net.fc", "CrossEntropyLoss"} <= parts.keys()
    assert parts["Net.body.0"].calls == 6
    assert parts["Net.body.0"].forward > 0
    assert {"data", "forward", "backward", "optimizer"} <= {one.name for one in run.phases if one.seconds}
    assert sum(one.seconds for one in run.phases) == pytest.approx(run.seconds, rel=0.05)


def test_a_script_that_sleeps_in_its_data_waits_for_data(script):
    found, _ = profile_script(script(NET), ["--lr", "0.3", "--sleep", "0.03"])
    assert "M101" in codes(found)
    assert found.runs[0].split.largest == "data"
    first = found.script.functions[0]
    assert first[0].endswith("__getitem__")
    assert first[1] == 24


def test_a_loop_of_small_operations_is_bound_by_python(script):
    loop = """
        import torch
        x = torch.zeros(4)
        for _ in range(60000):
            x = torch.tanh(x) + 1
    """
    found, _ = profile_script(script(loop))
    assert "M102" in codes(found)
    assert found.runs[0].split.largest == "Python"


def test_large_products_are_bound_by_compute(script):
    product = """
        import torch
        w = torch.eye(1200)
        for _ in range(25):
            w = w @ w
    """
    found, _ = profile_script(script(product))
    assert "M104" in codes(found)
    assert found.runs[0].split.largest == "compute"


def test_its_exit_code_is_passed_on(script, capfd):
    name = script(NET)
    assert profile_script(name, ["--lr", "1", "--end", "3"])[1] == 3
    found, code = profile_script(name, ["--lr", "1", "--end", "words"])
    assert code == 1
    assert found.script.ended == "exit code 1"
    assert "said on leaving" in capfd.readouterr().err


def test_its_exception_is_shown_from_its_own_first_line_on(script, capfd):
    found, code = profile_script(script(NET), ["--lr", "1", "--end", "error"])
    err = capfd.readouterr().err
    assert code == 1
    assert found.script.ended == "ValueError: broken on purpose"
    assert 'File "train.py"' in err
    assert "ValueError: broken on purpose" in err
    assert "torchgraft" not in err
    assert found.script.steps == 6


def test_a_wrong_argument_ends_it_as_argparse_does(script, capfd):
    found, code = profile_script(script(NET), ["--nonsense"])
    assert code == 2
    assert "unrecognized arguments" in capfd.readouterr().err
    assert found.findings == found.runs == found.script.functions == ()
    assert "torchgraft profile --to trace.json train.py" in found.notes[-1]


def test_processes_that_load_data_are_fine(script):
    found, code = profile_script(script(NET), ["--lr", "1", "--workers", "2"])
    assert code == 0
    assert found.script.steps == 6


def test_ctrl_c_ends_it_with_what_was_seen(script):
    stopped = """
        import signal
        import torch
        from torch import nn
        signal.signal(signal.SIGINT, signal.default_int_handler)
        net = nn.Linear(64, 64)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        turn = 0
        while True:
            net(torch.zeros(8, 64)).sum().backward()
            optimizer.step()
            turn += 1
            if turn == 30:
                signal.raise_signal(signal.SIGINT)
    """
    found, code = profile_script(script(stopped))
    assert code == 130
    assert "Ctrl-C" in found.script.ended
    assert found.script.steps == 30
    assert [one.path for one in found.runs[0].parts] == ["Linear"]


def test_torch_and_python_are_as_they_were_after(script):
    from torch.utils.data import dataloader

    def now():
        table = (hooks._global_forward_hooks, hooks._global_forward_pre_hooks)
        patched = (torch.autograd.backward, torch.autograd.grad, dataloader._BaseDataLoaderIter.__next__)
        return sys.argv, list(sys.path), sys.modules["__main__"], patched, [len(one) for one in table]

    before = now()
    profile_script(script(NET), ["--lr", "1", "--end", "error"])
    assert now() == before
    assert sys.getprofile() is None


def test_a_script_that_is_not_there_or_is_no_python_is_told(script):
    with pytest.raises(SourceError, match="can't be read"):
        profile_script("missing.py")
    with pytest.raises(SourceError, match="no Python"):
        profile_script(script("for for", "odd.py"))


def test_a_script_may_use_a_profiler_of_its_own(script):
    own = """
        import torch
        from torch import nn
        net = nn.Linear(64, 64)
        for turn in range(3):
            for _ in range(300):
                net(torch.zeros(8, 64)).sum().backward()
            with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
                for _ in range(10):
                    net(torch.zeros(8, 64))
            assert any("addmm" in one.key for one in seen.key_averages())
    """
    found, code = profile_script(script(own))
    assert (code, found.script.ended) == (0, "finished")
    assert found.script.watched > 0


def test_a_step_that_breaks_off_does_not_keep_later_ones_from_being_timed():
    class Picky(torch.optim.SGD):
        def step(self, closure=None):
            if next(breaks):
                raise RuntimeError("not now")
            return super().step()

    breaks, net = iter((False, True, False, False)), torch.nn.Linear(4, 4)
    optimizer, clocks = Picky(net.parameters(), lr=0.1), Clocks()
    with clocks.running():
        for _ in range(4):
            net(torch.zeros(2, 4)).sum().backward()
            with contextlib.suppress(RuntimeError):
                optimizer.step()
    assert clocks.steps == 3
    assert clocks.is_calm


def test_a_torch_that_does_not_tell_of_other_profilers_is_not_watched(script, monkeypatch):
    monkeypatch.setattr("torchgraft.profile.windows._TOLD_BY", ("_no_such_function", "_nor_this_one"))
    found, code = profile_script(script(NET), ["--lr", "1"])
    assert (code, found.script.steps, found.script.watched) == (0, 6, 0)
    assert any("does not tell" in note for note in found.notes)


def test_processes_that_are_started_afresh_find_the_script(script):
    spawned = NET.replace("num_workers=ask.workers", "num_workers=ask.workers, multiprocessing_context='spawn'")
    found, code = profile_script(script(spawned), ["--lr", "1", "--workers", "1"])
    assert (code, found.script.ended) == (0, "finished")
    assert found.script.steps == 6


def test_a_compiled_by_script_module_and_a_thread_do_no_harm(script):
    mixed = """
        import threading
        import torch
        from torch import nn
        net = torch.jit.script(nn.Sequential(nn.Linear(8, 8), nn.ReLU()))
        other = nn.Linear(8, 8)
        def work():
            for _ in range(50):
                other(torch.zeros(2, 8)).sum().backward()
        thread = threading.Thread(target=work)
        thread.start()
        for _ in range(50):
            net(torch.zeros(2, 8)).sum().backward()
        thread.join()
    """
    found, code = profile_script(script(mixed))
    assert (code, found.script.ended) == (0, "finished")


SHORT = """
    import time
    import torch
    from torch import nn
    time.sleep({sleep})
    net = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    for _ in range({steps}):
        net(torch.zeros(2, 4)).sum().backward()
        optimizer.step()
"""


@pytest.mark.parametrize("steps", [1, 3])
def test_a_few_steps_get_no_verdict_and_no_figure_is_negative(script, steps):
    found, _ = profile_script(script(SHORT.format(sleep=0.3, steps=steps)))
    run = found.runs[0]
    assert run.too_few
    assert found.findings == ()
    assert any("too few" in note for note in found.notes)
    assert run.seconds > 0
    assert {"forward", "backward", "optimizer"} <= {one.name for one in run.phases}
    assert all(one.seconds >= 0 for one in (*run.phases, *run.parts, run.outside))


def test_what_comes_before_the_first_step_is_no_part_of_a_step(script):
    found, _ = profile_script(script(SHORT.format(sleep=2, steps=8)))
    run = found.runs[0]
    assert found.script.before >= 2
    assert run.seconds == pytest.approx(found.script.seconds - found.script.before, abs=1e-6)
    assert sum(one.seconds for one in run.phases) <= run.seconds * 1.000001
    assert 0 < run.each <= run.seconds / 3  # the median of seven that add up to less than all


def test_a_step_is_the_median_of_those_after_the_first_without_what_torchgraft_took():
    clocks = Clocks()
    net = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)

    def opened(updated):  # a window that takes long to open
        if updated:
            clocks.away += 1000.0

    clocks.calm = opened
    with clocks.running():
        for _ in range(4):
            net(torch.zeros(1, 2)).sum().backward()
            time.sleep(0.01)
            optimizer.step()
    assert len(clocks.gaps) == clocks.steps - 1 == 3
    assert all(one < -900 for one in clocks.gaps)  # these seconds did not really pass


def test_a_window_that_is_closed_while_the_clock_ticks_is_closed_once(machine, monkeypatch):
    from torchgraft.profile import windows

    one, own = Windows(Clocks(), machine), windows.stop

    def ticks(made):
        one.look(False)
        return own(made)

    monkeypatch.setattr(windows, "stop", ticks)
    one.look(False)
    one.close()
    assert one._open is None
    assert not one._busy


def test_what_windows_saw_before_the_script_was_at_work_is_forgotten(machine):
    one = Windows(Clocks(), machine)
    one.look(False)
    torch.zeros(4).add_(1)
    one.close()
    assert one.seconds > 0
    assert one.ledger.of("other", OUTSIDE).between > 0
    one.clocks._begin()
    one.look(False)
    one._drop()
    assert one.seconds == 0
    assert not one.ledger.sums


def test_imports_are_one_line_of_the_functions(script, tmp_path):
    (tmp_path / "late_import.py").write_text("def busy():\n    return sum(n for n in range(200_000))\nbusy()\n")
    found, _ = profile_script(script("import late_import\ndef own():\n    return 1\nown()\n"))
    sys.modules.pop("late_import")
    rows = {name: calls for name, calls, *_ in found.script.functions}
    assert found.script.functions[-1][0] == "imports of modules"
    assert rows["imports of modules"] == 1
    assert not any("late_import" in name or "importlib" in name for name in rows)
    assert any(name.endswith(" own") for name in rows)
