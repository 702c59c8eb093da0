"""Static masks chosen at initialisation by SNIP, GraSP or SynFlow."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from elision.common.checks import integer
from elision.common.names import lookup
from elision.layers import elide
from elision.methods import Static
from elision.operands import Mask
from elision.study.search.proxies import WEIGHT_SCORES, weight_scores
from elision.topology.selection import best, generator
from elision.topology.weights import sparse_weights

__all__ = ["ROUNDS", "elide_at_start"]

#: Rounds of pruning by name: SynFlow's published 100, one for the others.
ROUNDS = {"snip": 1, "grasp": 1, "synflow": 100}


def elide_at_start(
    model: nn.Module,
    score: str,
    images: Tensor,
    labels: Tensor,
    recipe: Static | None = None,
    *,
    rounds: int | None = None,
    engine: str = "auto",
) -> nn.Module:
    """The model, elided in place, with a static mask that keeps the weights of best score.

    The largest scores of all masked layers together stay, as published, at the number of
    active weights that ``recipe`` would have drawn at random; the layers it leaves dense
    stay so. In round ``r`` of ``n`` the density is ``d^(r/n)``, and what is left out is zero
    in later ones (Tanaka et al., NeurIPS 2020). A layer keeps at least one weight.

    Args:
        model: new, with its first weights.
        score: a key of :data:`~elision.study.search.proxies.WEIGHT_SCORES`.
        images: a batch ``(N, C, H, W)``, for SNIP about ten of a class.
        labels: ``(N,)``, int64.
        recipe: the masks' budget; None: ``Static(0.9)``.
        rounds: of pruning; None: those of :data:`ROUNDS`.
        engine: as :func:`elision.elide` takes it.

    Raises:
        ValueError: an unknown score, or no round.

    Example:
        >>> import elision
        >>> model = elision.workloads.make_model("cnn", classes=2)
        >>> batch = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 0, 1])
        >>> elided = elide_at_start(model, "snip", *batch, Static(0.5))
        >>> optimizer = torch.optim.SGD(elided.parameters(), 0.1)
        >>> round(elision.topology.attach(elided, optimizer).sparsity, 3)
        0.5
    """
    lookup("score of weights", score, WEIGHT_SCORES)
    recipe = Static() if recipe is None else recipe
    count = ROUNDS[score] if rounds is None else rounds
    integer("elide_at_start", "rounds", count)
    plain = copy.deepcopy(model)
    elide(model, recipe, engine=engine)
    weights = sparse_weights(model, Mask)
    first = {w.name: _layer(plain, w.name).weight.detach().clone() for w in weights}
    wanted = sum(weight.nnz for weight in weights)
    total = sum(value.numel() for value in first.values())
    masks = {
        name: torch.ones_like(value, dtype=torch.bool) for name, value in first.items()
    }
    for done in range(1, count + 1):
        scores = weight_scores(score, plain, images, labels)
        left = max(wanted, round(total * (wanted / total) ** (done / count)))
        masks = _kept({name: scores[name] for name in first}, masks, left, recipe.seed)
        with torch.no_grad():
            for name, mask in masks.items():
                _layer(plain, name).weight.copy_(first[name] * mask)
    with torch.no_grad():
        for weight in weights:
            weight.set_state("mask", masks[weight.name])
            weight.weight.copy_(first[weight.name] * masks[weight.name])
    return model


def _layer(model: nn.Module, name: str) -> Any:
    return model.get_submodule(name)


def _kept(
    scores: dict[str, Tensor], masks: dict[str, Tensor], count: int, seed: int
) -> dict[str, Tensor]:
    """Masks of the ``count`` best of the weights still there, one at least in a layer."""
    kept = {
        name: torch.where(masks[name], score.double(), -torch.inf)
        for name, score in scores.items()
    }
    for score in kept.values():
        score.view(-1)[score.argmax()] = torch.inf
    flat = torch.cat([score.flatten() for score in kept.values()])
    chosen = best(flat, max(count, len(kept)), generator(seed, "at start", 0))
    parts = chosen.split([score.numel() for score in kept.values()])
    return {
        name: part.view_as(masks[name]) for name, part in zip(kept, parts, strict=True)
    }
