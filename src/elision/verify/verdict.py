"""The verdict on two programs, and the input that tells them apart."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Verdict", "Witness"]


@dataclass(frozen=True)
class Witness:
    """An input on which two programs were run and gave different results.

    Attributes:
        sizes: value of every size.
        output: the element that differs.
        found: its value by the program; None: the program does not write it.
        expected: its value by the specification; None: it does not write it.
        inputs: elements that were not 0, with their values; the others were 0.
        seed: of random inputs, where there were any.

    Example:
        >>> print(Witness({"K": 2}, "y[0]", 0, 1, {"a[1]": 1, "x[1]": 1}))
        K=2; a[1] = x[1] = 1, all else 0: y[0] is 0, the specification gives 1
    """

    sizes: Mapping[str, int]
    output: str
    found: int | None
    expected: int | None
    inputs: Mapping[str, int] = field(default_factory=dict)
    seed: int | None = None

    def __str__(self) -> str:
        sizes = ", ".join(f"{k}={v}" for k, v in self.sizes.items())
        if self.seed is not None:
            given = f"random integers (seed {self.seed})"
        else:
            by_value: dict[int, list[str]] = {}
            for place, value in self.inputs.items():
                by_value.setdefault(value, []).append(place)
            parts = [f"{' = '.join(p)} = {v}" for v, p in by_value.items()]
            given = ", ".join([*parts, "all else 0"])
        found = "not written" if self.found is None else self.found
        expected = (
            "does not write it" if self.expected is None else f"gives {self.expected}"
        )
        head = f"{sizes}; " if sizes else ""
        return f"{head}{given}: {self.output} is {found}, the specification {expected}"


@dataclass(frozen=True)
class Verdict:
    """What is known about two programs.

    Attributes:
        status: ``"proved"``: equal for all sizes that the assumptions allow, or at the
            ones that were given, and all inputs, over the real numbers.
            ``"refuted"``: different on the witness, on which both were run.
            ``"unknown"``: neither, and the reason says why.
        witness: of a refutation, the smallest sizes that were found.
        order: ``"same"``: the sums are also taken in the same order, so that floating
            point gives the same bits (up to the sign of a zero); ``"real numbers only"``:
            they may not be. None if not proved.
        reason: in words: of a refutation what differs, of an unknown why, of
            ``"real numbers only"`` the products that swap.
        checked: sizes at which the programs were compared by running them.

    Example:
        >>> print(Verdict("proved", order="same"))
        proved for all sizes, sums in the same order
    """

    status: str
    witness: Any = None
    order: str | None = None
    reason: str = ""
    checked: tuple[Mapping[str, int], ...] = ()

    def __bool__(self) -> bool:
        return self.status == "proved"

    def __str__(self) -> str:
        if self.status == "proved":
            how = (
                "sums in the same order"
                if self.order == "same"
                else "over the real numbers; sums may be taken in another order"
            )
            tail = f" ({self.reason})" if self.reason else ""
            where = "at the sizes given" if self.checked else "for all sizes"
            return f"proved {where}, {how}{tail}"
        parts = [self.status]
        if self.reason:
            parts.append(self.reason)
        if self.witness is not None:
            parts.append(str(self.witness))
        return ": ".join(parts)
