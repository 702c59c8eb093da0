"""The figures on the page about the kernels are those of its records."""

from benchmarks.kernel_tables import PAGE, written


def test_the_tables_are_those_of_the_records() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert written(page) == page
