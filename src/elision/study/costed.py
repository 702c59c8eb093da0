"""Costs of a study's recipes, each over one reference: what a verdict weighs."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from elision.common.specs import parse

__all__ = ["CostKind", "StepSeconds", "cost_kinds", "dense_array", "reference_machine"]


@dataclass(frozen=True)
class StepSeconds:
    """Seconds of a training step by recipe, over dense ones, all by one clock.

    Attributes:
        clock: in words, such as ``"processor seconds"``.
        ratios: recipe -> its seconds over those that it is compared with.
        masked: zeros were multiplied like other values, so that no ratio is a gain.
        of: what they are compared with.

    Example:
        >>> StepSeconds("processor seconds", {"dense": 1.0, "swat": 1.2}, masked=True).clock
        'processor seconds'
    """

    clock: str
    ratios: Mapping[str, float]
    masked: bool
    of: str = "dense"


@dataclass(frozen=True)
class CostKind:
    """A kind of cost: of each recipe, over one reference.

    Attributes:
        key: name for programs; what is before a colon is the kind, after it the machine.
        label: name in a sentence.
        origin: ``"counted here"``, ``"measured here"`` or ``"simulated"``.
        of: what the costs are compared with, in words.
        ratios: recipe -> cost over that of the reference.
        in_sentence: whether the sentence of a verdict names it.

    Example:
        >>> cost = CostKind("seconds", "seconds", "measured here", "dense", {"swat": 0.5})
        >>> cost.words("swat")
        '2.0x faster on this machine'
    """

    key: str
    label: str
    origin: str
    of: str
    ratios: Mapping[str, float]
    in_sentence: bool = True

    def words(self, recipe: str) -> str:
        """What the recipe gains or pays, in words; empty where it does neither."""
        return _WORDS[self.key.partition(":")[0]](self, self.ratios[recipe])


def dense_array(machines: Iterable[str]) -> str | None:
    """The dense array among the specs of machines, which others are compared with.

    Example:
        >>> dense_array(["ant", "dense:rows=8"]), dense_array(["ant"])
        ('dense:rows=8', None)
    """
    return next((spec for spec in machines if parse(spec).name == "dense"), None)


def reference_machine(
    accelerators: Mapping[str, Mapping[str, Any]], baseline: str
) -> str | None:
    """The dense array, if it simulated the baseline, which others are compared with there.

    Example:
        >>> reference_machine({"dense": {"swat": {}}, "ant": {"swat": {}}}, "rigl")
    """
    return dense_array(m for m, recipes in accelerators.items() if baseline in recipes)


def cost_kinds(
    summary: Mapping[str, Any],
    baseline: str,
    step: StepSeconds | None = None,
    machines: tuple[str, ...] = (),
) -> list[CostKind]:
    """Every kind of cost that a study knows.

    Args:
        summary: as in ``summary.json``.
        baseline: recipe that others are compared with.
        step: seconds of a training step, where they were measured.
        machines: in the order to show them; none: in the summary's.

    Returns:
        Training work, seconds here, cycles and energy on chip of each machine, bytes
        kept; those that are known. Cycles and energy are over those of the baseline on
        the dense array, or on the same machine where there is none.
    """
    recipes = summary["recipes"]
    work = {spec: found["training_macs_ratio"] for spec, found in recipes.items()}
    kinds = [
        CostKind(
            "work",
            "training work",
            "counted here",
            "multiply-accumulates of the same steps done densely",
            _known(work),
        )
    ]
    if step is not None:
        label = "seconds on this machine" + (", masked" if step.masked else "")
        of = f"{step.clock} of a training step, {step.of}"
        kinds.append(
            CostKind(
                "seconds",
                label,
                "measured here",
                of,
                _known(step.ratios),
                in_sentence=not step.masked,
            )
        )
    for machine in machines or tuple(summary["accelerators"]):
        kinds += _simulated(summary, baseline, machine)
    return [*kinds, *_bytes(recipes, baseline)]


def _simulated(
    summary: Mapping[str, Any], baseline: str, machine: str
) -> list[CostKind]:
    """Cycles and energy of a machine, over those of the baseline on the dense array."""
    accelerators = summary["accelerators"]
    dense = reference_machine(accelerators, baseline)
    reference = dense or machine
    base = accelerators.get(reference, {}).get(baseline)
    if base is None:
        return []
    on = reference if dense is None else "the dense array"
    kinds = []
    for key, field, label in (
        ("cycles", "cycles", f"cycles on {machine}"),
        ("energy", "energy_on_chip_pj", f"energy on chip of {machine}"),
    ):
        whole = base["total"][field]
        ratios = {
            spec: sums["total"][field] / whole if whole else math.nan
            for spec, sums in accelerators[machine].items()
        }
        of = f"{baseline} on {on}"
        known = _known(ratios)
        told = key == "cycles"
        kinds.append(
            CostKind(
                f"{key}:{machine}", label, "simulated", of, known, in_sentence=told
            )
        )
    return kinds


def _bytes(recipes: Mapping[str, Any], baseline: str) -> list[CostKind]:
    """Bytes kept for the backward pass, under a policy that keeps fewer."""
    whole = recipes[baseline].get("saved_bytes", {}).get("logical")
    stored = {
        spec: found["saved_bytes"]["stored"] / whole
        for spec, found in recipes.items()
        if whole and "saved_bytes" in found
    }
    if not stored:
        return []
    of = f"bytes that {baseline} keeps for the backward pass under plain autograd"
    return [CostKind("bytes", "bytes kept", "measured here", of, _known(stored))]


def _known(ratios: Mapping[str, float | None]) -> dict[str, float]:
    """The ratios that are numbers, which those of a recipe that diverged are not."""
    return {s: r for s, r in ratios.items() if r is not None and math.isfinite(r)}


def _work(_: CostKind, ratio: float) -> str:
    left_out = f"{100 * (1 - ratio):.0f} %"
    return "" if left_out == "0 %" else f"{left_out} of the work left out"


def _seconds(_: CostKind, ratio: float) -> str:
    return _compared(ratio, "faster", "slower", "on this machine")


def _cycles(cost: CostKind, ratio: float) -> str:
    machine = cost.key.partition(":")[2]
    return _compared(ratio, "fewer", "more", f"cycles on {machine} than {cost.of}")


def _energy(cost: CostKind, ratio: float) -> str:
    machine = cost.key.partition(":")[2]
    what = f"energy on chip of {machine} than {cost.of}"
    return _compared(ratio, "less", "more", what)


def _kept(_: CostKind, ratio: float) -> str:
    return _compared(ratio, "fewer", "more", "bytes kept for the backward pass")


#: Words of a kind of cost, by its key before a colon.
_WORDS = {
    "work": _work,
    "seconds": _seconds,
    "cycles": _cycles,
    "energy": _energy,
    "bytes": _kept,
}


def _compared(ratio: float, gain: str, price: str, what: str) -> str:
    """A ratio of costs in words; empty where it is one.

    Example:
        >>> [_compared(r, "fewer", "more", "cycles") for r in (0.25, 1.0, 1.5)]
        ['4.0x fewer cycles', '', '1.5x more cycles']
    """
    factor = f"{max(ratio, 1 / ratio) if ratio else math.inf:.1f}"
    return "" if factor == "1.0" else f"{factor}x {gain if ratio < 1 else price} {what}"
