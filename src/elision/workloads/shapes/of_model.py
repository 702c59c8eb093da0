"""The geometry of every layer of a network, without computing anything."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from elision.products import Conv2dGeometry, Geometry, MatmulGeometry

__all__ = ["layer_shapes"]


def layer_shapes(
    model: nn.Module, input_shape: tuple[int, ...]
) -> list[tuple[str, Geometry]]:
    """Geometry of each call of each ``Conv2d`` and ``Linear``, in execution order.

    The model runs once in evaluation mode on tensors of torch's ``meta`` device, which
    have a shape and no values; its own parameters and mode are left as they are. A
    layer that is called twice (a recurrent one) appears twice under its name.

    A convolution whose padding is not one number of zeros per axis (``"same"`` with an
    even kernel, reflection, networks that pad before their convolution) is given as one
    without padding on the padded image: these are the products that it computes.

    Args:
        model: any module.
        input_shape: shape of its one input, batch included.

    Returns:
        Pairs of qualified name and geometry.
    """
    found: list[tuple[str, Geometry]] = []

    def watch(name: str, module: nn.Module) -> Any:
        def note(_: nn.Module, inputs: tuple[torch.Tensor], output: Any) -> None:
            shape = tuple(inputs[0].shape)
            if isinstance(module, nn.Conv2d):
                found.append((name, conv_geometry(module, shape, tuple(output.shape))))
            elif isinstance(module, nn.Linear):
                rows = inputs[0].numel() // module.in_features
                found.append(
                    (
                        name,
                        MatmulGeometry(rows, module.in_features, module.out_features),
                    )
                )

        return module.register_forward_hook(note)

    hooks = [
        watch(name, module)
        for name, module in model.named_modules()
        if isinstance(module, (nn.Conv2d, nn.Linear))
    ]
    tensors = [*model.named_parameters(), *model.named_buffers()]
    shapes_only = {name: tensor.to("meta") for name, tensor in tensors}
    try:
        with _evaluating(model), torch.no_grad():
            torch.func.functional_call(
                model, shapes_only, torch.empty(input_shape, device="meta")
            )
    finally:
        for hook in hooks:
            hook.remove()
    return found


def conv_geometry(
    module: nn.Conv2d, input_shape: tuple[int, ...], output_shape: tuple[int, ...]
) -> Conv2dGeometry:
    """Geometry of one call of a convolution, from what went in and what came out.

    Raises:
        ValueError: the input is not a batch of images.
    """
    if len(input_shape) != 4:
        raise ValueError(f"a convolution needs (N, C, H, W), got {input_shape}")
    how: dict[str, Any] = {
        "stride": module.stride,
        "dilation": module.dilation,
        "groups": module.groups,
    }
    weight_shape = tuple(module.weight.shape)
    left, right, top, bottom = module._reversed_padding_repeated_twice
    before, after = (top, left), (bottom, right)
    # The smallest image that gives this output without any padding, and the module's.
    bare = [
        (output_shape[2 + i] - 1) * module.stride[i]
        + module.dilation[i] * (module.kernel_size[i] - 1)
        + 1
        for i in range(2)
    ]
    padded = [input_shape[2 + i] + before[i] + after[i] for i in range(2)]
    if not all(0 <= padded[i] - bare[i] < module.stride[i] for i in range(2)):
        padded = bare  # the module pads its input in a way of its own
    elif before == after and module.padding_mode == "zeros":
        return Conv2dGeometry.of(input_shape, weight_shape, padding=before, **how)
    return Conv2dGeometry.of((*input_shape[:2], *padded), weight_shape, **how)


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
