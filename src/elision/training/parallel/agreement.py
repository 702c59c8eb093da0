"""Ranks that train one model: found at the start, by a hash of what must be the same."""

import hashlib
from collections.abc import Mapping

import torch
from torch import distributed, nn

from elision.layers import elided_layers, plan_of, states_of

__all__ = ["check_agreement", "facts_of"]


def facts_of(model: nn.Module) -> dict[str, str]:
    """What every rank must have the same of a model, as hashes.

    Returns:
        Hashes of ``"model"`` (names, shapes and dtypes of parameters), ``"recipe"`` (what
        the elided layers do to their operands) and ``"masks"``.

    Example:
        >>> list(facts_of(nn.Linear(2, 1)))
        ['model', 'recipe', 'masks']
    """
    layers = [(name, plan_of(layer), layer) for name, layer in elided_layers(model)]
    parameters = [(n, tuple(p.shape), p.dtype) for n, p in model.named_parameters()]
    masks = hashlib.sha256()
    for name, plan, layer in layers:
        for use in plan.uses:
            for state, value in states_of(layer, use).items():
                if value.dtype == torch.bool:
                    masks.update(f"{name}/{use}/{state}".encode())
                    masks.update(value.cpu().contiguous().numpy().tobytes())
    return {
        "model": _hash(repr(parameters)),
        "recipe": _hash(repr([(name, plan.uses) for name, plan, _ in layers])),
        "masks": masks.hexdigest(),
    }


def check_agreement(
    facts: Mapping[str, str], group: distributed.ProcessGroup | None = None
) -> None:
    """Compare what ranks must have the same: a collective call.

    Args:
        facts: texts by what they say, with the same names on every rank.
        group: the processes; None: all.

    Raises:
        RuntimeError: some rank differs from rank 0; names the ranks and what differs.
    """
    everyone: list[dict[str, str]] = [{}] * distributed.get_world_size(group)
    distributed.all_gather_object(everyone, dict(facts), group=group)
    for what, first in everyone[0].items():
        other = [r for r, found in enumerate(everyone) if found.get(what) != first]
        if other:
            raise RuntimeError(
                f"ranks {other} differ from rank 0 in the {what}: every rank must build "
                "the same model with the same seed, recipe and compressor, and load the "
                "same checkpoint"
            )


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
