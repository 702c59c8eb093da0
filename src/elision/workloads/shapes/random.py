"""Products of a known network with random sparse operands."""

from collections.abc import Iterator

from elision.common.checks import count
from elision.products import Geometry, LayerProduct, synthetic_products
from elision.workloads.models import make_model
from elision.workloads.shapes.of_model import layer_shapes

__all__ = ["model_layers", "random_products"]


def random_products(
    model: str, input: int, batch: int, sparsity: float, seed: int = 0
) -> Iterator[LayerProduct]:
    """All three products of every layer of a network, with random sparse operands.

    Args:
        model: name of a network.
        input: height and width of its images, pixels.
        batch: images.
        sparsity: fraction of zeros of every operand, in [0, 1).
        seed: of the random stream.

    Raises:
        ValueError: an unknown network, an image too small for it, or a number out of
            range.
    """
    if not 0 <= sparsity < 1:
        raise ValueError(f"sparsity must be in [0, 1), got {sparsity}")
    return synthetic_products(model_layers(model, input, batch), sparsity, seed)


def model_layers(model: str, input: int, batch: int) -> list[tuple[str, Geometry]]:
    """Shapes of the layers of a network that this library knows by name.

    Args:
        model: name of a network.
        input: height and width of its images, pixels.
        batch: images.

    Raises:
        ValueError: an unknown network, an image too small for it, or a number out of
            range.
    """
    for name, value in (("input", input), ("batch", batch)):
        if value < 1:
            raise ValueError(f"{name} must be >= 1, got {value}")
        count(model, name, value)
    network = make_model(model, image_size=input)
    return layer_shapes(network, (batch, 3, input, input))
