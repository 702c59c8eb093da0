"""The plain network of a trained one: pruned for good, rounded only later."""

from typing import TypeVar

import torch
from torch import Tensor, nn

from elision.layers.elide import restore
from elision.layers.finalize import finalize
from elision.layers.modules.base import ElidedLayer, plan_of, states_of
from elision.layers.parts import parameter_of
from elision.layers.reach import elided_layers
from elision.operands import KEEP, Transform
from elision.operands.chain import links_of
from elision.products import Product

__all__ = ["plain"]

Model = TypeVar("Model", bound=nn.Module)


@torch.no_grad()
def plain(model: Model) -> Model:
    """The plain network that a quantised graph is made of, in place.

    As :func:`finalize`, but a recipe whose forward product rounds its operands to a number
    format is accepted, since the export rounds anew: masks and top-k selections of weights
    go into the parameters, formats do not. A plain model is returned as it is.

    Args:
        model: elided or plain.

    Returns:
        The same model, plain, in evaluation mode.

    Raises:
        ValueError: as :func:`finalize`, where a forward product does more to its input
            than round it.

    Example:
        >>> import elision
        >>> from elision.methods import Int8, Swat
        >>> model = elision.elide(nn.Linear(4, 2), Swat(0.5, dense=()) + Int8())
        >>> int((plain(model).weight == 0).sum())
        4
    """
    layers = dict(elided_layers(model))
    if not layers:
        return model.eval()
    if not all(_only_rounds(layer) for layer in layers.values()):
        return finalize(model).eval()
    baked: list[tuple[nn.Parameter, Tensor]] = []
    for name, layer in layers.items():
        use = plan_of(layer).use(Product.FORWARD, "weight")
        states = states_of(layer, use)
        weight = parameter_of(layer)
        found = None
        for prefix, link in links_of(plan_of(layer).uses[use]):
            if not link.sparsifies:
                continue
            if weight is None:
                raise ValueError(
                    f"layer {name}: its weight is computed (a parametrisation, "
                    "weight_norm), so there is none to write the sparse one into; "
                    "remove that first"
                )
            own = [states[prefix + state] for state in link.initial_state()]
            found = link(weight if found is None else found, own, False)
        if found is not None and weight is not None:
            baked.append((weight, found))
    for weight, value in baked:
        weight.copy_(value)
    return restore(model).eval()


def _only_rounds(layer: ElidedLayer) -> bool:
    """Whether a layer's forward product does nothing but mask and round.

    Such rounding is what :func:`finalize` would refuse, or write into the parameters.
    """
    plan = plan_of(layer)
    table = plan.table
    reads = [link for _, link in links_of(table[Product.FORWARD, "input"])]
    weights = [
        link for _, link in links_of(plan.uses[plan.use(Product.FORWARD, "weight")])
    ]
    if not all(link == KEEP or _rounds(link) for link in reads):
        return False
    return all(link == KEEP or _rounds(link) or link.sparsifies for link in weights)


def _rounds(link: Transform) -> bool:
    return link.number_format != "fp32" and not link.sparsifies
