"""Networks of torchvision, also where its compiled operators do not load.

The wheel of torchvision on the usual package index is built for CUDA. Beside a CPU
build of torch its compiled library fails to load, which torchvision swallows, and then
its import stops with ``operator torchvision::nms does not exist`` (pytorch/vision
issues 9077 and 9085). The networks need none of these operators, so declaring the two
schemas that the import asks for is enough; a torchvision that imports as it is stays
untouched.
"""

import importlib
import sys
from types import ModuleType
from typing import Any

import torch
from torch import nn

from elision.common.extras import check_installed

__all__ = ["build", "import_torchvision"]

#: Operators for which torchvision registers shape functions at import.
OPERATORS = ("nms", "qnms")

#: Networks that answer with a tuple in training unless their side outputs are left out.
AUXILIARY = ("googlenet", "inception_v3")

#: Owner of the declared schemas; they vanish with it, so it stays referenced here.
_declared: list[Any] = []


def import_torchvision() -> ModuleType:
    """Import torchvision, declaring the schemas of its operators if they are missing.

    Raises:
        ModuleNotFoundError: it is not installed; the message says how to install it.
    """
    check_installed(
        "torchvision", "torchvision", "a model torchvision:NAME or timm:NAME"
    )
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    for name in [n for n in sys.modules if n.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "DEF")
    for operator in OPERATORS:
        library.define(
            f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        )
    _declared.append(library)
    return importlib.import_module("torchvision")


def build(
    name: str,
    *,
    in_channels: int,
    classes: int,
    image_size: tuple[int, int],
    **options: Any,
) -> nn.Module:
    """Build torchvision's network ``name`` with random weights.

    torchvision has no argument for the channels of the image: where they are not 3, the
    first convolution is replaced by one of the same shape that takes them, initialised
    as torch does.

    Args:
        name: a name of ``torchvision.models.list_models()``.
        in_channels: channels of the images.
        classes: outputs.
        image_size: passed on to the vision transformers, which need it.
        **options: further arguments of torchvision's builder.

    Raises:
        ModuleNotFoundError: torchvision is not installed.
        ValueError: torchvision has no such network.
    """
    models = importlib.import_module(f"{import_torchvision().__name__}.models")
    known = models.list_models(module=models)
    if name not in known:
        raise ValueError(
            f"unknown torchvision model {name!r}; known: {', '.join(known)}"
        )
    if name.startswith("vit_"):
        if image_size[0] != image_size[1]:
            raise ValueError(
                f"torchvision:{name} takes square images, got image_size={image_size}"
            )
        options.setdefault("image_size", image_size[0])
    if name in AUXILIARY:
        options = {"aux_logits": False, "init_weights": True} | options
    model = models.get_model(name, weights=None, num_classes=classes, **options)
    if in_channels != 3:
        _replace_first_conv(model, in_channels)
    return model


def _replace_first_conv(model: nn.Module, in_channels: int) -> None:
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            parent, _, child = name.rpartition(".")
            new = nn.Conv2d(
                in_channels,
                module.out_channels,
                module.kernel_size,  # pyright: ignore[reportArgumentType]
                module.stride,  # pyright: ignore[reportArgumentType]
                module.padding,  # pyright: ignore[reportArgumentType]
                module.dilation,  # pyright: ignore[reportArgumentType]
                bias=module.bias is not None,
            )
            setattr(model.get_submodule(parent), child, new)
            return
    raise ValueError(f"{type(model).__name__} has no convolution to give the channels")
