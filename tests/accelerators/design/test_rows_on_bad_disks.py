"""A sweep's file on a disk that fills, and behind a link."""

import resource
from pathlib import Path

import pytest

from elision.accelerators.design.rows import ALL, COLUMNS, RowFile


def _row(content: str) -> dict[str, str]:
    """A machine's last row, without which the others do not count."""
    empty = dict.fromkeys(COLUMNS, "")
    return empty | {"content": content, "layer": ALL, "product": ALL}


def test_rows_that_do_not_fit_leave_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    RowFile(path).add([_row("first")])
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 20, hard))
    try:
        with pytest.raises(OSError, match=r"rows\.csv: could not be written"):
            RowFile(path).add([_row("second")])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before


def test_rows_are_never_written_through_a_link(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs.csv"
    RowFile(theirs).add([_row("first")])
    before = theirs.read_bytes()
    link = tmp_path / "rows.csv"
    link.symlink_to(theirs)
    RowFile(link).add([_row("second")])
    assert theirs.read_bytes() == before
    assert RowFile(link).contents() == {"first", "second"}
