"""Ternary residual networks: trained weights as few ternary terms, without retraining.

A layer's weight becomes ``Σ_r α_r·t_r`` block by block
(:mod:`elision.formats.ternary_blocks`), its input 8-bit integers. Every block has its
first term. Further ones go, one by one over all layers, to the block where

    gain = (squared error removed) x (sensitivity of the layer)

is largest, until the accuracy on calibration data is within the drop that is asked for.
Terms given last are worth least, and can be disabled at any time.

The sensitivity of a layer is ``‖Δz‖²/‖ΔW‖²``, measured at the network's output ``z`` with
a small ``ΔW`` along the error of the first term; the paper bounds it layer by layer.

Source: Kundu et al., Ternary Residual Networks, arXiv 1707.04679. The measured
sensitivity, the search and the 8-bit code of a scale are this project's choices.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from elision.common.checks import integer, number, one_of
from elision.common.names import lookup
from elision.engines import make_engine
from elision.formats.ternary_blocks import (
    TernaryBlocks,
    rows_of,
    ternary_blocks,
    weight_of,
)
from elision.layers.modules.base import ElidedLayer
from elision.layers.reach import tied_to
from elision.layers.recipe import selects
from elision.precision.calibration import Calibration, norm_statistics
from elision.precision.ternary_layers import TERNARY, InputGrid, Terms
from elision.precision.ternary_network import TernaryNetwork

__all__ = ["ternary_residual"]

Model = TypeVar("Model", bound=nn.Module)

#: Size of the weight change, relative to the weight, that measures a sensitivity: small
#: enough for the output to follow in proportion (an own choice).
_PROBE = 0.05

#: Steps into which the search cuts the residual terms (an own choice): the accuracy of
#: some hundred images does not tell finer ones apart.
_STEPS = 256


@torch.no_grad()
def ternary_residual(
    model: Model,
    calibration: Tensor | tuple[Tensor, Tensor] | Iterable[Any],
    drop: float | None = 0.01,
    block: int = 64,
    *,
    budget: float | None = None,
    margin: float = 1.0,
    terms: int = 6,
    dense: tuple[str, ...] = (),
    activation_bits: int | None = 8,
    scales: Literal["8-bit", "exact"] = "8-bit",
    sensitivity: Literal["measured", "relative"] | Mapping[str, float] = "measured",
    batch_norm: Literal["moved", "kept"] = "moved",
    engine: Literal["torch", "native"] = "torch",
    score: Callable[[nn.Module], float] | None = None,
) -> Model:
    """Give a trained model ternary weights, with the residual terms that it needs.

    In place: ``Conv2d`` and ``Linear`` layers (and no subclasses) get the sum of their
    enabled terms as weight and round their input. The state dict keeps its keys and
    loads into a plain model. The model gains

    - ``model.ternary``: a :class:`~elision.precision.ternary_network.TernaryNetwork`,
      the report, ``counts``, ``curve`` and ``restore``;
    - ``model.set_residuals(share)``: enable the most valuable share of the residual
      terms, at any time.

    Args:
        model: a trained model, not elided.
        calibration: examples like those to come: a tensor of inputs, a pair of inputs and
            labels, or batches of either. Without labels, accuracy is the share of
            examples that keep the class they had.
        drop: loss of accuracy that is allowed, in [0, 1]: 0.01 is one point.
        block: weights that share a scale.
        budget: mean terms of a block, in place of ``drop`` (give ``drop=None``).
        margin: standard errors of the measured drop that are added to it before it is
            compared, so that few calibration data ask for more terms, not for luck; 0 as
            published.
        terms: most terms of a block.
        dense: layers left alone: names, patterns or ``":first"``, ``":last"``.
        activation_bits: of the inputs, one step a tensor, from the largest value seen in
            calibration; None leaves them alone.
        scales: 8 bits each, as the published sizes count, or exact.
        sensitivity: ``"measured"`` at the output; ``"relative"``: ``1/‖W‖²``; or a number
            for each layer, such as ``model.ternary.worth`` of another run.
        batch_norm: ``"moved"``: the running mean and variance of every batch norm move
            as ternary weights move them on the calibration data, for each number of
            terms that is given; ``"kept"``: as they are. Nothing is folded into weights
            here: a factor of a row would change no term but the rounding of its scales.
        engine: ``"native"`` computes by the ternary kernel where it can, in evaluation.
        score: accuracy of a model in [0, 1], in place of the classes on ``calibration``.

    Returns:
        The same model, in evaluation mode.

    Raises:
        ValueError: a parameter out of range, no layer to change, a model that is elided
            or ternary, or a drop that even ``terms`` terms a block exceed (the message
            says by how much); the model is as it was.

    Example:
        >>> torch.manual_seed(0)  # doctest: +ELLIPSIS
        <torch._C.Generator object at ...>
        >>> model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 4))
        >>> model = ternary_residual(model, torch.randn(200, 64), drop=0.05)
        >>> model.set_residuals(0.5)
        >>> 1 < model.ternary.counts().mean_terms < 6
        True
    """
    owner = "ternary_residual"
    integer(owner, "block", block)
    integer(owner, "terms", terms)
    one_of(owner, "scales", scales, ("8-bit", "exact"))
    if not isinstance(sensitivity, Mapping):
        one_of(owner, "sensitivity", sensitivity, ("measured", "relative"))
    one_of(owner, "batch_norm", batch_norm, ("moved", "kept"))
    one_of(owner, "engine", engine, ("torch", "native"))
    if activation_bits is not None:
        integer(owner, "activation_bits", activation_bits, "[2, 16]")
    if (drop is None) == (budget is None):
        raise ValueError(f"{owner}: give either drop or budget, and None for the other")
    if drop is not None:
        number(owner, "drop", drop, "[0, 1]")
    number(owner, "margin", margin, ">= 0")
    if budget is not None:
        number(owner, "budget", budget, f"[1, {terms}]")
    if engine == "native":
        make_engine("native")  # raises where the kernels cannot be had
    layers = _layers(model, dense)
    model.eval()
    data = Calibration.of(model, calibration, score)
    seen = data.observe(model, layers)
    plain_norms = data.estimated_norms(model) if batch_norm == "moved" else {}
    for name, layer in layers.items():
        if not layer.weight.isfinite().all():  # pyright: ignore[reportCallIssue]
            raise ValueError(f"layer {name}: its weight holds a NaN or an infinity")
    weights: dict[str, Tensor] = {n: m.weight for n, m in layers.items()}  # pyright: ignore
    blocks = {
        n: ternary_blocks(rows_of(w), min(block, w[0].numel()), terms, scales)
        for n, w in weights.items()
    }
    worth = _sensitivities(sensitivity, model, weights, blocks, data)
    for name, layer in layers.items():
        grid = None
        if activation_bits is not None:
            grid = InputGrid.between(*seen[name].range, activation_bits)
        terms_of_layer = Terms(blocks[name], weights[name], grid, engine)
        layer._elision_ternary = terms_of_layer  # pyright: ignore
        layer.__class__ = TERNARY[type(layer)]
    network = TernaryNetwork(
        model,
        worth,
        {name: seen[name].pixels for name in layers},
        data if batch_norm == "moved" else None,
        norm_statistics(model),
        plain_norms,
    )
    try:
        if budget is not None:
            first = sum(b.scales[0].numel() for b in blocks.values())
            network.give(round((budget - 1) * first))
        else:
            assert drop is not None
            _search(network, data, drop, margin)
    except BaseException:
        network.restore()
        raise
    network.forget_the_rest()
    return model


def _search(
    network: TernaryNetwork, data: Calibration, drop: float, margin: float
) -> None:
    """Give the fewest residual terms with which the drop is met, by halving."""

    def reached(residuals: int) -> bool:
        network.give(residuals)
        lost, error = data.lost(network.model)
        network.tried.append((residuals, data.accuracy - lost))
        # A hundredth of an image, for the sake of rounding.
        return lost + margin * error <= drop + 0.01 / data.examples

    low, high = 0, network.most
    if reached(low):
        return
    if not reached(high):
        lost, error = data.lost(network.model)
        least = lost + margin * error
        raise ValueError(
            f"ternary_residual(drop={drop:g}) is not met: with {network.terms} terms in "
            f"every block the model's accuracy of {data.accuracy:.4f} on {data.examples} "
            f"examples falls by {lost:.4f} +- {error:.4f}, which with margin={margin:g} "
            f"is {least - drop:.4f} too much; allow more terms or a larger drop, give "
            "more calibration data, or leave layers dense"
        )
    step = max(1, network.most // _STEPS)
    while high - low > step:
        middle = (low + high) // 2
        low, high = (low, middle) if reached(middle) else (middle, high)
    network.give(high)


def _layers(model: nn.Module, dense: tuple[str, ...]) -> dict[str, nn.Module]:
    """The layers to change, by name."""
    for name, module in model.named_modules():
        if isinstance(module, ElidedLayer):
            raise ValueError(
                f"layer {name} is elided: call elision.export.finalize or "
                "elision.restore first"
            )
        if hasattr(module, "_elision_ternary"):
            raise ValueError(
                f"layer {name} is ternary already: call model.ternary.restore() first"
            )
    found = {n: m for n, m in model.named_modules() if type(m) in TERNARY}
    names = list(found)
    chosen = {
        name: layer
        for name, layer in found.items()
        if layer._parameters.get("weight") is not None
        and layer.weight.numel()  # pyright: ignore[reportCallIssue]
        and not any(selects(p, name, layer, names) for p in dense)
        # A weight that something else reads as well would change there, too.
        and not tied_to(model, {name: layer})
    }
    if not chosen:
        raise ValueError(
            f"ternary_residual: no layer of {type(model).__name__} to change: it has "
            f"{len(found)} plain Conv2d and Linear layers, and those whose weight is "
            f"shared, computed or named in dense={dense!r} stay as they are"
        )
    return chosen


def _sensitivities(
    given: str | Mapping[str, float],
    model: nn.Module,
    weights: Mapping[str, Tensor],
    blocks: Mapping[str, TernaryBlocks],
    data: Calibration,
) -> dict[str, float]:
    """What a unit of squared error in each layer's weight is worth."""
    if isinstance(given, Mapping):
        return {
            name: float(lookup("sensitivity of layer", name, given)) for name in weights
        }
    norms = {name: w.double().norm().item() for name, w in weights.items()}
    if given == "relative":
        return {name: 1 / norm**2 if norm else 0.0 for name, norm in norms.items()}
    plain, found = data.outputs(model), {}
    for name, weight in weights.items():
        first = weight_of(blocks[name].first(1).decode(), weight.shape)
        error = first.to(weight) - weight
        size = error.double().norm().item()
        if not size:  # nothing to remove
            found[name] = 0.0
            continue
        before, probe = weight.clone(), _PROBE * norms[name]
        weight += error * (probe / size)
        moved = data.outputs(model)
        weight.copy_(before)
        found[name] = ((moved - plain).double().norm() / probe).item() ** 2
    return found
