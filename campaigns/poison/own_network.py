"""A network of a user's own whose layers have the names of a trial."""

from torch import nn

__all__ = ["network"]


def network(num_classes: int, in_channels: int, label: str) -> nn.Module:
    """A convolution and two matrix products, each with a name that holds a label."""
    model = nn.Sequential()
    model.add_module(f"{label}0", nn.Conv2d(in_channels, 4, 3, stride=2))
    model.add_module("relu", nn.ReLU())
    model.add_module("flat", nn.Flatten())
    model.add_module(f"{label}1", nn.Linear(36, 8))
    model.add_module(label, nn.Linear(8, num_classes))
    return model
