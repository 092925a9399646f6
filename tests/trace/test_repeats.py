from __future__ import annotations

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional

from torchgraft.trace import Tracer, trace
from torchgraft.trace.repeats import asked, made_again, made_of


class Busy(nn.Module):
    """The same operations again and again, on tensors of the same geometry and of another."""

    def forward(self, x):
        for _ in range(3):
            y = torch.cat([torch.tensor([], dtype=x.dtype), x.flatten()]).view(x.shape)
            x = (x + y.transpose(1, 2).contiguous().transpose(1, 2))[..., : x.shape[-1]] * 0.5
            x = functional.relu(x)
            x[:, :1] += 1
        return x.softmax(-1) @ x.transpose(1, 2), x.reshape(-1)[2:]


class Chosen(nn.Module):
    def forward(self, x):
        return x[torch.tensor(1)] if x.shape[0] > 1 else x


@pytest.mark.parametrize("shape", [(2, 3, 4), (1, 5, 5)])
def test_what_is_made_again_is_what_running_it_would_give(shape):
    quick, whole = trace(Busy(), torch.zeros(shape)), trace(Busy(), torch.zeros(shape), cached=False)
    assert quick == whole


def test_another_geometry_is_run_anew():
    tracer = Tracer(Busy())
    for shape in [(2, 3, 4), (2, 4, 3), (2, 3, 4), (4, 3, 2)]:
        assert tracer.trace(torch.zeros(shape)) == trace(Busy(), torch.zeros(shape), cached=False)


@pytest.mark.parametrize("kind", [torch.float16, torch.float64])
def test_another_dtype_is_run_anew(kind):
    tracer = Tracer(Busy())
    tracer.trace(torch.zeros(2, 3, 4))
    assert tracer.trace(torch.zeros(2, 3, 4, dtype=kind)) == trace(
        Busy(), torch.zeros(2, 3, 4, dtype=kind), cached=False
    )


def test_autocast_is_told_apart():
    class Cast(nn.Module):
        def forward(self, x):
            once = x @ x
            with torch.autocast("cpu", torch.bfloat16):
                return once, x @ x

    run = trace(Cast(), torch.zeros(3, 3))
    assert [run.values[number].dtype for number in run.outputs] == ["float32", "bfloat16"]


def test_an_index_whose_value_is_known_is_read():
    assert trace(Chosen(), torch.zeros(3, 2)).output_shapes() == [(2,)]


def test_a_view_made_again_lies_in_the_storage_that_it_is_a_view_of():
    with FakeTensorMode() as mode:
        x, other = torch.zeros(4, 6), torch.zeros(4, 6)
        given: list[torch.Tensor] = []
        key = asked(torch.Tensor.__getitem__, (x, (slice(1, 3), slice(2, None))), {}, given)
        made = made_of(x[1:3, 2:], given, 0)
        again: list[torch.Tensor] = []
        assert asked(torch.Tensor.__getitem__, (other, (slice(1, 3), slice(2, None))), {}, again) == key
    view = made_again(mode, made, again)
    assert (view.shape, view.stride(), view.storage_offset()) == ((2, 4), (6, 1), 8)
    assert view.untyped_storage()._cdata == other.untyped_storage()._cdata


def test_what_was_changed_in_place_is_not_remembered():
    with FakeTensorMode():
        x = torch.zeros(3)
        assert made_of(functional.relu(x, inplace=True), [x], 0) is None


@pytest.mark.filterwarnings("ignore:Sparse CSR")
def test_sparse_tensors_have_no_strides_to_tell_them_by_and_are_run():
    class Rows(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.ReLU()

        def forward(self, x):
            rows = x.to_sparse_csr()
            return [torch.matmul(self.inner(rows), x.t()) for _ in range(2)]

    quick, whole = trace(Rows(), torch.zeros(2, 8)), trace(Rows(), torch.zeros(2, 8), cached=False)
    assert quick == whole
    assert quick.mismatch is None
    assert quick.output_shapes() == [(2, 2), (2, 2)]
