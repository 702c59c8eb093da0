"""Columns declared once give the names and cells of every table."""

from dataclasses import dataclass

import pytest

from elision.common.columns import Column, as_text, column, columns


@dataclass(frozen=True)
class Row:
    machine: str = column("machine")
    cycles: int = column("cycles", ",")
    share: float = column("use", ".1f", " %", scale=100)
    stalls: float | None = column("stalls", ",", default=None)
    private: int = 3


def test_only_declared_fields_are_columns() -> None:
    assert list(columns(Row)) == ["machine", "cycles", "share", "stalls"]


def test_cells_are_formatted_and_none_is_empty() -> None:
    assert as_text(Row("ant", 12345, 0.5)) == {
        "machine": "ant",
        "cycles": "12,345",
        "use": "50.0 %",
        "stalls": "",
    }


def test_truth_values_are_words() -> None:
    assert [Column("reached").text(value) for value in (True, False)] == ["yes", "no"]


def test_names_choose_and_order_the_columns() -> None:
    assert list(as_text(Row("ant", 1, 0.5), ("share", "machine"))) == ["use", "machine"]


def test_a_table_may_show_a_column_in_a_form_of_its_own() -> None:
    known = columns(Row) | {"cycles": Column("kilocycles", ".1f", scale=1e-3)}
    assert as_text(Row("ant", 1500, 0.5), ("cycles",), known) == {"kilocycles": "1.5"}


def test_an_unknown_column_is_an_error() -> None:
    with pytest.raises(KeyError, match="speed"):
        as_text(Row("ant", 1, 0.5), ("speed",))
