"""Blocked forms: the transforms that an engine can apply inside its own layout.

An engine that runs several layers in one layout cannot call a transform there. It reads
this description instead and applies the same rule itself.
"""

from dataclasses import dataclass

__all__ = ["BlockedForm", "LargestForm", "MaskForm"]


@dataclass(frozen=True)
class LargestForm:
    """The values of largest magnitude, from a threshold on.

    Attributes:
        keep: fraction of the values kept, in (0, 1].
        samples: size of the sample whose quantile is the threshold; None: the exact one.
        refresh: steps between new thresholds.
        threshold: state tensor that holds the threshold between them; None if
            every step has a new one.
        step: state tensor that counts the steps, likewise.

    Example:
        >>> from elision.operands import TopK
        >>> TopK(0.75, refresh=2).blocked_form()
        LargestForm(keep=0.25, samples=None, refresh=2, threshold='threshold', step='step')
    """

    keep: float
    samples: int | None = None
    refresh: int = 1
    threshold: str | None = None
    step: str | None = None


@dataclass(frozen=True)
class MaskForm:
    """The values under a mask.

    Attributes:
        mask: state tensor that holds the boolean mask.
        gradient_density: state tensor that holds the fraction of the weight gradient
            which training needs.

    Example:
        >>> from elision.operands import Mask
        >>> Mask().blocked_form()
        MaskForm(mask='mask', gradient_density='gradient_density')
    """

    mask: str
    gradient_density: str


BlockedForm = LargestForm | MaskForm
