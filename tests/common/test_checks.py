"""Range checks: what is taken, what is refused, and what the message says."""

import math

import numpy as np
import pytest

from elision.common.checks import integer, number, one_of


@pytest.mark.parametrize(
    ("value", "allowed", "holds"),
    [
        (0, ">= 0", True),
        (-1, ">= 0", False),
        (0, "> 0", False),
        (8, "[1, 8]", True),
        (9, "[1, 8]", False),
        (0, "(0, 1]", False),
        (1, "[0, 1)", False),
        (math.inf, "> 0", False),
        (math.inf, "(0, inf]", True),
        (math.nan, "> 0", False),
    ],
)
def test_an_interval_holds_its_closed_ends_only(
    value: float, allowed: str, holds: bool
) -> None:
    if holds:
        assert number("Owner", "name", value, allowed) == value
    else:
        with pytest.raises(ValueError, match=r"Owner\(name=.*\): must be a number"):
            number("Owner", "name", value, allowed)


def test_numpy_integers_are_integers_and_booleans_are_not() -> None:
    found = integer("Owner", "name", np.int64(3))
    assert found == 3
    assert type(found) is int
    for value in (True, 1.0, "1", None):
        with pytest.raises(ValueError, match="must be an integer >= 1"):
            integer("Owner", "name", value)


def test_the_allowed_values_are_named() -> None:
    one_of("Cast", "scale", "none", ("none", "tensor"))
    with pytest.raises(ValueError, match="'none' or 'tensor'"):
        one_of("Cast", "scale", "row", ("none", "tensor"))
