"""One product as a layer computed it, as recorders and meters see it."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from elision.products import ConvolutionParameters, LayerProduct, Product

__all__ = ["Computed", "Observation", "Observer", "without"]


@dataclass(frozen=True)
class Observation:
    """One computed product, as an observer (a recorder, a meter) gets it.

    Attributes:
        product: the product with the operands it read (tensors, not copied).
        work: per operand name, the fraction of the multiplications that its transform
            leaves to do (see :meth:`elision.operands.Transform.work`); for a weight
            gradient also ``"result"``, the fraction of its values that is computed.
        uses: per operand name, the name of the tensor read; products of one call that
            read the same tensor give the same name.
        shared: values that all examples of the first operand have in common, of its
            shape with one example, where its transform knows them; None otherwise.
        recipe: name of the recipe.
        call: token of one pass through the layer, equal for its three products.

    Example:
        >>> import torch, elision
        >>> model = elision.elide(torch.nn.Linear(4, 2), elision.methods.Swat(0.5, dense=()))
        >>> with elision.layers.watch(model, lambda seen: print(seen.recipe, seen.work)):
        ...     _ = model(torch.ones(3, 4))
        swat {'input': 1.0, 'weight': 0.5}
    """

    product: LayerProduct
    work: dict[str, float]
    uses: dict[str, str]
    shared: Tensor | None
    recipe: str
    call: object


@dataclass(frozen=True)
class Computed:
    """One product with its result, for an observer that has a method ``computed``.

    Attributes:
        kind: which of the three products.
        first, second: operands as the product read them, named by ``kind.operands``.
        result: what was computed; the observer may write into it.
        bias: that was added, ``(K,)``; None without one.
        convolution: parameters; None for a matrix product.
        layer: name of the layer.
        whole: whether all of the result is needed; else values that a mask does not want
            are zero in it.
    """

    kind: Product
    first: Tensor
    second: Tensor
    result: Tensor
    bias: Tensor | None
    convolution: ConvolutionParameters | None
    layer: str
    whole: bool


#: Called with every product of a watched model (see :func:`elision.layers.watch`). One
#: that has a method ``computed`` is called there, too, with a :class:`Computed`, once the
#: result is there.
Observer = Callable[[Observation], None]


def without(
    observers: tuple[Observer, ...], observer: Observer
) -> tuple[Observer, ...]:
    """Observers less one entry of ``observer``; all of them if it is not there.

    Example:
        >>> without((print, len, print), print) == (len, print)
        True
    """
    for i, known in enumerate(observers):
        if known is observer:
            return (*observers[:i], *observers[i + 1 :])
    return observers
