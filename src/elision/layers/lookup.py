"""The table of an embedding, which looks rows up instead of multiplying with them.

Its input is one-hot: a transform of it finds ones and zeros, and leaves them. Integers
have no gradient, so there is no second product with the weight either.
"""

from torch import nn

from elision.layers.table import Table
from elision.operands import TORCH
from elision.products import Product

__all__ = ["lookup_table"]


def lookup_table(table: Table, layer: nn.Module, name: str) -> Table:
    """The cells of a table that an embedding has; of another layer, all of them.

    Args:
        table: of the recipe.
        layer: the layer.
        name: of the layer, for messages.

    Raises:
        ValueError: the embedding makes sparse gradients, and a cell needs dense ones.

    Example:
        >>> from elision.methods import Swat
        >>> swat = Swat(0.5).table
        >>> cells = lookup_table(swat, nn.Embedding(9, 4), "emb")
        >>> [str(cells[Product.WEIGHT_GRAD, o]) for o in ("grad_output", "input")]
        ['keep', 'keep']
    """
    if not isinstance(layer, nn.Embedding):
        return table
    weight = table[Product.FORWARD, "weight"]
    sums = table.accumulate(Product.WEIGHT_GRAD)
    if layer.sparse and (weight.own_gradient or sums != TORCH):
        why = "an accumulator" if sums != TORCH else "a transform's own gradient"
        raise ValueError(
            f"layer {name or '(the model itself)'}: an embedding with sparse gradients "
            f"leaves no room for {why}; make it with sparse=False, or leave it dense "
            '(dense=(":embedding",))'
        )
    return Table(
        {
            Product.FORWARD: {
                "weight": weight,
                "accumulate": table.accumulate(Product.FORWARD),
            },
            Product.INPUT_GRAD: {"weight": weight},
            Product.WEIGHT_GRAD: {
                "grad_output": table[Product.WEIGHT_GRAD, "grad_output"],
                "accumulate": sums,
            },
        }
    )
