"""Networks of timm, torchvision and transformers, small, with every random option on."""

import contextlib
import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from elision.workloads.libraries.torchvision import import_torchvision

Inputs = dict[str, Tensor]


@dataclass(frozen=True)
class LibraryModel:
    """A network of a library and a batch for it.

    Attributes:
        library: package that it comes from.
        name: its name there.
        build: makes it, with random weights.
        inputs: makes a batch.
    """

    library: str
    name: str
    build: Callable[[], nn.Module]
    inputs: Callable[[], Inputs]

    def __str__(self) -> str:
        return f"{self.library}:{self.name}"


def tensors_in(output: Any) -> list[Tensor]:
    """All floating-point tensors in a model's output."""
    if isinstance(output, Tensor):
        return [output] if output.is_floating_point() else []
    values = output.values() if isinstance(output, dict) else output
    if isinstance(values, list | tuple) or hasattr(values, "__iter__"):
        return [t for value in values for t in tensors_in(value)]
    return []


def _images(size: int) -> Callable[[], Inputs]:
    return lambda: {"x": torch.randn(4, 3, size, size)}


def _timm(name: str, size: int, **options: Any) -> LibraryModel:
    def build() -> nn.Module:
        import_torchvision()
        timm = importlib.import_module("timm")
        rates: list[dict[str, float]] = [
            {"drop_rate": 0.2, "drop_path_rate": 0.2},
            {"drop_rate": 0.2},
            {},
        ]
        for random in rates:  # not every family has every rate
            try:
                return timm.create_model(name, num_classes=10, **random, **options)
            except TypeError:
                continue
        raise AssertionError(name)

    return LibraryModel("timm", name, build, _images(size))


def _torchvision(name: str, size: int, **options: Any) -> LibraryModel:
    def build() -> nn.Module:
        models = importlib.import_module(f"{import_torchvision().__name__}.models")
        return models.get_model(name, weights=None, **options)

    return LibraryModel("torchvision", name, build, _images(size))


#: Sizes that the configurations of transformers share, under their several names.
_SMALL = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}


def _transformers(
    name: str, inputs: Callable[[], Inputs], **sizes: Any
) -> LibraryModel:
    def build() -> nn.Module:
        with contextlib.suppress(ModuleNotFoundError):
            import_torchvision()  # transformers imports it where it is installed
        library = importlib.import_module("transformers")
        config = library.AutoConfig.for_model(name, **(_SMALL | sizes))
        return library.AutoModel.from_config(config)

    return LibraryModel("transformers", name, build, inputs)


def _tokens() -> Inputs:
    return {"input_ids": torch.randint(3, 60, (3, 12))}


def _pairs() -> Inputs:
    ids = torch.randint(3, 60, (3, 12))
    return {"input_ids": ids, "decoder_input_ids": ids[:, :7]}


def _pixels() -> Inputs:
    return {"pixel_values": torch.randn(3, 3, 32, 32)}


_PATCHES = {"image_size": 32, "patch_size": 8}


def library_models() -> Iterator[LibraryModel]:
    """All of them."""
    for name in _TIMM_64:
        yield _timm(name, 64)
    for name, size in _TIMM_SIZED.items():
        yield _timm(name, size)
    for name in ("vit_tiny_patch16_224", "deit_tiny_patch16_224", "mixer_s32_224"):
        yield _timm(name, 64, img_size=64)
    for name, size in _TORCHVISION.items():
        yield _torchvision(name, size, num_classes=10)
    sides = {"aux_logits": True, "init_weights": False}
    yield _torchvision("googlenet", 64, num_classes=10, **sides)
    for name in ("deeplabv3_mobilenet_v3_large", "fcn_resnet50"):
        options = {"weights_backbone": None, "aux_loss": True, "num_classes": 5}
        yield _torchvision(name, 96, **options)
    for name in (
        "bert",
        "roberta",
        "electra",
        "albert",
        "gpt_neox",
        "llama",
    ):
        yield _transformers(name, _tokens, pad_token_id=0)
    yield _transformers("mistral", _tokens, num_key_value_heads=2)
    yield _transformers(
        "distilbert", _tokens, dim=32, hidden_dim=64, n_layers=2, n_heads=4
    )
    yield _transformers(
        "opt", _tokens, ffn_dim=64, layerdrop=0.3, word_embed_proj_dim=32
    )
    heads = {"encoder_layers": 2, "decoder_layers": 2, "encoder_layerdrop": 0.3}
    heads |= {"encoder_attention_heads": 4, "decoder_attention_heads": 4}
    heads |= {"encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "d_model": 32}
    yield _transformers("bart", _pairs, **heads)
    yield _transformers(
        "t5", _pairs, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4
    )
    yield _transformers("vit", _pixels, **_PATCHES)
    yield _transformers("deit", _pixels, **_PATCHES)
    stages = {"depths": [1, 1], "hidden_sizes": [16, 32]}
    yield _transformers("resnet", _pixels, embedding_size=16, **stages)
    yield _transformers("convnext", _pixels, num_stages=2, drop_path_rate=0.3, **stages)


_TIMM_64 = (
    "resnet18",
    "resnet26t",
    "seresnet18",
    "skresnet18",
    "resnext26ts",
    "densenet121",
    "mobilenetv2_100",
    "mobilenetv3_small_100",
    "efficientnet_b0",
    "efficientnetv2_rw_t",
    "regnetx_002",
    "regnety_002",
    "repvgg_a0",
    "dla34",
    "vgg11_bn",
    "hrnet_w18_small",
    "ghostnet_100",
    "mnasnet_050",
    "convnext_atto",
    "convnextv2_atto",
    "poolformer_s12",
    "edgenext_xx_small",
    "xception41",
    "dpn48b",
    "rexnet_100",
    "tinynet_e",
    "cspresnet50",
    "darknet53",
    "nf_resnet26",
    "res2net50_14w_8s",
    "selecsls42",
    "gernet_s",
    "fbnetc_100",
    "lcnet_050",
    "mobilevit_xxs",
    "resnetv2_50",
    "fastvit_t8",
)
_TIMM_SIZED = {
    "swin_tiny_patch4_window7_224": 224,
    "levit_128s": 224,
    "pit_ti_224": 224,
    "crossvit_tiny_240": 240,
}
_TORCHVISION = {
    "resnet18": 64,
    "squeezenet1_1": 64,
    "shufflenet_v2_x0_5": 64,
    "alexnet": 96,
    "densenet121": 64,
    "mobilenet_v3_small": 64,
    "efficientnet_b0": 64,
    "mnasnet0_5": 64,
    "convnext_tiny": 64,
    "swin_t": 64,
}
