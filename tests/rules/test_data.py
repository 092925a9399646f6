from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models import resnet18

import torchgraft as tg

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(8, 6, generator=GENERATOR)
CLASSES = torch.arange(8) % 3
IMAGES = torch.randn(8, 3, 16, 16, generator=GENERATOR)


def found(model, data, **settings):
    return {finding.code: finding for finding in tg.check(model, data=data, **settings)}


def linear():
    torch.manual_seed(0)
    return nn.Linear(6, 3)


def convolutions():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)
    )


def trained_norm():
    model = convolutions()
    model.train()
    for _ in range(60):
        model(IMAGES)
    return model.eval()


@pytest.mark.parametrize(
    ("labels", "hint"),
    [
        (CLASSES + 1, "subtract 1 from every label"),
        (CLASSES - 1, "labels that do not count: give the loss ignore_index=-1"),
        (torch.tensor([0, 1, 2, 7] * 2), "head(8), or correct the labels"),
        (torch.tensor([0, 1, 2, 255] * 2), "255 often marks what does not count: give the loss ignore_index=255"),
    ],
)
def test_labels_out_of_range_are_told_with_what_to_do(labels, hint):
    told = found(linear(), (X, labels), loss=nn.CrossEntropyLoss())
    assert told["D002"].hint == hint
    assert "T001" not in told


def test_labels_that_the_loss_leaves_out_do_not_count():
    labels = torch.tensor([0, 1, 2, -100] * 2)
    assert found(linear(), (X, labels), loss=F.cross_entropy) == {}
    assert found(linear(), (X, labels + 100 * (labels < 0) - (labels < 0).long()), loss=nn.CrossEntropyLoss(ignore_index=-1)) == {}  # fmt: skip


@pytest.mark.parametrize(
    ("targets", "hint"),
    [
        (CLASSES[:, None], "targets.squeeze(1).long()"),
        (F.one_hot(CLASSES, 3), "targets.float(), or targets.argmax(1)"),
        (CLASSES.float(), "targets.long()"),
        (CLASSES.int(), "targets.long()"),
        (CLASSES[:, None].float(), "targets.squeeze(1).long()"),
    ],
)
def test_targets_of_another_layout_are_told_with_what_to_write(targets, hint):
    told = found(linear(), (X, targets), loss=nn.CrossEntropyLoss())
    assert told["D010"].hint == hint
    assert "T001" not in told


@pytest.mark.parametrize("targets", [CLASSES, F.one_hot(CLASSES, 3).float(), torch.full((8, 3), 1 / 3)])
def test_targets_of_the_right_layout_are_not_told(targets):
    assert found(linear(), (X, targets), loss=nn.CrossEntropyLoss()) == {}


def test_a_batch_that_was_folded_is_told_at_the_loss_and_at_its_place():
    class Folds(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x):
            return self.layer(x.view(-1, 3))

    told = found(Folds(), (X, CLASSES), loss=F.cross_entropy)
    assert {"S010", "D010"} <= told.keys()
    assert "differ in number" in told["D010"].facts[1]


def test_masks_of_pictures_are_targets_too():
    model = nn.Conv2d(3, 4, 1)
    assert found(model, (IMAGES, torch.randint(0, 4, (8, 16, 16)))) == {}
    assert "D010" in found(model, (IMAGES, torch.randint(0, 4, (8, 1, 16, 16))))
    assert "D002" in found(model, (IMAGES, torch.randint(0, 9, (8, 16, 16))))


def test_binary_targets_of_integers_are_told():
    one = nn.Linear(6, 1)
    assert "D010" in found(one, (X, CLASSES % 2), loss=nn.BCEWithLogitsLoss())
    assert "D010" in found(one, (X, (CLASSES % 2)[:, None]), loss=nn.BCEWithLogitsLoss())
    assert found(one, (X, (CLASSES % 2)[:, None].float()), loss=nn.BCEWithLogitsLoss()) == {}


def test_several_classes_at_once_are_told_to_cross_entropy():
    assert "D012" in found(linear(), (X, torch.ones(8, 3)), loss=F.cross_entropy)


def test_a_sorted_set_that_is_not_shuffled_is_told():
    data = TensorDataset(torch.randn(40, 6), torch.arange(40) // 20)
    assert found(linear(), DataLoader(data, 8))["D011"].severity == "warning"
    assert "D011" not in found(linear(), DataLoader(data, 16, shuffle=True, generator=torch.Generator()))
    assert "D011" not in found(linear(), data)


def test_words_outside_of_the_table_are_told():
    model = nn.Sequential(nn.Embedding(10, 6), nn.Flatten(), nn.Linear(30, 3))
    ids = torch.randint(0, 10, (8, 5))
    assert found(model, (ids, CLASSES)) == {}
    told = found(model, (ids + 3, CLASSES))["D013"]
    assert told.where == "Sequential / 0"


@pytest.mark.parametrize("kind", [torch.uint8, torch.float64, torch.int32, torch.float16])
def test_inputs_of_another_dtype_are_told(kind):
    told = found(resnet18(weights=None, num_classes=3), ((IMAGES * 50 + 100).clamp(0, 255).to(kind), CLASSES))
    assert told["D020"].is_error
    assert "T001" not in told


def test_numpy_arrays_are_data():
    told = found(linear(), (np.random.default_rng(0).normal(size=(8, 6)), np.arange(8) % 3))
    assert told["D020"].hint == "x.to(torch.float32)"


def test_channels_that_come_last_are_told():
    told = found(convolutions(), (IMAGES.permute(0, 2, 3, 1), CLASSES))
    assert told["D021"].hint == "x.permute(0, 3, 1, 2)"


def test_inputs_that_are_not_finite_are_told():
    spoilt = X.clone()
    spoilt[2, 1] = float("nan")
    told = found(linear(), (spoilt, CLASSES))
    assert {"D022", "T002"} <= told.keys()
    assert told["T002"].hint == "the inputs are not finite: mend them first"


def test_raw_pixels_are_told():
    raw = (IMAGES * 60 + 120).clamp(0, 255).round()
    assert "D023" in found(convolutions(), (raw, CLASSES))
    assert "D023" not in found(convolutions(), (IMAGES, CLASSES))


@pytest.mark.parametrize(
    "change", [lambda x: (x * 0.226 + 0.449) * 255, lambda x: x * 0.226 + 0.449, lambda x: x + 9]
)
def test_images_that_a_trained_norm_does_not_expect_are_told(change):
    model = trained_norm()
    assert "D026" in found(model, (change(IMAGES), CLASSES))
    assert "D026" not in found(model, (IMAGES, CLASSES))


def test_a_norm_that_was_never_trained_expects_nothing():
    assert "D026" not in found(convolutions(), (IMAGES * 255, CLASSES))


def test_samples_without_content_are_told():
    black = IMAGES.clone()
    black[3] = 0
    assert "1 of 8 samples" in found(convolutions(), (black, CLASSES))["D024"].facts[0]
    assert "all 8 samples are the same" in found(convolutions(), (IMAGES[:1].expand(8, 3, 16, 16), CLASSES))["D024"].facts  # fmt: skip


@pytest.mark.parametrize(
    ("samples", "batch", "drop", "told"), [(9, 4, False, True), (9, 4, True, False), (8, 4, False, False), (5, 1, False, True)]
)  # fmt: skip
def test_a_last_batch_of_one_is_told_before_batchnorm(samples, batch, drop, told):
    model = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.Linear(16, 3))
    data = TensorDataset(torch.randn(samples, 6), torch.arange(samples) % 3)
    seen = found(model, DataLoader(data, batch, drop_last=drop, shuffle=True))
    code = "S006" if batch == 1 else "D025"  # batches of one are told by the trace already
    assert (code in seen and seen[code].is_error) == told
    assert "T001" not in seen


def words(*more):
    return nn.Sequential(nn.Embedding(50, 8), nn.Linear(8, 50), *more)


IDS, NEXT = torch.randint(0, 50, (6, 9)), torch.randint(0, 50, (6, 9))


def test_classes_that_come_last_are_told_with_what_turns_them():
    told = found(words(), (IDS, NEXT), loss=F.cross_entropy)
    assert told["D010"].hint == "outputs.transpose(1, 2)"
    right = found(words(), (IDS, NEXT), loss=lambda out, y: F.cross_entropy(out.transpose(1, 2), y))
    assert "D010" not in right
    maps = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(2), nn.Unflatten(2, (16, 16)))
    last = found(
        maps, (IMAGES, torch.randint(0, 4, (8, 16, 16))), loss=lambda o, y: F.cross_entropy(o.movedim(1, -1), y)
    )
    assert last["D010"].hint == "outputs.movedim(-1, 1)"


def test_flat_rows_want_flat_targets():
    told = found(words(nn.Flatten(0, 1)), (IDS, NEXT), loss=F.cross_entropy)
    assert told["D010"].hint == "targets.flatten()"


def test_class_numbers_given_to_a_binary_loss_are_told_what_fits():
    told = found(linear(), (X, CLASSES), loss=nn.BCEWithLogitsLoss())
    assert "F.one_hot(targets.long(), 3).float()" in told["D010"].hint
    assert "CrossEntropyLoss" in told["D010"].hint
    other = found(linear(), (X, torch.rand(8, 2)), loss=nn.BCEWithLogitsLoss())
    assert other["D010"].hint == "give targets of shape [8, 3] as floats"


def test_a_loss_whose_arguments_changed_places_is_told():
    told = found(linear(), (X, CLASSES), loss=lambda out, y: F.cross_entropy(y, out))
    assert told["D010"].hint == "outputs first: F.cross_entropy(outputs, targets)"
    assert "T001" not in told
    kind = nn.Linear(6, 3)
    swapped = found(kind, (X, torch.rand(8, 3)), loss=lambda out, y: F.binary_cross_entropy(y, out.sigmoid()))
    assert "D010" in swapped
    assert "D010" not in found(kind, (X, torch.rand(8, 3)), loss=lambda out, y: F.mse_loss(y, out))


@pytest.mark.parametrize("example", [None, IMAGES])
def test_inputs_and_targets_that_changed_places_are_told(example):
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    told = {one.code: one for one in tg.check(model, example, data=(CLASSES, IMAGES))}
    assert told["D027"].hint == "give (inputs, targets) in this order"
    assert "D027" not in {one.code for one in tg.check(model, data=(IMAGES, CLASSES))}
