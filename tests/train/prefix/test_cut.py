"""Where a model comes apart, in words and in bytes."""

from __future__ import annotations

import torch
from tests.train.prefix.nets import Auxiliary, Branches, frozen_but
from torchvision import models

from torchgraft.train.prefix import prefix_of


def test_the_cut_is_told_in_words_and_bytes():
    model = frozen_but(models.resnet18(num_classes=3), "fc", "layer4")
    found = prefix_of(model, torch.randn(4, 3, 64, 64))
    assert found.words == "after layer3: [256, 4, 4], 16.4 kB a sample"
    assert found.size == 256 * 4 * 4 * 4
    assert found.skipped == ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3")


def test_only_the_row_that_is_read_is_kept():
    model = frozen_but(models.VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=3), "heads")
    assert (
        prefix_of(model, torch.randn(4, 3, 32, 32)).words == "after __getitem__ in the model: [16], 64 B a sample"
    )


def test_evaluation_has_a_cut_of_its_own():
    model = frozen_but(Auxiliary(), "head", "aux")
    training = prefix_of(model, torch.randn(8, 16))
    with torch.no_grad():
        evaluation = prefix_of(model.eval(), torch.randn(8, 16))
    assert [piece.after for piece in training.pieces] == ["relu_ in the model", "relu_ in the model"]
    assert [piece.after for piece in evaluation.pieces] == ["drop"]


def test_an_input_that_is_read_again_is_kept_too():
    found = prefix_of(frozen_but(Branches(), "right", "head"), torch.randn(4, 3, 32, 32))
    assert [piece.after for piece in found.pieces] == ["the input", "left"]


def test_a_smaller_batch_sees_its_own_shapes():
    class Viewed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = torch.nn.Linear(16, 16), torch.nn.Linear(8, 3)

        def forward(self, x):
            x = self.body(x)
            count, width = x.shape
            parts = x.view(count, 2, width // 2)
            return self.head(parts).reshape(len(parts), -1)

    model, data = frozen_but(Viewed(), "head"), torch.randn(12, 16)
    found = prefix_of(model, data[:8], sizes={8, 4})
    for part in (data[:8], data[8:]):
        output, rows = found.first(model, part)
        assert torch.equal(found.rest(model, rows), output)
        assert output.shape == (len(part), 6)
