"""Policies by name: ``"exact"``, ``"bits(4)"``, ``"guaranteed(0.1)"``, ..."""

import re
from collections.abc import Callable
from typing import Any

from torch import nn

from elision.memory.codecs import GroupQuant
from elision.memory.policy import Policy, Rule
from elision.names import lookup

__all__ = ["PRESETS", "policy_for"]


def _none(model: nn.Module) -> Policy:
    """Hooks that keep everything: what the machinery itself costs."""
    return Policy(exact=False, name="none")


def _exact(model: nn.Module) -> Policy:
    """Masks, pool indices, shapes, recomputation: bit-identical gradients."""
    return Policy(name="exact")


def _int8(model: nn.Module) -> Policy:
    """Group quantisation to 8 bits."""
    return Policy([Rule((GroupQuant(8),))], name="int8")


def _bits(model: nn.Module, average: float = 4) -> Policy:
    """Group quantisation to so many bits per value."""
    return Policy([Rule((GroupQuant(int(average)),))], name=f"bits({average:g})")


#: Preset -> how to make it from the model and the number in parentheses.
PRESETS: dict[str, Callable[..., Policy]] = {
    "none": _none,
    "exact": _exact,
    "int8": _int8,
    "bits": _bits,
}

_CALL = re.compile(r"\s*([a-z0-9-]+)\s*(?:\(\s*([^()]*?)\s*\))?\s*")


def policy_for(policy: Any, model: nn.Module) -> Policy:
    """A policy from a name, a rule, rules, or a policy.

    Raises:
        ValueError: unknown name, or a number that the preset does not take.
    """
    if isinstance(policy, Policy):
        return policy
    if isinstance(policy, Rule):
        return Policy([policy])
    if isinstance(policy, (tuple, list)) and all(isinstance(r, Rule) for r in policy):
        return Policy(policy)
    if not isinstance(policy, str):
        raise ValueError(
            f"policy must be a name, a Policy or Rules, got {type(policy).__name__}"
        )
    match = _CALL.fullmatch(policy)
    name, given = match.groups() if match else (policy, None)
    make = lookup("memory policy", name, PRESETS)
    try:
        arguments = [float(given)] if given else []
        return make(model, *arguments)
    except (TypeError, ValueError) as error:
        raise ValueError(f"memory policy {policy!r}: {error}") from error
