"""Distillation: a trained network teaches another, as data beside the recipe.

:data:`DISTILLATIONS` names what a student may learn from a teacher, one file each;
:func:`make_distillations` builds what a person names, and :class:`Distilled` is the loss.
"""

from collections.abc import Callable

from elision.common.checks import number
from elision.common.specs import build, joined
from elision.distill.attention import AttentionTransfer as AttentionTransfer
from elision.distill.average import Average as Average
from elision.distill.base import Distillation as Distillation
from elision.distill.base import Outputs as Outputs
from elision.distill.born_again import BornAgain as BornAgain
from elision.distill.cache import LessonCache as LessonCache
from elision.distill.distilled import Distilled as Distilled
from elision.distill.hinton import Hinton as Hinton
from elision.distill.hints import Hints as Hints
from elision.distill.lessons import network_digest as network_digest
from elision.distill.relational import Relational as Relational
from elision.distill.teaching import Teaching as Teaching

#: Distillations by the names the command line knows them by.
DISTILLATIONS: dict[str, Callable[..., Distillation]] = {
    "hinton": Hinton,
    "hints": Hints,
    "attention": AttentionTransfer,
    "relational": Relational,
    "born-again": BornAgain,
    "average": Average,
}


def make_distillations(spec: str) -> tuple[Distillation, ...]:
    """The distillations of a spec: one, or several with a plus sign between them.

    Args:
        spec: ``NAME:parameter=value,...`` or ``NAME(value, ...)`` of
            :data:`DISTILLATIONS`, such as ``hinton:temperature=4,weight=0.9`` or
            ``hinton(4)+attention(layer3, weight=0.5)``.

    Raises:
        ValueError: an unknown name or parameter (lists the known ones), a value out of
            its range, or label shares above 1 together.

    Example:
        >>> make_distillations("hinton(2)+attention(student=(layer1, layer2))")[0]
        Hinton(temperature=2.0, weight=0.9)
    """
    found = tuple(build("distillation", part, DISTILLATIONS) for part in joined(spec))
    number(
        f"distillation {spec!r}",
        "sum of label shares",
        sum(part.label_share for part in found),
        "[0, 1]",
    )
    return found
