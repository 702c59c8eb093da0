"""Layers whose weight has its inputs on the first axis, such as transposed convolutions.

Transforms and patterns that read axes see their weight turned, with the outputs first
(:mod:`elision.operands.outputs_first`). Masks, and whatever chooses by magnitude alone,
act on it as it is, so a mask has the shape of its weight in every layer.
"""

from torch import nn

from elision.layers.table import Table
from elision.operands import Accumulate, Chain, Transform
from elision.operands.outputs_first import OutputsFirst
from elision.products import Product

__all__ = ["groups_if_turned", "turned_table", "turned_transform"]


def groups_if_turned(layer: nn.Module) -> int | None:
    """Groups of a layer whose weight has its inputs on axis 0; None: of another layer.

    Example:
        >>> groups_if_turned(nn.ConvTranspose2d(4, 2, 3)), groups_if_turned(nn.Linear(4, 2))
        (1, None)
    """
    if isinstance(layer, nn.modules.conv._ConvTransposeNd):
        return layer.groups
    homes = {(kind.__module__, kind.__name__) for kind in type(layer).__mro__}
    return 1 if _CONV1D in homes else None


#: Transformers' linear layer, which is not imported here.
_CONV1D = ("transformers.pytorch_utils", "Conv1D")


def turned_table(table: Table, layer: nn.Module) -> Table:
    """The table of a layer, whose transforms of weights see the outputs on axis 0."""
    groups = groups_if_turned(layer)
    if groups is None or not any(t.reads_axes for _, o, t in table if o == "weight"):
        return table
    rows: dict[Product, dict[str, Transform | Accumulate]] = {
        product: {"accumulate": table.accumulate(product)} for product in Product
    }
    for product, operand, transform in table:
        is_weight = operand == "weight"
        rows[product][operand] = (
            turned_transform(transform, groups) if is_weight else transform
        )
    return Table(rows)


def turned_transform(transform: Transform, groups: int) -> Transform:
    """A transform of a weight that has its inputs on axis 0.

    Example:
        >>> from elision.operands import Mask, TopNofM
        >>> turned_transform(Mask(), 1) == Mask(), turned_transform(TopNofM(), 2).groups
        (True, 2)
    """
    if not transform.reads_axes:
        return transform
    if isinstance(transform, Chain):  # the state of its masks is the weight's
        return Chain(tuple(turned_transform(link, groups) for link in transform.links))
    return OutputsFirst(transform, groups)
