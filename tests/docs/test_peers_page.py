"""The page that compares with other libraries has the figures of its records."""

from benchmarks.peers.base import OURS, PEERS
from benchmarks.peers.page import PAGE, records, with_tables


def test_the_tables_are_those_of_the_records() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert with_tables(page, records()) == page


def test_every_peer_is_on_the_page_measured_or_with_the_reason() -> None:
    page = PAGE.read_text(encoding="utf-8")
    found = records()
    assert len(found) == len(PEERS)
    for record in found:
        assert f"| {record['name']} |" in page
        assert record["reason"] or record["works"]
        for work in record.get("works", ()):
            # Nothing is timed that does not agree.
            agrees = all(told["holds"] for told in work["agreement"])
            assert agrees == ("sides" in work)
            assert work["title"] in page


def test_a_peer_that_is_faster_is_listed_as_such() -> None:
    page = PAGE.read_text(encoding="utf-8")
    wins = page.split("<!-- begin peer-wins -->")[1].split("##")[0]
    for record in records():
        for work in record.get("works", ()):
            for name, side in work.get("sides", {}).items():
                if name.startswith(record["name"]):
                    row = f"| {work['title']} | " in wins and f"| {name} | " in wins
                    assert row or side["over"][OURS][2] >= 1
