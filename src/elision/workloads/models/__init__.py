"""Networks to study, one file per family, and the registry that names them."""

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from elision.common.names import lookup
from elision.workloads.models.cnn import cnn
from elision.workloads.models.densenet import densenet121, densenet121_imagenet
from elision.workloads.models.efficientnet import efficientnet
from elision.workloads.models.gnmt import gnmt
from elision.workloads.models.language import lstm_lm
from elision.workloads.models.lstm import lstm
from elision.workloads.models.mlp import mlp
from elision.workloads.models.mobilenet import mobilenet_v2
from elision.workloads.models.mobilenet_v1 import mobilenet_v1
from elision.workloads.models.mobilenet_v3 import (
    mobilenet_v3_large,
    mobilenet_v3_small,
)
from elision.workloads.models.own import build_own
from elision.workloads.models.resnet import (
    resnet8,
    resnet14,
    resnet18,
    resnet18_imagenet,
    resnet20,
    resnet50,
    resnet50_imagenet,
)
from elision.workloads.models.squeezenet import squeezenet
from elision.workloads.models.tiny import autoencoder, ds_cnn, tiny_resnet8
from elision.workloads.models.transformer import transformer
from elision.workloads.models.vgg import vgg16
from elision.workloads.models.wide_resnet import wrn16_8, wrn22_2

__all__ = [
    "ALL_MODELS",
    "LANGUAGE_MODELS",
    "MODELS",
    "RECONSTRUCTORS",
    "TRANSLATORS",
    "make_model",
]

#: Names by which the command line knows the networks. Every builder takes
#: ``in_channels`` and ``classes``, some take ``image_size`` and options of their own.
MODELS: dict[str, Callable[..., nn.Module]] = {
    "cnn": cnn,
    "mlp": mlp,
    "lstm": lstm,
    "transformer": transformer,
    "resnet8": resnet8,
    "resnet14": resnet14,
    "resnet20": resnet20,
    "resnet18": resnet18,
    "resnet18-imagenet": resnet18_imagenet,
    "resnet50": resnet50,
    "resnet50-imagenet": resnet50_imagenet,
    "squeezenet": squeezenet,
    "mobilenet-v1": mobilenet_v1,
    "mobilenet-v2": mobilenet_v2,
    "mobilenet-v3-small": mobilenet_v3_small,
    "mobilenet-v3-large": mobilenet_v3_large,
    "efficientnet-b0": efficientnet,
    "vgg16": vgg16,
    "wrn16-8": wrn16_8,
    "wrn22-2": wrn22_2,
    "densenet121": densenet121,
    "densenet121-imagenet": densenet121_imagenet,
    "tiny-resnet8": tiny_resnet8,
    "ds-cnn": ds_cnn,
}

#: Networks that read and write sentences, by name. Their builders take ``vocabulary``, the
#: number of tokens, and options of their own.
TRANSLATORS: dict[str, Callable[..., nn.Module]] = {"gnmt": gnmt}

#: Networks that continue sentences, by name; their builders take ``vocabulary``, too.
LANGUAGE_MODELS: dict[str, Callable[..., nn.Module]] = {"lstm-lm": lstm_lm}

#: Networks that give back what they were shown, by name; no task here trains them yet.
RECONSTRUCTORS: dict[str, Callable[..., nn.Module]] = {"autoencoder": autoencoder}

#: All networks by name, whatever their task.
ALL_MODELS: dict[str, Callable[..., nn.Module]] = (
    MODELS | TRANSLATORS | LANGUAGE_MODELS | RECONSTRUCTORS
)


def make_model(
    name: str,
    *,
    in_channels: int = 3,
    classes: int = 10,
    image_size: int | tuple[int, int] = 32,
    **options: Any,
) -> nn.Module:
    """Build the network called ``name``; torch's global generator draws its weights.

    Args:
        name: a name of :data:`ALL_MODELS`; ``timm:NAME`` or ``torchvision:NAME`` for a
            network of these libraries without trained weights (install the extra); or
            ``package.module:NAME`` for a class or function of your own
            (:mod:`elision.workloads.models.own`).
        in_channels: channels of the images.
        classes: outputs.
        image_size: height and width of the images, or one number for both. A network
            that reads sentences needs no fact about images.
        **options: further arguments of the network's builder, such as ``width``.

    Raises:
        ValueError: the name, an option or a size is not valid; names list what is.
        ModuleNotFoundError: the library that the name asks for is not installed.
    """
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    library, colon, member = name.partition(":")
    if colon:
        # Imported here: both libraries are extras, and slow to import.
        from elision.workloads.libraries import BUILDERS

        given = {"in_channels": in_channels, "classes": classes, "image_size": size}
        if library in BUILDERS:
            return BUILDERS[library](member, **given, **options)
        return build_own(name, given, options, libraries=tuple(BUILDERS))
    build = lookup("model", name, ALL_MODELS)
    known = inspect.signature(build).parameters
    for option in options:
        if option not in known:
            valid = ", ".join(k for k in known if k not in _GIVEN) or "none"
            raise ValueError(
                f"model {name!r} has no option {option!r}; its options: {valid}"
            )
    given = {"in_channels": in_channels, "classes": classes, "image_size": size}
    return build(**{k: v for k, v in given.items() if k in known}, **options)


_GIVEN = ("in_channels", "classes", "image_size")
