"""From a text to the format that it names."""

import functools
import re
from typing import Literal

from elision.common.specs import Spec, build, parse
from elision.formats.base import Coded, Format
from elision.formats.catalogue import MAKERS, floating_of, grouping_of
from elision.formats.scaled import Scaled
from elision.formats.scales import Largest, NextPower

__all__ = ["format_named", "scaled"]


def scaled(
    element: str,
    scale: Literal["largest", "power-of-two"] = "largest",
    over: Literal["tensor", "channel"] = "tensor",
    block: int = 0,
) -> Scaled:
    """A format whose codes stand alone, with a scale of the values' own.

    Args:
        element: its name; values beyond its range become its end.
        scale: ``"largest"``: the largest magnitude becomes the largest element;
            ``"power-of-two"``: the smallest power of two at which none lies beyond it.
        over: one scale for the tensor, or one for each slice of the axis.
        block: values that share a scale, in place of ``over``; 0: none.

    Raises:
        ValueError: an unknown element, one that has scales itself, or a block of channels.

    Example:
        >>> scaled("fp8-e4m3", over="channel").name
        'scaled(fp8-e4m3, over=channel)'
    """
    inner = format_named(element)
    if not isinstance(inner, Coded):
        raise ValueError(f"scaled({element}): {element} has scales of its own")
    given = {
        "scale": None if scale == "largest" else scale,
        "over": None if over == "tensor" else over,
        "block": block or None,
    }
    given = {name: value for name, value in given.items() if value is not None}
    rule = Largest() if scale == "largest" else NextPower()
    name = str(Spec("scaled", (element,), given))
    kept = inner.saturating
    assert isinstance(kept, Coded)
    return Scaled(name, kept, rule, grouping_of("scaled", over, block))


_FLOAT = re.compile(r"e([0-9]+)m([0-9]+)")


@functools.cache
def format_named(text: str) -> Format:
    """The format that a text names.

    Args:
        text: a key of :data:`FORMATS`; such a key with parameters, ``"mxfp8:block=16"``;
            floating point of any width, ``"e5m3"`` or ``"e4m3:bias=8,specials=fnuz"``,
            where the word nan is in quotes, ``"e3m4:specials='nan'"``, since without
            them it is a number; or any format whose codes stand alone with a scale,
            ``"scaled(fp8-e4m3, over=channel)"``, see :func:`scaled`. A format's own
            ``name`` is such a text.

    Raises:
        ValueError: no text, or an unknown name or parameter; the message lists the
            known.

    Example:
        >>> format_named("e5m3").bits, format_named("int4:block=64").grouping
        (9, Grouping(over='block', block=64))
    """
    if not isinstance(text, str):
        raise ValueError(f"{text!r}: is no name of a number format; give its text")
    known = {**MAKERS, "scaled": scaled}
    name = parse(text).name
    if found := _FLOAT.fullmatch(name):
        known = {name: floating_of(int(found[1]), int(found[2]))}
    return build("number format", text, known)
