"""The page on what survives has the counts of its records."""

import pytest
from campaigns.page import PAGE, RECORDS, records, with_tables


def test_the_tables_are_those_of_the_records() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert with_tables(page, records()) == page


def test_a_campaign_without_a_table_is_refused() -> None:
    with pytest.raises(ValueError, match="kills"):
        with_tables("<!-- begin all -->\n<!-- end all -->", [RECORDS / "kills.json"])
