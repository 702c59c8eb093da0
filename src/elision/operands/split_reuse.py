"""ReSprop's two products in two parts: a shared one and a sparse one.

With the hybrid gradient ``HG = P + S``, ``P`` one sample broadcast over the batch and
``S`` sparse, both products of ``HG`` split::

    dX = P · Wᵀ  +  S · Wᵀ        the first computed for one sample, then broadcast
    dW = P · sum_n X_n  +  S · X  the first a product of one sample

The shared part costs ``1/N`` of a dense product. Dense computation of ``HG`` gives the
same result and is the oracle for this one.
"""

import torch
from torch import Tensor

from elision.products import Geometry, LayerProduct, Product

__all__ = ["shared_part", "split_input_grad", "split_weight_grad"]


def split_input_grad(
    reference: Tensor,
    difference: Tensor,
    weight: Tensor,
    geometry: Geometry,
) -> Tensor:
    """``dX`` of the hybrid gradient, in two parts.

    Args:
        reference: ``P``, of shape ``(1, K, P, Q)`` or ``(1, columns)``.
        difference: ``S``, of the output gradient's shape.
        weight: ``W``.
        geometry: of the layer, with its whole batch.
    """
    shared = shared_part(Product.INPUT_GRAD, reference, weight, geometry)
    own = LayerProduct(Product.INPUT_GRAD, geometry, difference, weight).compute()
    return own + shared


def split_weight_grad(
    reference: Tensor,
    difference: Tensor,
    x: Tensor,
    geometry: Geometry,
) -> Tensor:
    """``dW`` of the hybrid gradient, in two parts.

    Args:
        reference: ``P``, of shape ``(1, K, P, Q)`` or ``(1, columns)``.
        difference: ``S``, of the output gradient's shape.
        x: the layer's input.
        geometry: of the layer, with its whole batch.
    """
    shared = shared_part(Product.WEIGHT_GRAD, reference, x, geometry)
    own = LayerProduct(Product.WEIGHT_GRAD, geometry, difference, x).compute()
    return own + shared


def shared_part(
    product: Product,
    reference: Tensor,
    other: Tensor,
    geometry: Geometry,
) -> Tensor:
    """The part of ``dX`` or ``dW`` that is the reference's, to be broadcast or added.

    Args:
        product: input gradient or weight gradient.
        reference: ``P``, of shape ``(1, K, P, Q)`` or ``(1, columns)``.
        other: ``W`` or ``X``.
        geometry: of the layer, with its whole batch.
    """
    if product is Product.WEIGHT_GRAD:
        other = torch.sum(other, 0, keepdim=True)
    return LayerProduct(product, geometry.with_batch(1), reference, other).compute()
