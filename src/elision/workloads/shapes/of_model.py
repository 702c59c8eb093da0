"""The geometry of every layer of a network, without computing anything."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from elision.products import (
    Conv2dGeometry,
    Conv3dGeometry,
    ConvTranspose2dGeometry,
    ConvTranspose3dGeometry,
    Geometry,
    MatmulGeometry,
)
from elision.workloads.shapes.of_calls import WeightProducts, on_two_axes

__all__ = ["layer_shapes"]

Shape = tuple[int, ...]


def layer_shapes(
    model: nn.Module, input_shape: tuple[int, ...]
) -> list[tuple[str, Geometry]]:
    """Geometry of each product of a weight, in execution order.

    The model runs once in evaluation mode on tensors of torch's ``meta`` device, which
    have a shape and no values; its own parameters and mode are left as they are. A
    layer that is called twice (a recurrent one) appears twice under its name. What is
    computed from a parameter by a function, as in ``nn.LSTM`` and in the projections of
    ``nn.MultiheadAttention``, stands under the parameter's name. Products of two
    activations, as of attention, have no weight and are no layer.

    A convolution whose padding is not one number of zeros per axis (``"same"`` with an
    even kernel, reflection, networks that pad before their convolution) is given as one
    without padding on the padded image: these are the products that it computes. One over
    a line is given as one over images of one row.

    Args:
        model: any module.
        input_shape: shape of its one input, batch included.

    Returns:
        Pairs of qualified name and geometry.

    Warns:
        UserWarning: products of weights that have no geometry (``torch.baddbmm``), with
            their number.

    Raises:
        ValueError: the input of a convolution is no batch of images.

    Example:
        >>> layer_shapes(nn.Sequential(nn.Linear(4, 2)), (3, 4))
        [('0', MatmulGeometry(rows=3, inner=4, columns=2, batch=1))]
    """
    found: list[tuple[str, Geometry]] = []
    reading: list[nn.Module] = []
    tensors = [*model.named_parameters(), *model.named_buffers()]
    shapes_only = {name: tensor.to("meta") for name, tensor in tensors}
    parameters = {name: shapes_only[name] for name, _ in model.named_parameters()}
    others = WeightProducts(
        parameters,
        lambda name, geometry: found.append((name.removesuffix(".weight"), geometry)),
    )

    def watch(name: str, module: nn.Module) -> list[Any]:
        read = next(
            (read for kind, read in _READERS.items() if isinstance(module, kind)), None
        )
        if read is None:
            return []

        def enter(*_: Any) -> None:
            reading.append(module)
            others.paused = True

        def leave(_: nn.Module, inputs: tuple[torch.Tensor, ...], output: Any) -> None:
            reading.pop()
            others.paused = bool(reading)
            found.append((name, read(module, inputs[0].shape, output.shape)))

        return [
            module.register_forward_pre_hook(enter),
            module.register_forward_hook(leave),
        ]

    hooks: list[Any] = []
    for name, module in model.named_modules():
        hooks += watch(name, module)
    try:
        with _evaluating(model), torch.no_grad(), others, _slow_attention():
            torch.func.functional_call(
                model, shapes_only, torch.empty(input_shape, device="meta")
            )
    finally:
        for hook in hooks:
            hook.remove()
    if others.unread:
        counted = ", ".join(f"{name} ({n})" for name, n in others.unread.items())
        warnings.warn(
            f"layer_shapes: products of weights that are not read: {counted}",
            stacklevel=2,
        )
    return found


def _linear(module: nn.Linear, entry: Shape, result: Shape) -> Geometry:
    del result
    rows = torch.Size(entry).numel() // module.in_features
    return MatmulGeometry(rows, module.in_features, module.out_features)


def _convolution(
    module: nn.Conv1d | nn.Conv2d | nn.Conv3d, entry: Shape, result: Shape
) -> Geometry:
    """Geometry of one call of a convolution, from what went in and what came out."""
    rank = _rank(module, entry)
    stride, dilation, kernel = module.stride, module.dilation, module.kernel_size
    pads = module._reversed_padding_repeated_twice[::-1]
    after, before = tuple(pads[0::2]), tuple(pads[1::2])
    # The smallest image that gives this output without any padding, and the module's.
    bare = [
        (result[2 + i] - 1) * stride[i] + dilation[i] * (kernel[i] - 1) + 1
        for i in range(rank)
    ]
    padded = [entry[2 + i] + before[i] + after[i] for i in range(rank)]
    padding = (0,) * rank
    if not all(0 <= padded[i] - bare[i] < stride[i] for i in range(rank)):
        entry = (*entry[:2], *bare)  # the module pads its input in a way of its own
    elif before == after and module.padding_mode == "zeros":
        padding = before
    else:
        entry = (*entry[:2], *padded)
    weight = tuple(module.weight.shape)
    how: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation}
    how["groups"] = module.groups
    if rank == 3:
        return Conv3dGeometry.of(entry, weight, **how)
    entry, weight, how = on_two_axes(entry, weight, how)
    return Conv2dGeometry.of(entry, weight, **how)


def _transposed(
    module: nn.modules.conv._ConvTransposeNd, entry: Shape, result: Shape
) -> Geometry:
    """Geometry of one call, whose output may be larger than the module's by default."""
    rank = _rank(module, entry)
    weight = tuple(module.weight.shape)
    how: dict[str, Any] = {
        name: getattr(module, name) for name in ("stride", "padding", "dilation")
    }
    least = [
        (entry[2 + i] - 1) * how["stride"][i]
        - 2 * how["padding"][i]
        + how["dilation"][i] * (weight[2 + i] - 1)
        + 1
        for i in range(rank)
    ]
    how["output_padding"] = tuple(
        size - base for size, base in zip(result[2:], least, strict=True)
    )
    how["groups"] = module.groups
    if rank == 3:
        return ConvTranspose3dGeometry.of(entry, weight, **how)
    entry, weight, how = on_two_axes(entry, weight, how)
    return ConvTranspose2dGeometry.of(entry, weight, **how)


def _rank(module: Any, entry: Shape) -> int:
    """Axes of a convolution's images.

    Raises:
        ValueError: the input is not a batch of images.
    """
    rank = len(module.kernel_size)
    if len(entry) != rank + 2:
        axes = ", ".join(["N", "C", *"DHW"[3 - rank :]])
        raise ValueError(f"a convolution needs ({axes}), got {tuple(entry)}")
    return rank


#: Readers by type of module, from shapes of input and output.
_READERS: dict[type[nn.Module], Callable[[Any, Shape, Shape], Geometry]] = {
    nn.Linear: _linear,
    nn.Conv1d: _convolution,
    nn.Conv2d: _convolution,
    nn.Conv3d: _convolution,
    nn.ConvTranspose1d: _transposed,
    nn.ConvTranspose2d: _transposed,
    nn.ConvTranspose3d: _transposed,
}


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, which lets one image of one pixel pass batch normalisation."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def _slow_attention() -> Iterator[None]:
    """Attention of torch without its fused forms for evaluation, whose parts are hidden."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
