"""Other libraries that can be used with this one; each is an extra.

Importing this package imports none of them.
"""

from collections.abc import Callable

from torch import nn

from elision.workloads.libraries.timm import build as build_timm
from elision.workloads.libraries.torchvision import build as build_torchvision

__all__ = ["BUILDERS"]

#: Libraries of networks: ``BUILDERS["timm"]`` builds the model called ``timm:NAME``.
BUILDERS: dict[str, Callable[..., nn.Module]] = {
    "timm": build_timm,
    "torchvision": build_torchvision,
}
