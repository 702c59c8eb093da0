"""find_nonfinite: where the first NaN or infinity of a pass arises, forward or back.

Asked once a pass has gone wrong: the pass runs a second time with everything looked at.
A pass that nobody asks about costs nothing.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from elision.layers.observation import Computed, Observation
from elision.layers.reach import elidable_layers
from elision.layers.watch import watch
from elision.products import Product

__all__ = ["FirstNonfinite", "find_nonfinite", "value_in"]

#: What a product's result is called.
_RESULTS = {
    Product.FORWARD: "output",
    Product.INPUT_GRAD: "input gradient",
    Product.WEIGHT_GRAD: "weight gradient",
}

#: What a product is called.
_PRODUCTS = {
    Product.FORWARD: "forward",
    Product.INPUT_GRAD: "input-gradient",
    Product.WEIGHT_GRAD: "weight-gradient",
}

#: What a product's operand is called.
_OPERANDS = {
    "input": "input",
    "weight": "weight",
    "grad_output": "output gradient",
}


@dataclass
class FirstNonfinite:
    """The first value of a pass that is not finite.

    Attributes:
        where: in words: NaN or infinity, in which tensor of which layer, and how it was
            first seen; None: everything is finite.

    Example:
        >>> FirstNonfinite().where is None
        True
    """

    where: str | None = None
    _recipe: str = field(default="", repr=False)

    def __call__(self, observation: Observation) -> None:
        """Look at the operands of a product that is about to be computed."""
        product, self._recipe = observation.product, observation.recipe
        for name, x in product.operands.items():
            self._look(x, _OPERANDS[name], product.name, product.kind, "as read by")

    def computed(self, seen: Computed) -> None:
        """Look at the result of a product."""
        what = _RESULTS[seen.kind]
        self._look(seen.result, what, seen.layer, seen.kind, "as the result of")

    def module_done(self, name: str, output: Any) -> None:
        """Look at the output of a module without modules of its own."""
        if self.where is None and isinstance(output, Tensor):
            value = value_in(output)
            if value is not None:
                self.where = (
                    f"{value} in the output of layer {name!r}, first seen there"
                )

    def _look(self, x: Tensor, what: str, layer: str, kind: Product, how: str) -> None:
        if self.where is not None:
            return
        value = value_in(x)
        if value is not None:
            self.where = (
                f"{value} in the {what} of layer {layer!r} (recipe {self._recipe}), "
                f"first seen {how} its {_PRODUCTS[kind]} product"
            )


def value_in(x: Tensor) -> str | None:
    """``"nan"`` or ``"inf"`` if a tensor holds one, NaN before infinity; None: neither.

    Args:
        x: any shape and dtype.

    Example:
        >>> value_in(torch.tensor([1.0, -torch.inf])), value_in(torch.ones(2))
        ('inf', None)
    """
    if torch.isfinite(x).all():
        return None
    return "nan" if torch.isnan(x).any() else "inf"


@contextmanager
def find_nonfinite(model: nn.Module) -> Iterator[FirstNonfinite]:
    """Find the first value that is not finite, in what runs inside of the context.

    Looks, in the order of computation, at the operands and results of all three products
    of every layer in reach, at the products of a model's own calls, and at the outputs of
    modules without modules of their own. What arises between two products of the backward
    pass is seen as the output gradient that the next product reads.

    Args:
        model: elided or not; not compiled. Layers compute product by product meanwhile.

    Yields:
        What is found, which fills as the model runs.

    Raises:
        ValueError: the model is compiled.

    Example:
        >>> import elision
        >>> model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
        >>> _ = elision.elide(model, elision.methods.Swat(0.5, dense=()))
        >>> with elision.layers.find_nonfinite(model) as first:
        ...     model(torch.ones(2, 4)).sum().mul(torch.inf).backward()
        >>> print(first.where)  # doctest: +NORMALIZE_WHITESPACE
        inf in the output gradient of layer '1' (recipe swat),
        first seen as read by its input-gradient product
    """
    first = FirstNonfinite()

    def hook(name: str) -> Callable[..., None]:
        return lambda module, args, output: first.module_done(name, output)

    with ExitStack() as watching:
        if hasattr(model, "_orig_mod") or elidable_layers(model):
            watching.enter_context(watch(model, first))
        for name, module in model.named_modules():
            if not any(module.children()):
                handle = module.register_forward_hook(hook(name))
                watching.callback(handle.remove)
        yield first
