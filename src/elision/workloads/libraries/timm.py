"""Networks of timm (PyTorch Image Models), with random weights."""

import difflib
from typing import Any

from torch import nn

from elision.common.extras import imported
from elision.workloads.libraries.torchvision import import_torchvision

__all__ = ["build"]


def build(
    name: str,
    *,
    in_channels: int,
    classes: int,
    image_size: tuple[int, int],
    **options: Any,
) -> nn.Module:
    """Build timm's network ``name`` with random weights; nothing is downloaded.

    Args:
        name: a name of ``timm.list_models()``.
        in_channels: channels of the images.
        classes: outputs.
        image_size: passed on to the networks that need it (vision transformers).
        **options: further arguments of ``timm.create_model``.

    Raises:
        ModuleNotFoundError: timm, or torchvision that it imports, is not installed.
        ValueError: timm has no such network.
    """
    import_torchvision()  # timm imports it and would stop at its missing operators
    timm = imported("timm", "timm", "a model timm:NAME")
    if not timm.is_model(name):
        known = timm.list_models()
        near = difflib.get_close_matches(name, known, n=5) or known[:5]
        raise ValueError(
            f"unknown timm model {name!r}; the nearest of the {len(known)} names in "
            f"timm.list_models(): {', '.join(near)}"
        )
    defaults = timm.get_pretrained_cfg(name)
    if defaults is not None and defaults.fixed_input_size:
        options.setdefault("img_size", image_size)
    return timm.create_model(
        name,
        pretrained=False,
        in_chans=in_channels,
        num_classes=classes,
        **options,
    )
