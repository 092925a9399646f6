from __future__ import annotations

import pytest
import timm
import torch
from torch import nn
from torchvision import models

from torchgraft.trace import trace
from torchgraft.trace.order import order


def ordered(model, *shape, **named):
    example = () if named else torch.empty(2, *shape, device="meta")
    return order(trace(model, example, kwargs=named), model)


def built(name, size=64):
    with torch.device("meta"):
        model = (
            timm.create_model(name.removeprefix("timm:")) if name.startswith("timm:") else models.get_model(name)
        )
    return ordered(model, 3, size, size)


def paths(found):
    return [str(layer) for layer in found.layers]


def test_a_resnets_layers_are_its_blocks_between_stem_and_head():
    found = built("resnet18")
    assert paths(found)[:3] == ["conv1, bn1", "layer1.0", "layer1.1"]
    assert paths(found)[-2:] == ["layer4.1", "fc"]
    assert [layer.stage for layer in found.layers] == [0, 1, 1, 2, 2, 3, 3, 4, 4, 0]


@pytest.mark.parametrize(
    ("name", "size", "layers", "stages", "first", "last"),
    [
        ("convnext_tiny", 64, 20, 4, "features.0", "classifier"),
        ("swin_t", 64, 14, 4, "features.0", "norm, head"),
        ("vit_b_32", 224, 14, 1, "conv_proj, class_token, encoder.pos_embedding", "encoder.ln, heads"),
        ("vgg11_bn", 64, 11, 4, "features.0, features.1", "classifier.6"),
        ("mobilenet_v2", 64, 19, 7, "features.0", "features.18, classifier"),
        ("densenet121", 64, 60, 4, "features.conv0, features.norm0", "features.norm5, classifier"),
        ("efficientnet_b0", 64, 18, 7, "features.0", "features.8, classifier"),
        ("regnet_y_400mf", 64, 18, 4, "stem", "fc"),
        ("squeezenet1_0", 64, 10, 6, "features.0", "classifier"),
        ("timm:convnext_atto", 64, 14, 4, "stem", "head"),
        ("timm:swin_tiny_patch4_window7_224", 224, 14, 4, "patch_embed", "norm, head"),
        ("timm:vit_tiny_patch16_224", 224, 14, 1, "patch_embed, cls_token, pos_embed", "norm, head"),
        ("timm:mobilenetv3_small_100", 64, 13, 5, "conv_stem, bn1", "blocks.5, conv_head, classifier"),
        ("timm:legacy_xception", 96, 16, 6, "conv1, bn1, conv2, …", "bn4, fc"),
    ],
)
def test_the_layers_of_well_known_models(name, size, layers, stages, first, last):
    real = name.startswith("regnet")  # it reads its weights when it is built, so it can't be on meta
    found = ordered(models.get_model(name), 3, size, size) if real else built(name, size)
    assert (len(found.layers), found.stages) == (layers, stages)
    assert (str(found.stem), str(found.layers[-1])) == (first, last)


@pytest.mark.parametrize(
    "name", ["resnet18", "convnext_tiny", "mobilenet_v2", "timm:cait_xxs24_224", "inception_v3"]
)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_every_parameter_is_in_exactly_one_layer(name):
    with torch.device("meta"):
        model = timm.create_model(name[5:]) if name.startswith("timm:") else models.get_model(name)
    size = {"inception_v3": 299, "timm:cait_xxs24_224": 224}.get(name, 64)
    found = ordered(model, 3, size, size)
    assert sorted(name for layer in found.layers for name in layer.names) == sorted(
        name for name, _ in model.named_parameters()
    )


def test_an_auxiliary_head_that_evaluation_does_not_use_goes_with_the_tail():
    with torch.device("meta"):
        model = models.googlenet(init_weights=False)
    found = ordered(model, 3, 224, 224)
    assert found.depths["aux1.fc2.weight"] == len(found.layers) - 1


def test_a_model_within_a_model_is_opened():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = models.resnet18()
            self.backbone.fc = nn.Identity()
            self.head = nn.Sequential(nn.Linear(512, 8), nn.ReLU(), nn.Linear(8, 2))

        def forward(self, x):
            return self.head(self.backbone(x))

    with torch.device("meta"):
        found = ordered(Net(), 3, 64, 64)
    assert paths(found)[1] == "backbone.layer1.0"
    assert (len(found.layers), found.stages) == (10, 4)


def test_a_plain_stack_has_a_layer_for_each_matrix_and_a_norm_goes_with_what_it_follows():
    model = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    assert paths(ordered(model, 4)) == ["0, 1", "3", "5"]


def test_experts_beside_each_other_are_one_block_and_not_a_row_of_blocks():
    class Expert(nn.Module):
        def __init__(self):
            super().__init__()
            self.up, self.down = nn.Linear(4, 8), nn.Linear(8, 4)

        def forward(self, x):
            return self.down(self.up(x).relu())

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.experts = nn.ModuleList([Expert(), Expert()])

        def forward(self, x):
            return sum(one(x) for one in self.experts)

    model = nn.Sequential(nn.Linear(4, 4), Block(), Block(), nn.Linear(4, 2))
    assert paths(ordered(model, 4)) == ["0", "1", "2", "3"]


def test_the_order_is_that_of_the_pass_and_not_of_the_attributes():
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.last, self.middle, self.first = nn.Linear(4, 2), nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            return self.last(self.middle(self.first(x)))

    assert paths(ordered(Backwards(), 4)) == ["first", "middle", "last"]


@pytest.mark.parametrize("kind", ["bert", "gpt2", "t5"])
def test_the_layers_of_transformers_encoders_and_decoders(kind):
    transformers = pytest.importorskip("transformers")
    small = {"vocab_size": 50, "pad_token_id": 0}
    tokens = torch.zeros(2, 6, dtype=torch.long)
    if kind == "bert":
        config = transformers.BertConfig(
            hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, **small
        )
        found = ordered(transformers.BertForSequenceClassification(config), input_ids=tokens)
        assert paths(found) == [
            "bert.embeddings",
            "bert.encoder.layer.0",
            "bert.encoder.layer.1",
            "bert.pooler, classifier",
        ]
    elif kind == "gpt2":
        config = transformers.GPT2Config(n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0, **small)
        found = ordered(transformers.GPT2LMHeadModel(config), input_ids=tokens)
        assert paths(found) == [
            "transformer.wte, transformer.wpe",
            "transformer.h.0",
            "transformer.h.1",
            "transformer.ln_f",
        ]
    else:
        config = transformers.T5Config(d_model=16, d_kv=8, d_ff=16, num_layers=2, num_heads=2, **small)
        model = transformers.T5ForConditionalGeneration(config)
        found = ordered(model, input_ids=tokens, decoder_input_ids=tokens)
        assert [str(layer).split(",")[0] for layer in found.layers][1:5] == [
            "encoder.block.0",
            "encoder.block.1",
            "decoder.block.0",
            "decoder.block.1",
        ]
