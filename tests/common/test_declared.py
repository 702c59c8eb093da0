"""Declared types: what each takes, what it refuses, and what the message says."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pytest

from elision.common.declared import declared, fit_fields


@pytest.mark.parametrize(
    ("value", "annotation", "expected"),
    [
        ("no", bool, False),
        ("Off", bool, False),
        ("yes", bool, True),
        (np.bool_(True), bool, True),
        (np.int32(8), int, 8),
        (3, float, 3.0),
        (np.float32(0.5), float, 0.5),
        (None, int | None, None),
        (1, float | int, 1),
        (1.0, float | int, 1.0),
        ((8, np.int64(4)), tuple[int, int], (8, 4)),
        ([0.5, 1], tuple[float, ...], (0.5, 1.0)),
        ("a", Literal["a", "b"], "a"),
        (512, str | float | None, 512.0),
        ([1, 2], Any, [1, 2]),
    ],
)
def test_a_value_becomes_one_of_its_type(
    value: object, annotation: object, expected: object
) -> None:
    found = declared("Owner", "name", value, annotation)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("value", "annotation", "said"),
    [
        ("maybe", bool, "must be yes or no"),
        (1, bool, "must be yes or no"),
        (2.5, int, "must be an integer"),
        (8.0, int, "must be an integer"),
        (True, int, "must be an integer"),
        ("8", int, "must be an integer"),
        ("fast", float, "must be a number"),
        (False, float, "must be a number"),
        (45, str, "must be text"),
        (None, str, "must be text"),
        (8, tuple[int, int], "must be 2 integers, such as 8x4"),
        ((8, 4, 2), tuple[int, int], "must be 2 integers"),
        ((8, 0.5), tuple[int, int], "must be 2 integers"),
        ("conv1", tuple[str, ...], "must be any number of texts, such as (a, b)"),
        ("c", Literal["a", "b"], "must be 'a' or 'b'"),
        (2.5, int | None, "must be an integer or none"),
    ],
)
def test_a_value_of_another_type_is_refused(
    value: object, annotation: object, said: str
) -> None:
    with pytest.raises(ValueError, match=r"^Owner\(name=.*\): must be ") as error:
        declared("Owner", "name", value, annotation)
    assert said in str(error.value)


@dataclass(frozen=True)
class Machine:
    rows: int
    gated: bool = False

    def __post_init__(self) -> None:
        fit_fields(self)


def test_the_fields_of_a_class_are_fitted_in_place() -> None:
    given: dict[str, Any] = {"rows": np.int64(3), "gated": "no"}
    machine = Machine(**given)
    assert machine == Machine(3, False)
    assert type(machine.rows) is int
    with pytest.raises(ValueError, match=r"Machine\(rows='3'\): must be an integer"):
        Machine(**{**given, "rows": "3"})
