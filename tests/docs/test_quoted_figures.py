"""The pages on choosing and on all systems quote figures of the pages they name."""

import re

import pytest
from pages import ROOT

ROWS = [
    line
    for page in ("choose-a-method", "systems")
    for line in (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8").splitlines()
    if "](" in line and line.startswith("|")
]
#: Decimals, and numbers with thousands.
FIGURE = re.compile(r"[-+]?\d+\.\d+|\d{1,3}(?:,\d{3})+")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip()[:30])
def test_every_figure_stands_on_a_page_of_its_row(row: str) -> None:
    *said, named = row.strip("|").split("|")
    sources = [
        ROOT / "docs" / page for page in re.findall(r"\]\(([\w-]+\.md)\)", named)
    ]
    sources += [
        ROOT / name / "README.md" for name in re.findall(r"`(records/.*)`", named)
    ]
    assert sources
    text = "".join(source.read_text(encoding="utf-8") for source in sources)
    known = {figure.lstrip("+") for figure in FIGURE.findall(text)}
    for figure in FIGURE.findall(re.sub(r"`[^`]*`", "", " ".join(said))):
        assert figure.lstrip("+") in known, figure
