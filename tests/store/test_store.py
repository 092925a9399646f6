"""Versions are kept, found and opened again bit for bit, whatever the disk or the user does meanwhile."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from safetensors.torch import load_file
from store_states import NAMES, WITH_DISK, of_bytes, same, states, tensors

from torchgraft.errors import StoreError, TorchgraftWarning
from torchgraft.history import Epoch, History
from torchgraft.store import Manifest, Store, digest, state_digest
from torchgraft.store.files import explained

RECIPE = "torchgraft: 1\nbase: bundled:digits\nedits: []  # größer, 更大\n"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "versions of mine")


def keep(store: Store, state=None, **more) -> Manifest:
    return store.keep(recipe=RECIPE, base="bundled:digits", state=state or {"w": torch.randn(3)}, **more)


def files(store: Store, pattern: str = "*") -> set[Path]:
    return {each for each in store.root.rglob(pattern) if each.is_file() and each.name != ".lock"}


# what is kept


@WITH_DISK
@given(states())
def test_any_state_comes_back_bit_for_bit(state):
    with TemporaryDirectory() as folder:
        store = Store(folder)
        keep(store, state or {"none": torch.empty(0)})
        loaded = store.tensors(store.find("latest"))
        assert all(same(loaded[name], state[name]) for name in state)
        assert store.verify() == []


@WITH_DISK
@given(states(), states(), st.data())
def test_base_and_stored_tensors_make_up_the_state(base, own, data):
    shared = data.draw(st.lists(st.sampled_from(sorted(base)), unique=True)) if base else []
    names = {f"moved.{name}": name for name in shared}
    state = {**own, **{moved: base[name].clone() for moved, name in names.items()}}
    assume(state)
    with TemporaryDirectory() as folder:
        store = Store(folder)
        kept = keep(store, state, base_state=base, base_names=names)
        assert not names.keys() & kept.tensors.keys()
        loaded = {name: base[names.get(name, name)] for name in state if name not in kept.tensors}
        loaded |= store.tensors(kept)
        assert all(same(loaded[name], state[name]) for name in state)
        assert kept.base_digest == state_digest(base)


@WITH_DISK
@given(states())
def test_ties_come_back_as_ties_and_equal_values_do_not_become_one(state):
    with TemporaryDirectory() as folder:
        store = Store(folder)
        state = {**state, "a": torch.zeros(2), "b": torch.zeros(2)}
        loaded = store.tensors(keep(store, state))
        filled = [name for name in state if state[name].numel()]
        for one in filled:
            for other in filled:
                assert (loaded[one].data_ptr() == loaded[other].data_ptr()) == (state[one] is state[other])


def test_everything_said_about_a_version_comes_back(store):
    epoch = Epoch(
        number=1, train_loss=math.inf, train_accuracy=0.1, val_loss=2, val_accuracy=0.5, lr=1e-3, seconds=1
    )
    kept = keep(
        store,
        classes=["größer", "小"],
        metrics={"accuracy": 0.5, "loss": 1 / 3},
        history=History(epochs=(epoch,), best=1, seconds=2.5),
        note="the first",
    )
    assert store.versions() == [kept]
    assert kept.recipe == RECIPE
    assert (store.root / "versions" / f"{kept.id}.yaml").read_bytes().decode() == RECIPE
    assert kept.created.endswith("+00:00")
    assert (kept.number, len(kept.id), kept.base_digest) == (1, 10, "")


def test_figures_that_are_not_finite_are_kept_as_strict_json(store):
    kept = keep(store, metrics={"loss": math.nan, "perplexity": math.inf, "low": -math.inf})
    text = (store.root / "versions" / f"{kept.id}.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail)["metrics"]["loss"] == "nan"
    metrics = store.find("v1").metrics
    assert math.isnan(metrics["loss"])
    assert (metrics["perplexity"], metrics["low"]) == (math.inf, -math.inf)


def test_only_what_differs_from_the_base_is_stored(store):
    base = {"stem": torch.randn(50), "head": torch.randn(5), "gone": torch.ones(1)}
    kept = keep(store, {"stem": base["stem"].clone(), "head": torch.randn(5)}, base_state=base)
    assert set(kept.tensors) == {"head"}
    assert len(files(store, "*.safetensors")) == 1


def test_a_tensor_in_two_versions_is_stored_once(store):
    stem = torch.randn(5)
    first = keep(store, {"stem": stem, "head": torch.zeros(1)})
    second = keep(store, {"stem": stem.clone(), "head": torch.ones(1)})
    assert first.tensors["stem"] == second.tensors["stem"]
    assert len(files(store, "*.safetensors")) == 3


def test_a_tie_that_differs_from_the_base_under_one_name_is_stored_under_both(store):
    weight = torch.randn(3)
    base = {"embed": weight, "head": torch.randn(3)}
    kept = keep(store, {"embed": weight, "head": weight}, base_state=base)
    assert kept.aliases == {"head": "embed"}
    assert set(kept.tensors) == {"embed", "head"}
    loaded = store.tensors(kept)
    assert loaded["embed"] is loaded["head"]


def test_a_tie_that_is_the_same_as_in_the_base_is_said_but_not_stored(store):
    weight = torch.randn(3)
    state = {"embed": weight, "head": weight}
    kept = keep(store, state, base_state=state)
    assert (kept.aliases, kept.tensors) == ({"head": "embed"}, {})


def test_an_object_is_a_safetensors_file_under_its_digest(store):
    value = torch.arange(3.0)
    keep(store, {"w": value})
    name = digest(value)
    assert same(load_file(store.root / "objects" / name[:2] / f"{name}.safetensors")["tensor"], value)


def test_writing_into_an_opened_tensor_leaves_the_store_alone(store):
    keep(store, {"w": torch.ones(5000)})
    store.tensors(store.find("v1"))["w"].zero_()
    assert store.verify() == []


# digests


@WITH_DISK
@given(tensors(), tensors())
def test_digests_are_the_same_exactly_when_the_bytes_are(one, other):
    assert (digest(one) == digest(other)) == same(one, other)


@WITH_DISK
@given(st.dictionaries(NAMES, tensors(), max_size=4), st.randoms())
def test_the_order_of_names_does_not_change_a_states_digest(state, random):
    names = list(state)
    random.shuffle(names)
    assert state_digest(state) == state_digest({name: state[name] for name in names})


def test_numbers_that_compare_equal_or_never_are_told_apart_by_their_bits():
    assert digest(torch.tensor(0.0)) != digest(torch.tensor(-0.0))
    quiet, other = (of_bytes(bytes([low, 0, 0xC0, 0x7F]), torch.float32, ()) for low in (0, 1))
    assert quiet.isnan()
    assert other.isnan()
    assert digest(quiet) != digest(other)
    assert digest(quiet) == digest(quiet.clone())


def test_dtype_and_shape_count_as_well_as_bytes():
    zeros = [
        torch.zeros(4),
        torch.zeros(2, 2),
        torch.zeros(4, dtype=torch.int32),
        torch.zeros(0),
        torch.zeros(0, 3),
    ]
    assert len({digest(each) for each in zeros}) == len(zeros)


def test_a_name_counts_in_a_states_digest():
    assert state_digest({"a": torch.ones(1)}) != state_digest({"b": torch.ones(1)})


def test_a_conjugated_view_is_no_tie_of_what_it_shows(store):
    value = torch.tensor([1 + 2j])
    kept = keep(store, {"z": value, "conjugate": value.conj()})
    assert kept.aliases == {}
    assert same(store.tensors(kept)["conjugate"], torch.tensor([1 - 2j]))


def test_overlapping_views_are_stored_as_tensors_of_their_own(store):
    whole = torch.arange(6.0)
    kept = keep(store, {"whole": whole, "part": whole[:3], "turned": whole.view(2, 3).t()})
    assert kept.aliases == {}
    assert same(store.tensors(kept)["turned"], whole.view(2, 3).t())


@pytest.mark.cuda
def test_a_tensor_on_the_device_is_stored_as_on_the_cpu(store):
    value = torch.randn(3, 4)
    assert digest(value.cuda().t()) == digest(value.t())
    kept = keep(store, {"w": value.cuda(), "tied": value.cuda()})
    assert same(store.tensors(kept)["w"], value)


def fake() -> torch.Tensor:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        return torch.ones(2)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: torch.ones(2, device="meta"), "is on meta"),
        (lambda: torch.nn.Parameter(torch.ones(2, device="meta")), "is on meta"),
        (fake, "is a FakeTensor"),
        (torch.nn.UninitializedParameter, "waits for its first batch"),
        (lambda: torch.eye(2).to_sparse(), "sparse"),
        (lambda: b"extra state", "is a bytes"),
        (lambda: torch.ones(2, dtype=torch.complex128), "has no complex128"),
    ],
)
def test_what_has_no_plain_values_is_refused_by_name(store, make, why):
    keep(store)
    before = files(store)
    with pytest.raises(StoreError, match=why) as refusal:
        keep(store, {"fine": torch.ones(1), "layer.weight": make()})
    assert refusal.value.where == "layer.weight"
    assert files(store) == before


# finding a version


def test_a_store_that_is_not_there_has_no_versions(store):
    assert store.versions() == []
    assert store.verify() == []
    assert not store.root.exists()
    with pytest.raises(StoreError, match="no version is kept here"):
        store.find("latest")


def test_a_version_is_found_by_number_id_prefix_and_word(store):
    first = keep(store, metrics={"accuracy": 0.9})
    second = keep(store, metrics={"accuracy": 0.2})
    third = keep(store, metrics={"accuracy": math.nan})
    assert [each.number for each in store.versions()] == [1, 2, 3]
    assert store.find("v2") == store.find(second.id) == store.find(second.id[:9]) == second
    assert store.find("latest").id == third.id  # NaN is not equal to itself
    assert store.find("best") == first


def test_of_two_best_versions_the_newer_is_given(store):
    keep(store, metrics={"accuracy": 0.5})
    newer = keep(store, metrics={"accuracy": 0.5})
    keep(store)
    assert store.find("best") == newer


def test_best_needs_an_accuracy(store):
    keep(store)
    with pytest.raises(StoreError, match="no version has a figure for its accuracy"):
        store.find("best")


def test_an_unknown_version_names_the_nearest_and_the_others(store):
    kept = keep(store)
    with pytest.raises(StoreError, match="there is no version 'lates'") as refusal:
        store.find("lates")
    assert "did you mean latest?" in refusal.value.hint
    assert f"v1 ({kept.id})" in refusal.value.hint


@pytest.mark.parametrize("reference", ["", "v", "v0", "v2", "V1", "../v1", "zz"])
def test_what_names_no_version_is_refused(store, reference):
    keep(store)
    with pytest.raises(StoreError, match="there is no version"):
        store.find(reference)


def test_a_prefix_of_several_versions_lists_them(store):
    kept = [
        keep(store, {"w": torch.zeros(1)}) for _ in range(17)
    ]  # of 17 ids, two begin with the same of 16 digits
    first = [each.id[0] for each in kept]
    twice = next(each for each in first if first.count(each) > 1)
    with pytest.raises(StoreError, match=rf"'{twice}' could be \d+ versions") as refusal:
        store.find(twice)
    assert all(each.id in refusal.value.hint for each in kept[-8:] if each.id.startswith(twice))


def test_a_class_named_by_a_badly_encoded_folder_is_kept(store):
    keep(store, classes=["caf\udce9"])
    assert store.find("v1").classes == ("caf\udce9",)
    assert store.verify() == []


def test_a_description_of_the_wrong_type_is_refused(store):
    with pytest.raises(StoreError, match="can't be described"):
        keep(store, metrics={"accuracy": "good"})
    assert store.versions() == []


# damage


def damages(path: Path) -> Iterator[bytes]:
    whole = path.read_bytes()
    yield b""
    yield whole[: len(whole) // 2]
    yield whole[:-1] + bytes([whole[-1] ^ 1])


def test_a_damaged_object_is_named(store):
    kept = keep(store, {"w": torch.randn(3)})
    (path,) = files(store, "*.safetensors")
    for damage in damages(path):
        path.write_bytes(damage)
        with pytest.raises(StoreError, match="damaged") as refusal:
            store.tensors(kept)
        assert refusal.value.where == str(path)
        assert [str(path) in each and each.startswith("v1 ") for each in store.verify()] == [True]


def test_a_missing_object_is_named(store):
    kept = keep(store)
    (path,) = files(store, "*.safetensors")
    path.unlink()
    with pytest.raises(StoreError, match="missing") as refusal:
        store.tensors(kept)
    assert refusal.value.where == str(path)
    assert len(store.verify()) == 1


def test_keeping_a_tensor_again_mends_its_damaged_object(store):
    value = torch.randn(3)
    keep(store, {"w": value})
    (path,) = files(store, "*.safetensors")
    path.write_bytes(b"torn")
    keep(store, {"w": value})
    assert store.verify() == []


def test_a_damaged_manifest_is_named_and_the_other_versions_stay(store):
    first, second = keep(store), keep(store)
    path = store.root / "versions" / f"{second.id}.json"
    for damage in [
        *damages(path),
        path.read_bytes().replace(b'"note": ""', b'"note": "no"'),
        b"[]",
        b'{"id": "x"}',
    ]:
        path.write_bytes(damage)
        with pytest.warns(TorchgraftWarning, match=f"manifest is damaged(.|\n)*{second.id}"):
            assert store.versions() == [first]
        assert [str(path) in each for each in store.verify()] == [True]


def test_a_manifest_under_another_name_is_refused(store):
    kept = keep(store)
    path = store.root / "versions" / f"{kept.id}.json"
    path.rename(path.with_name("0123456789.json"))
    with pytest.warns(TorchgraftWarning, match="its id is not that of its content"):
        assert store.versions() == []


def test_a_digest_that_leads_out_of_the_store_is_refused(store):
    kept = keep(store)
    path = store.root / "versions" / f"{kept.id}.json"
    path.write_text(path.read_text().replace(kept.tensors["w"], "../../../../etc/passwd"))
    with pytest.warns(TorchgraftWarning, match="damaged"):
        assert store.versions() == []


def test_a_changed_recipe_is_noticed(store):
    kept = keep(store)
    (store.root / "versions" / f"{kept.id}.yaml").write_text("torchgraft: 1\n")
    assert ["recipe is missing or was changed" in each for each in store.verify()] == [True]


def test_what_killed_processes_left_is_removed_after_an_hour(store):
    keep(store, {"w": torch.ones(1)})
    rests = [
        store.root / "objects" / "ab" / f"{'ab' * 32}.safetensors",
        store.root / "objects" / "ab" / ".x.0000.tmp",
        store.root / "versions" / ".x.0000.tmp",
        store.root / "versions" / "0123456789.yaml",
    ]
    whole = files(store)
    for each in rests:
        each.parent.mkdir(exist_ok=True)
        each.write_bytes(b"torn")
    keep(store, {"w": torch.ones(1)})
    assert set(rests) < files(store)
    for each in whole | set(rests):
        os.utime(each, (time.time() - 4000,) * 2)
    keep(store, {"w": torch.ones(1)})
    assert not set(rests) & files(store)
    assert whole < files(store)
    assert store.verify() == []


def test_nothing_is_removed_while_a_manifest_can_not_be_read(store):
    kept = keep(store)
    (orphan,) = files(store, "*.safetensors")
    (store.root / "versions" / f"{kept.id}.json").write_bytes(b"torn")
    os.utime(orphan, (time.time() - 4000,) * 2)
    keep(store)
    assert orphan.exists()


# many at once, and death at any moment


def test_threads_that_keep_at_once_get_numbers_of_their_own(store):
    with ThreadPoolExecutor(4) as pool:
        kept = list(pool.map(lambda index: keep(store, {"w": torch.full((3,), index)}), range(12)))
    assert sorted(each.number for each in kept) == list(range(1, 13))
    assert store.verify() == []


KILLED = """
import os, random, signal, sys, time
import torch
from torchgraft.store import Store, load_state, save_state

torch.set_num_threads(1)
store, last = Store(sys.argv[1]), sys.argv[1] + "/last.safetensors"

def save_for_ever():
    torch.manual_seed(os.getpid())
    while True:
        state = {str(index): torch.randn(20_000) for index in range(4)}
        store.keep(recipe="r", base="b", state=state)
        save_state(last, state, {})

def versions():
    assert store.verify() == [], store.verify()
    return {each.id: each for each in store.versions()}

save_state(last, {}, {})
before, torn = versions(), 0
for _ in range(20):
    child = os.fork()
    if not child:
        save_for_ever()
    time.sleep(random.uniform(0.005, 0.12))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    after = versions()
    assert before.items() <= after.items()
    before = after
    load_state(last)
objects = sum(1 for _ in store.root.glob("objects/*/[!.]*"))
rests = sum(1 for _ in store.root.rglob(".*.tmp"))
print(len(after), objects - 4 * len(after), rests)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_twenty_kills_leave_every_listed_version_whole(tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    versions, orphans, rests = map(int, done.stdout.split())
    assert versions > 0
    assert orphans + rests > 0, "no kill fell into a save"


# a disk that refuses


@contextlib.contextmanager
def mounted(folder: Path, options: str) -> Iterator[None]:
    """Lay a small file system in memory over a folder, where the test may do that."""
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting is not allowed here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_keeps_what_was_kept_and_says_how_much_is_needed(tmp_path):
    with mounted(tmp_path / "small", "size=2m"):
        store = Store(tmp_path / "small")
        first = keep(store, {"w": torch.randn(50_000)})
        before = files(store)
        with pytest.raises(StoreError, match="the disk is full") as refusal:
            keep(store, {"a": torch.randn(300_000), "b": torch.randn(300_000)})
        assert "2.40 MB are needed, 1." in refusal.value.hint
        assert refusal.value.where == str(store.root)
        assert files(store) == before
        assert store.versions() == [first]
        assert store.verify() == []
        keep(store, {"w": torch.randn(50_000)})


def test_a_disk_that_fills_up_between_objects_and_manifest_is_cleared_again(tmp_path):
    with mounted(tmp_path / "small", "size=1m"):
        store = Store(tmp_path / "small")
        keep(store)
        before = files(store)
        with pytest.raises(StoreError, match="the disk is full"):
            keep(store, {"w": torch.randn(150_000)}, note="long" * 150_000)
        assert files(store) == before


def test_a_read_only_folder_is_refused(tmp_path):
    with mounted(tmp_path / "closed", "ro"), pytest.raises(StoreError, match="the folder is read-only"):
        keep(Store(tmp_path / "closed"))


NO_RIGHT = """
import os, sys
from torchgraft.errors import StoreError
from torchgraft.store.files import explained, make_folder
if os.geteuid() == 0:
    os.setuid(65534)
try:
    with explained("the version can't be kept", sys.argv[1]):
        make_folder(__import__("pathlib").Path(sys.argv[1]))
except StoreError as error:
    print(error)
"""


def test_a_folder_without_the_right_to_write_is_refused(tmp_path):
    """In a process of its own, which gives up the rights of root where it has them."""
    tmp_path.chmod(0o555)
    done = subprocess.run(
        [sys.executable, "-c", NO_RIGHT, str(tmp_path / "store")], capture_output=True, text=True
    )
    assert "you have no right to it" in done.stdout, done.stderr


def test_a_root_that_is_a_file_is_refused_and_left_alone(tmp_path):
    (tmp_path / "file").write_text("mine")
    for root in (tmp_path / "file", tmp_path / "file" / "below"):
        for call in (keep, Store.versions, Store.verify):
            with pytest.raises(StoreError, match="a file stands where a folder should be"):
                call(Store(root))
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_every_kind_of_full_disk_says_what_is_needed(tmp_path, code):
    with (
        pytest.raises(StoreError, match=r"12\.00 MB are needed"),
        explained("no", tmp_path, needed=12_000_000),
    ):
        raise OSError(code, os.strerror(code))


LIMITED = """
import resource, signal, sys, torch
from torchgraft.errors import StoreError
from torchgraft.store import Store
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = Store(sys.argv[1])
store.keep(recipe="", base="b", state={"w": torch.ones(100)})
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    store.keep(recipe="", base="b", state={"small": torch.zeros(100), "w": torch.ones(1_000_000)})
except StoreError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on file sizes")
def test_an_object_over_the_size_limit_leaves_nothing_behind(store):
    command = [sys.executable, "-c", LIMITED, str(store.root)]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "limit on file sizes" in told
    assert "4.00 MB are needed" in told
    assert len(files(store)) == 3
    assert [each.number for each in store.versions()] == [1]
    assert store.verify() == []


# the door


def test_listing_versions_does_not_import_torch(store):
    keep(store)
    script = (
        "import sys; from torchgraft.store import Store; from pathlib import Path;"
        "store = Store(Path(sys.argv[1])); print(store.find('latest').number, len(store.versions()));"
        "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(store.root)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "1 1\n")
