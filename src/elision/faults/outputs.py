"""The outputs of layers, shown as they go to the next."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn

__all__ = ["See", "outputs_shown"]

#: Called with a layer's name and its output; what it returns, unless None, takes its place.
See = Callable[[str, Any], Any]


@contextmanager
def outputs_shown(layers: Mapping[str, nn.Module], see: See) -> Iterator[None]:
    """Show the output of each layer, by the layer's name, in the context.

    Args:
        layers: by name.
        see: see :data:`See`.

    Example:
        >>> import torch
        >>> layer = nn.ReLU()
        >>> with outputs_shown({"relu": layer}, lambda name, output: output + 1):
        ...     layer(torch.zeros(2))
        tensor([1., 1.])
    """
    with ExitStack() as stack:
        for name, layer in layers.items():
            handle = layer.register_forward_hook(
                lambda _module, _arguments, output, name=name: see(name, output)
            )
            stack.callback(handle.remove)
        yield
