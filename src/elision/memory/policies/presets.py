"""Policies by name: ``"exact"``, ``"bits(4)"``, ``"expected:error=0.1"``, ...

The notation is that of :mod:`elision.common.specs`.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn

from elision.common import checks
from elision.common.specs import parse, resolve
from elision.memory.codecs import (
    BatchNormAligned,
    FixedPoint,
    Float8,
    GroupQuant,
    Jpeg,
    Offload,
    RadSample,
    Recompute,
    Sz3,
    Zfp,
)
from elision.memory.policies.allocation import AverageBits
from elision.memory.policies.base import Policy, Rule
from elision.memory.policies.budget import ByteBudget
from elision.memory.policies.checked import Checked
from elision.memory.policies.guaranteed import Guaranteed
from elision.memory.policies.rounding import evenly, rounding

__all__ = ["PRESETS", "policy_for"]


def _none(model: nn.Module) -> Policy:
    """Hooks that keep every tensor: the cost of the hooks alone."""
    return Policy(exact=False, name="none")


def _exact(model: nn.Module) -> Policy:
    """Masks, pool indices, shapes, recomputation: bit-identical gradients."""
    return Policy(name="exact")


def _int8(model: nn.Module) -> Policy:
    """Group quantisation to 8 bits."""
    return evenly(8, "int8")


def _bits(model: nn.Module, average: float = 4) -> Policy:
    """Group quantisation; a fractional average is allocated by sensitivity."""
    if average == int(average):
        return evenly(int(average), f"bits({average:g})")
    return _lasting(model, "bits", average, lambda: AverageBits(average))


def _guaranteed(
    model: nn.Module, error: float = 0.1, batch_norm: str = "exact"
) -> Policy:
    """No weight gradient off by more than ``error``, relative, in the worst case."""
    return _bounded(model, "guaranteed", error, batch_norm)


def _expected(
    model: nn.Module, error: float = 0.1, batch_norm: str = "exact"
) -> Policy:
    """Weight gradients off by ``error`` in expectation, errors being independent."""
    return _bounded(model, "expected", error, batch_norm)


def _bounded(model: nn.Module, mode: str, error: float, batch_norm: str) -> Policy:
    return _lasting(
        model,
        f"{mode}, {batch_norm}",
        error,
        lambda: Guaranteed(error, expected=mode == "expected", batch_norm=batch_norm),
    )


def _budget(model: nn.Module, mib: float) -> Policy:
    """Keep, compress, offload or recompute, to stay within ``mib`` MiB."""
    return _lasting(model, "budget", mib, lambda: ByteBudget(mib))


def _derived(model: nn.Module, bits: int = 6) -> Policy:
    """Layer inputs recomputed from the packed norm inputs; group quantisation elsewhere.

    Between two convolutions lie a batch norm's input and a ReLU's result. Only the
    former is kept, so it may take twice the bits for the same total.
    """
    codecs = Recompute(lossy=True), GroupQuant(bits)
    return rounding(codecs, bits, f"derived({bits})")


def _blpa(model: nn.Module, bits: int = 4) -> Policy:
    """Batch-norm inputs on the norm's grid; the next layers' inputs recomputed from them."""
    codecs = BatchNormAligned(bits), Recompute(lossy=True), GroupQuant(bits)
    return rounding(codecs, bits, f"blpa({bits})")


def _jpeg(model: nn.Module, table: float = 8) -> Policy:
    """JPEG-ACT for images, group quantisation to 8 bits for the rest."""
    return rounding((Jpeg(table), GroupQuant(8)), 8, f"jpeg({table:g})")


def _sfpr(model: nn.Module, bits: int = 8) -> Policy:
    """Scaled fixed point, one scale per channel."""
    return rounding((FixedPoint(bits),), 8, f"sfpr({bits})")


def _fp8(model: nn.Module) -> Policy:
    """Eight-bit floating point."""
    return rounding((Float8(),), 8, "fp8")


def _sz3(model: nn.Module, tolerance: float = 0.05) -> Policy:
    """SZ3, error at most ``tolerance`` standard deviations of each tensor (an extra)."""
    return rounding((Sz3(tolerance),), 8, f"sz3({tolerance:g})")


def _zfp(model: nn.Module, tolerance: float = 0.05) -> Policy:
    """zfp, error at most ``tolerance`` standard deviations of each tensor (an extra)."""
    return rounding((Zfp(tolerance),), 8, f"zfp({tolerance:g})")


def _offload(model: nn.Module) -> Policy:
    """Large tensors to files (CPU) or pinned host memory (accelerator)."""
    return Policy([Rule((Offload(),))], name="offload")


def _rad(model: nn.Module, keep: float = 0.1) -> Policy:
    """Random samples of the inputs of convolutions and linear layers."""
    return Policy([Rule((RadSample(keep),))], name=f"rad({keep:g})")


def _checked(model: nn.Module, policy: str = "exact") -> Policy:
    """Another policy, with a checksum on every packed tensor."""
    return Checked(policy_for(policy, model))


#: Preset -> its builder, from the model and the parameters in parentheses.
PRESETS: dict[str, Callable[..., Policy]] = {
    "none": _none,
    "exact": _exact,
    "int8": _int8,
    "bits": _bits,
    "guaranteed": _guaranteed,
    "expected": _expected,
    "budget": _budget,
    "derived": _derived,
    "blpa": _blpa,
    "jpeg": _jpeg,
    "sfpr": _sfpr,
    "fp8": _fp8,
    "sz3": _sz3,
    "zfp": _zfp,
    "offload": _offload,
    "rad": _rad,
    "checked": _checked,
}

# Policies with state from step to step, by model.
_KEPT: "WeakKeyDictionary[nn.Module, dict[tuple[str, float], Policy]]" = (
    WeakKeyDictionary()
)


def _lasting(
    model: nn.Module, name: str, number: float, make: Callable[[], Policy]
) -> Policy:
    """The policy of this name that the model has, or a new one."""
    kept = _KEPT.setdefault(model, {})
    if (name, number) not in kept:
        kept[name, number] = make()
    return kept[name, number]


def policy_for(policy: Any, model: nn.Module) -> Policy:
    """A policy from a name, a rule, rules, or a policy.

    Args:
        policy: one of these; a name as in ``"bits(4)"``.
        model: what the policy is for; those that learn from step to step are kept for it.

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
    make, given = _parsed(policy)
    try:
        return make(model, **given)
    except ValueError as error:
        raise ValueError(f"memory policy {policy!r}: {error}") from error


@functools.cache  # a saver is made in every step
def _parsed(policy: str) -> tuple[Callable[..., Policy], dict[str, Any]]:
    """Builder and parameters of a preset's name."""
    make, given = resolve("memory policy", policy, PRESETS, given=("model",))
    signature = inspect.signature(make)
    owner = f"memory policy {parse(policy).name}"
    for name, value in given.items():
        if signature.parameters[name].annotation is float:
            given[name] = checks.number(owner, name, value, "(0, inf)")
    try:
        signature.bind(None, **given)
    except TypeError as error:
        raise ValueError(f"memory policy {policy!r}: {error}") from error
    return make, given
