"""Photographs and what a network takes them for, in several number formats."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from elision.report.style import INK, drawing, svg

__all__ = ["Guess", "photo_rows"]

_RIGHT, _WRONG, _OTHER = "#009E73", "#D55E00", "#b5bcc4"

#: Letters of a class's name that fit beside a bar.
_FIT = 21


class Guess(NamedTuple):
    """One class and its probability.

    Attributes:
        name: of the class.
        share: probability, in [0, 1].
        right: whether it is the class that the photograph shows; None: not known.

    Example:
        >>> Guess("espresso", 0.9, None).share
        0.9
    """

    name: str
    share: float
    right: bool | None


def photo_rows(
    pixels: Sequence[np.ndarray],
    captions: Sequence[str],
    columns: Sequence[str],
    guesses: Sequence[Sequence[Sequence[Guess]]],
) -> str:
    """One row a photograph, one column an arithmetic: its five likeliest classes as bars.

    Green is the class that the photograph shows; where that is not known, the class that
    the first column has on top. Orange is another class on top.

    Args:
        pixels: ``(H, W, 3)`` uint8 each.
        captions: below the photographs.
        columns: names of the arithmetics.
        guesses: photographs x columns x classes, the likeliest first.
    """
    height = 0.4 + 1.12 * len(pixels)
    with drawing(1.6 + 1.9 * len(columns), height) as figure:
        grid = figure.subplots(
            len(pixels),
            len(columns) + 1,
            squeeze=False,
            gridspec_kw={"width_ratios": [0.75, *[1] * len(columns)]},
        )
        for row, photo, caption, of_photo in zip(
            grid, pixels, captions, guesses, strict=True
        ):
            row[0].imshow(photo)
            row[0].set_axis_off()
            row[0].text(
                0.5,
                -0.04,
                caption,
                transform=row[0].transAxes,
                ha="center",
                va="top",
                fontsize=6.5,
            )
            known = of_photo[0][0].name
            for axes, found in zip(row[1:], of_photo, strict=True):
                _bars(axes, found, known)
        for axes, name in zip(grid[0][1:], columns, strict=True):
            axes.set_title(name)
        return svg(figure)


def _bars(axes: Any, found: Sequence[Guess], known: str) -> None:
    places = range(len(found))
    colours = [
        _RIGHT if _is_right(guess, known) else (_OTHER if i else _WRONG)
        for i, guess in enumerate(found)
    ]
    axes.barh(places, [g.share for g in found], color=colours, height=0.86)
    for i, guess in enumerate(found):
        name = guess.name if len(guess.name) <= _FIT else f"{guess.name[: _FIT - 1]}…"
        axes.text(0.02, i, name, va="center", fontsize=6, color=INK)
    axes.set(xlim=(0, 1), ylim=(len(found) - 0.4, -0.6))
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.grid(visible=False)


def _is_right(guess: Guess, known: str) -> bool:
    return guess.name == known if guess.right is None else guess.right
