"""One colour, one meaning; each seen on paper, and told from the others of its group."""

from itertools import combinations

import numpy as np
import pytest
from skimage.color import rgb2lab

from elision.report.style import (
    PALETTE,
    PRODUCT_COLOURS,
    SERIES,
    SLOT_COLOURS,
    TENSOR_COLOURS,
    TRACK_COLOURS,
)

GROUPS = {
    "recipes": PALETTE,
    "products": tuple(PRODUCT_COLOURS.values()),
    "slots": tuple(SLOT_COLOURS.values()),
    "tensors": tuple(TENSOR_COLOURS.values()),
    "tracks": tuple(TRACK_COLOURS.values()),
    "series": SERIES,
}

#: Linear RGB as full protanopes, deuteranopes and tritanopes see it (Machado, Oliveira and
#: Fernandes, 2009, severity 1), after that of others.
VISIONS = (
    np.eye(3),
    np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
)

#: Least distance in CIELAB within a group: just noticeable is 2.3 (Mahy et al., 1994).
APART = 12


def _linear(colour: str) -> np.ndarray:
    """Linear RGB of an sRGB colour (IEC 61966-2-1)."""
    rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def _seen(colour: str, vision: np.ndarray) -> np.ndarray:
    light = np.clip(vision @ _linear(colour), 0, 1)
    rgb = np.where(
        light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055
    )
    return rgb2lab(rgb[None, None])[0, 0]


def _contrast(colour: str) -> float:
    """With white (WCAG 2.2)."""
    return 1.05 / (_linear(colour) @ [0.2126, 0.7152, 0.0722] + 0.05)


def test_no_colour_has_two_meanings() -> None:
    every = [colour.upper() for group in GROUPS.values() for colour in group]
    assert len(set(every)) == len(every)


@pytest.mark.parametrize("name", [name for name in GROUPS if name != "recipes"])
def test_colours_are_seen_on_paper(name: str) -> None:
    least = 4.5 if name == "tracks" else 3
    assert not [c for c in GROUPS[name] if _contrast(c) < least]


@pytest.mark.parametrize("name", GROUPS)
def test_colours_of_a_group_differ_for_every_vision(name: str) -> None:
    alike = [
        pair
        for pair in combinations(GROUPS[name], 2)
        for vision in VISIONS
        if np.linalg.norm(_seen(pair[0], vision) - _seen(pair[1], vision)) < APART
    ]
    assert not alike
