from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from tests.edits.again import again
from torch import nn
from torchvision import models
from torchvision.models import detection, segmentation
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertForTokenClassification,
    GPT2Config,
    GPT2LMHeadModel,
    ViTConfig,
    ViTForImageClassification,
    YolosConfig,
    YolosForObjectDetection,
)

import torchgraft as tg
from torchgraft.data import parse_data
from torchgraft.errors import EditError, RecipeError, TrainError
from torchgraft.probes.loss import loss_by
from torchgraft.recipe import TrainPlan
from torchgraft.train.tasks import task_for

X = torch.randn(2, 3, 64, 64)
WORDS = torch.randint(0, 50, (2, 8))
SMALL = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
BERT = BertConfig(**SMALL, vocab_size=50, max_position_embeddings=16)


def test_the_attribute_that_tells_the_class_count_follows(resnet18):
    g = tg.load("timm:resnet18@none", input=(3, 64, 64))
    g.head(10)
    assert g.module.num_classes == 10


def test_an_auxiliary_head_gets_a_plain_layer():
    g = tg.load("torchvision:googlenet@none")
    g.head(5, hidden=[32], dropout=0.1)
    assert isinstance(g.module.fc, nn.Sequential)
    assert isinstance(g.module.aux1.fc2, nn.Linear)
    assert g.module.aux1.fc2.out_features == 5


def test_a_convolutional_head_stays_a_convolution():
    g = tg.load("torchvision:squeezenet1_1@none", input=(3, 96, 96))
    g.head(5, hidden=[16])
    assert [type(layer) for layer in g.module.classifier[1]] == [nn.Conv2d, nn.ReLU, nn.Conv2d]
    assert g.module.eval()(torch.randn(2, 3, 96, 96)).shape == (2, 5)


def test_an_output_without_weights_has_no_head():
    g = tg.load(nn.Sequential(nn.Flatten()), input=(1, 2, 2))
    with pytest.raises(EditError, match="no layer with weights makes the output"):
        g.head(3)


def test_a_module_with_two_names_is_replaced_under_both():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 5)
            self.classifier = self.fc

        def forward(self, x):
            return self.classifier(x)

    g = tg.load(Two(), input=torch.empty(2, 4))
    g.head(3).freeze("classifier")
    assert g.module.fc is g.module.classifier
    assert not g.module.fc.weight.requires_grad


def test_a_model_that_does_not_run_says_why_instead_of_having_no_head():
    g = tg.load("resnet18@none", input=(1, 64, 64))
    with pytest.raises(EditError, match=r"does not run on its input(.|\n)*error\[S001\]"):
        g.head(3)
    with pytest.raises(EditError, match="does not run on its input"):
        g.freeze(all_but="head")
    assert g.input(channels=1).head(3).check() == ()


def test_a_backbone_has_no_head():
    g = tg.load("timm:vit_tiny_patch16_224@none")
    g.module.reset_classifier(0)
    g = tg.load(g.module, input=(3, 224, 224))
    with pytest.raises(EditError, match="no layer with weights makes the output"):
        g.head(3)


# kinds of heads


def test_a_cosine_head_scores_by_direction_alone(resnet18):
    layer = resnet18.head(4, kind="cosine").module.fc
    x = torch.randn(3, 512)
    cosines = nn.functional.cosine_similarity(x[:, None], layer.weight[None], dim=-1)
    torch.testing.assert_close(layer(x), layer.scale * cosines)
    torch.testing.assert_close(layer(7 * x), layer(x))
    layer(x).sum().backward()
    assert layer.scale.grad is not None
    again(resnet18)


def test_a_cosine_head_is_found_again(resnet18):
    resnet18.head(4, kind="cosine").head(3)
    assert resnet18.recipe.edits[1].at == ("fc",)
    assert isinstance(resnet18.module.fc, nn.Linear)


def test_hidden_layers_take_a_norm_an_activation_and_a_bias_or_none(resnet18):
    resnet18.head(4, hidden=[8], norm="batch", activation="gelu", dropout=0.1, bias=False)
    kinds = [nn.Linear, nn.BatchNorm1d, nn.GELU, nn.Dropout, nn.Linear]
    assert [type(layer) for layer in resnet18.module.fc] == kinds
    assert resnet18.module.fc[0].bias is not None
    assert resnet18.module.fc[-1].bias is None
    again(resnet18)


def test_several_heads_by_name_give_a_dict_and_start_from_shared_settings(resnet18):
    resnet18.head(heads={"colour": 5, "size": {"classes": 3, "hidden": []}}, hidden=[8])
    assert {name: scores.shape for name, scores in resnet18.module.eval()(X).items()} == {
        "colour": (2, 5),
        "size": (2, 3),
    }
    assert isinstance(resnet18.module.fc.colour, nn.Sequential)
    assert isinstance(resnet18.module.fc.size, nn.Linear)
    assert resnet18.check() == ()
    again(resnet18)
    assert isinstance(resnet18.head(4).module.fc, nn.Linear)


def test_auxiliary_outputs_are_dicts_too_and_replay_with_plain_layers():
    g = tg.load("torchvision:googlenet@none", input=(3, 96, 96)).head(heads={"a": 3, "b": 2}, hidden=[8])
    assert isinstance(g.module.aux1.fc2.a, nn.Linear)
    assert isinstance(g.module.fc.a, nn.Sequential)
    assert g.module.train()(torch.randn(2, 3, 96, 96)).aux_logits1["b"].shape == (2, 2)
    again(tg.load("torchvision:googlenet@none", input=(3, 96, 96)).head(3, hidden=[8]))


def test_a_dict_is_refused_where_a_tensor_is_wanted(snapshot):
    g = tg.load("torchvision:squeezenet1_1@none", input=(3, 96, 96))
    before = snapshot(g.module)
    with pytest.raises(EditError, match=r"would give a dict, and classifier\.2 calls relu on a tensor"):
        g.head(heads={"a": 3, "b": 2})
    assert snapshot(g.module) == before


def test_a_name_that_every_module_has_is_refused(resnet18):
    with pytest.raises(EditError, match=r"has a 'type' already(.|\n)*type_"):
        resnet18.head(heads={"type": 3})


# rows that are kept


def test_new_classes_start_with_the_rows_of_old_ones_and_the_base_is_not_written(resnet18):
    weight, bias = resnet18.module.fc.weight, resnet18.module.fc.bias
    resnet18.head(keep=[3, 5])
    assert resnet18.recipe.edits[0].classes == 2
    assert torch.equal(resnet18.module.fc.weight, weight[[3, 5]])
    assert torch.equal(resnet18.module.fc.bias, bias[[3, 5]])
    resnet18.module.fc.weight.data.zero_()
    assert weight.abs().sum() > 0
    resnet18.undo()
    assert resnet18.module.fc.weight is weight


def test_a_mapping_says_which_new_class_keeps_which_old_one(resnet18):
    weight = resnet18.module.fc.weight
    resnet18.head(4, keep={3: 7})
    assert torch.equal(resnet18.module.fc.weight[3], weight[7])
    assert not torch.equal(resnet18.module.fc.weight[0], weight[0])
    again(resnet18)


def test_classes_are_kept_by_the_names_that_a_configuration_knows():
    config = ViTConfig(**SMALL, image_size=32, patch_size=8, id2label={0: "cat", 1: "dog", 2: "cow"})
    model = ViTForImageClassification(config)
    row = model.classifier.weight[1]
    g = tg.load(model, input=(3, 32, 32)).head(2, keep=["dog"])
    assert torch.equal(g.module.classifier.weight[0], row)
    assert g.module.config.id2label == {0: "dog", 1: "LABEL_1"}
    with pytest.raises(EditError, match=r"has no class 'dag'(.|\n)*dog"):
        tg.load(ViTForImageClassification(config), input=(3, 32, 32)).head(2, keep=["dag"])


def test_rows_of_a_double_model_are_kept_exactly():
    model = models.resnet18(weights=None).double()
    row = model.fc.weight[9]
    g = tg.load(model, input=(3, 64, 64)).head(1, keep=[9])
    assert torch.equal(g.module.fc.weight[0], row)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({}, "a head names its classes"),
        ({"classes": 3, "heads": {"a": 2}}, "either classes or heads"),
        ({"classes": 3, "keep": [1], "hidden": [8]}, "reads what the old one read"),
        ({"classes": 3, "kind": "cosine", "bias": True}, "a cosine head has no bias"),
        ({"classes": 3, "keep": [1000]}, r"no class 1000: its 1000 outputs are numbered 0 to 999"),
        ({"classes": 3, "keep": ["dog"]}, "by number"),
        ({"classes": 3, "keep": {3: 1}}, "no new class 3: the head has 3"),
    ],
)
def test_heads_that_can_not_be_are_told(resnet18, snapshot, settings, match):
    before = snapshot(resnet18.module)
    with pytest.raises((EditError, RecipeError), match=match):
        resnet18.head(**settings)
    assert snapshot(resnet18.module) == before


# tasks


@pytest.mark.parametrize(
    ("settings", "targets", "codes"),
    [
        ({"classes": 3, "task": "labels"}, torch.ones(2, 3), []),
        ({"classes": 3, "task": "labels"}, torch.tensor([0, 2]), ["D010"]),
        ({"classes": 1, "task": "regression"}, torch.randn(2), []),
        ({"classes": 1, "task": "regression"}, torch.tensor([0, 4]), ["H009"]),
        (
            {"heads": {"a": 3, "b": {"classes": 1, "task": "regression"}}},
            {"a": torch.tensor([0, 2]), "b": torch.randn(2)},
            [],
        ),
        ({"heads": {"a": 3}}, torch.tensor([0, 2]), ["T001"]),
    ],
)
def test_a_check_judges_by_the_task_of_the_head(resnet18, settings, targets, codes):
    resnet18.head(**settings)
    assert [finding.code for finding in resnet18.check(data=(X, targets))] == codes


@dataclass
class Answer:
    scores: torch.Tensor


def test_the_loss_of_a_check_follows_the_tasks():
    scores, labels = torch.randn(4, 3), torch.randint(0, 2, (4, 3)).float()
    bce = nn.functional.binary_cross_entropy_with_logits(scores, labels)
    assert torch.equal(loss_by({"": "labels"})(scores, labels), bce)
    assert torch.equal(loss_by({"": "labels"})(Answer(scores), labels), bce)
    squares = nn.functional.mse_loss(scores[:, 0], labels[:, 0])
    torch.testing.assert_close(loss_by({"": "regression"})(scores[:, :1], labels[:, 0]), squares)
    both = loss_by({"a": "labels", "b": "labels"})({"a": scores, "b": scores}, {"a": labels, "b": labels})
    torch.testing.assert_close(both, 2 * bce)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"classes": 3, "task": "labels"}, "wants a yes or no for each label"),
        ({"classes": 1, "task": "regression"}, "wants quantities"),
        ({"heads": {"a": 3, "b": 2}}, r"wants targets by name \(a, b\)"),
    ],
)
def test_data_of_one_class_for_each_sample_can_not_train_another_task(resnet18, settings, match):
    resnet18.head(**settings)
    with pytest.raises(TrainError, match=match):
        task_for(resnet18, parse_data("sklearn:digits").open(), TrainPlan(data="sklearn:digits"))


@pytest.mark.parametrize(
    ("task", "told"),
    [("classes", None), ("labels", "multi_label_classification"), ("regression", "regression")],
)
def test_the_configuration_of_transformers_names_the_task(task, told):
    g = tg.load(BertForSequenceClassification(BERT), input=WORDS).head(3, task=task)
    assert g.module.config.problem_type == told
    assert g.module.config.num_labels == 3
    g.undo()
    assert g.module.config.problem_type is None
    assert g.module.config.num_labels == 2


# kinds of models


def test_every_word_keeps_its_head_where_words_are_classified():
    g = tg.load(BertForTokenClassification(BERT), input=WORDS)
    with pytest.raises(EditError, match=r"several vectors arrive(.|\n)*norm='layer'"):
        g.head(4, hidden=[8], norm="batch")
    g.head(4, hidden=[8], norm="layer")
    assert g.trace().output_shapes() == [(2, 8, 4)]


def test_a_language_head_is_untied_from_the_table_of_words_and_says_so():
    model = GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=1, n_head=2, vocab_size=50, n_positions=16))
    table = model.transformer.wte.weight
    g = tg.load(model, input=WORDS).head(60, keep=list(range(50)))
    assert g.module.transformer.wte.weight is table
    assert torch.equal(g.module.lm_head.weight[:50], table)
    assert g.module.config.tie_word_embeddings is False
    assert g.module.config.vocab_size == 60
    assert "no longer tied to transformer.wte.weight" in g.recipe.edits[0].sentence()
    g.undo()
    assert g.module.lm_head.weight is table


def test_a_bias_that_two_modules_hold_stays_one():
    g = tg.load(BertForMaskedLM(BERT), input=WORDS).head(60)
    assert g.module.cls.predictions.bias is g.module.cls.predictions.decoder.bias


def test_outputs_of_several_widths_are_not_guessed():
    sizes = {"image_size": [32, 32], "patch_size": 8, "num_detection_tokens": 5}
    g = tg.load(YolosForObjectDetection(YolosConfig(**SMALL, **sizes)), input=(3, 32, 32))
    with pytest.raises(EditError, match=r"several widths(.|\n)*class_labels_classifier.*\(4\)"):
        g.head(3)
    g.head(3, at="class_labels_classifier.layers.2")
    assert g.trace().output_shapes()[0][-1] == 3


def test_segmentation_gives_scores_for_every_pixel_and_its_auxiliary_head_is_plain():
    model = segmentation.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None)
    g = tg.load(model, input=(3, 64, 64)).head(4, at=["classifier.low_classifier", "classifier.high_classifier"])
    assert g.trace().output_shapes() == [(2, 4, 64, 64)]
    model = segmentation.deeplabv3_mobilenet_v3_large(weights=None, weights_backbone=None, aux_loss=True)
    g = tg.load(model, input=(3, 64, 64)).head(4, hidden=[8])
    assert isinstance(g.module.classifier[4], nn.Sequential)
    assert isinstance(g.module.aux_classifier[4], nn.Conv2d)
    assert g.trace().output_shapes() == [(2, 4, 64, 64)] * 2


@pytest.mark.parametrize("name", ["fasterrcnn_mobilenet_v3_large_320_fpn", "ssdlite320_mobilenet_v3_large"])
def test_detection_models_get_other_classes_in_every_layer_that_counts_them(name):
    made = getattr(detection, name)(weights=None, weights_backbone=None)
    g = tg.load(made, input=torch.rand(1, 3, 64, 64), real=True).head(4)
    same = getattr(detection, name)(weights=None, weights_backbone=None, num_classes=4)
    ours = {key: tensor.shape for key, tensor in g.module.state_dict().items()}
    assert ours == {key: tensor.shape for key, tensor in same.state_dict().items()}
    target = {"boxes": torch.tensor([[4.0, 4, 40, 40]]), "labels": torch.tensor([3])}
    losses = g.module.train()([torch.rand(3, 64, 64), torch.rand(3, 64, 64)], [target, target])
    assert all(loss.isfinite() for loss in losses.values())
    with pytest.raises(EditError, match="the background included, and nothing else"):
        g.head(4, hidden=[8])


def test_a_whole_classifier_is_replaced_where_at_names_it():
    g = tg.load("torchvision:vgg11@none", input=(3, 64, 64)).head(4, at="classifier")
    assert (g.module.classifier.in_features, g.module.classifier.out_features) == (25088, 4)
    again(g)


@pytest.mark.parametrize("name", ["convnext_atto", "deit_tiny_distilled_patch16_224", "efficientnet_b0"])
def test_timm_tells_the_new_count(name):
    size = 224 if "deit" in name else 64
    g = tg.load(f"timm:{name}@none", input=(3, size, size)).head(4, hidden=[8], kind="cosine")
    assert g.module.num_classes == 4
    assert g.trace().output_shapes() == [(2, 4)]
    assert g.check() == ()
