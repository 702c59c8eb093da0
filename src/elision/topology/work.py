"""Cost of a method by rule, from layer densities and multiply-accumulates.

The rules are those of the literature (Evci et al., Rigging the Lottery, appendix on
FLOPs; for SWAT and ReSprop they follow from the products). With ``f_l`` the dense
multiply-accumulates of one forward pass of layer ``l`` and ``d_l`` its density,
``fD = sum f_l`` and ``fS = sum d_l·f_l``; dense training costs ``3·fD`` a step.

The first layer has no input gradient. Most papers count one all the same; here it is a
choice. What a run really did is measured by :func:`elision.metered`.
"""

from collections.abc import Mapping

from elision.products import Product

__all__ = [
    "dense_gradient",
    "fixed_mask",
    "inference_ratio",
    "mask_update",
    "meprop",
    "resprop",
    "rigl",
    "swat",
    "training_ratio",
]

#: Share of the dense work that each product of a layer does.
Shares = Mapping[Product, float]

_F, _I, _W = Product.FORWARD, Product.INPUT_GRAD, Product.WEIGHT_GRAD


def fixed_mask(density: float) -> Shares:
    """Static, SET, DSR: the mask in all three products."""
    return {_F: density, _I: density, _W: density}


def dense_gradient(density: float) -> Shares:
    """SNFS, DST, gradual pruning: the weight gradient is dense."""
    return {_F: density, _I: density, _W: 1.0}


def rigl(density: float, every: int = 100) -> Shares:
    """RigL: one step in ``every + 1`` computes the dense gradient."""
    weight_grad = (density * every + 1) / (every + 1)
    return {_F: density, _I: density, _W: weight_grad}


def swat(weight_density: float, activation_density: float) -> Shares:
    """SWAT: sparse weights twice, sparse activations once."""
    return {_F: weight_density, _I: weight_density, _W: activation_density}


def resprop(reuse: float, batch: int) -> Shares:
    """ReSprop: the sparse difference and, once a batch, the reference."""
    share = min(1.0, (1 - reuse) + 1 / batch)
    return {_F: 1.0, _I: share, _W: share}


def meprop(keep: float) -> Shares:
    """MeProp: the kept share of the output gradient, in both gradients."""
    return {_F: 1.0, _I: keep, _W: keep}


def mask_update(values: int, macs: Mapping[str, int], *, every: int = 1) -> float:
    """Cost of choosing: values read per step over dense multiply-accumulates.

    Comparisons are no multiply-accumulates, so this stands beside the training ratio
    and is not added to it.

    Args:
        values: number that one choice reads: every weight twice for RigL and SET (to drop and
            to grow), every weight and activation once for SWAT.
        macs: dense multiply-accumulates of one forward pass of each layer, of a batch.
        every: steps between two choices.
    """
    return values / every / (3 * sum(macs.values()))


def inference_ratio(shares: Mapping[str, Shares], macs: Mapping[str, int]) -> float:
    """``fS/fD``: forward work over dense forward work.

    Args:
        shares: of each layer; a layer that is not named is dense.
        macs: dense multiply-accumulates of one forward pass of each layer.
    """
    done = sum(
        shares[name][_F] * n if name in shares else n for name, n in macs.items()
    )
    return done / sum(macs.values())


def training_ratio(
    shares: Mapping[str, Shares],
    macs: Mapping[str, int],
    *,
    first_input_grad: bool = True,
) -> float:
    """Work of a training step over that of a dense one.

    Args:
        shares: of each layer; a layer that is not named is dense.
        macs: dense multiply-accumulates of each layer, in the order of execution.
        first_input_grad: whether the first layer's input gradient counts, on both
            sides.
    """
    done = dense = 0.0
    for position, (name, n) in enumerate(macs.items()):
        for product in Product:
            if product is _I and position == 0 and not first_input_grad:
                continue
            dense += n
            done += n * (shares[name][product] if name in shares else 1.0)
    return done / dense
