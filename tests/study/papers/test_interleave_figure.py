from pathlib import Path
from xml.etree import ElementTree

import pytest

from elision.study.papers.intergrad.explained import PHASES, interleave_svg

DOCS = Path(__file__).parents[3] / "docs"


def boxes(svg, colour):
    found = ElementTree.fromstring(svg).findall("{*}rect")
    return [box for box in found if box.get("fill") == colour]


def test_the_figure_in_the_docs_is_the_one_that_is_drawn():
    assert (DOCS / "figures" / "intergrad-array.svg").read_text(
        "utf-8"
    ) == interleave_svg()


@pytest.mark.parametrize(
    ("rows", "columns", "streamed"), [(3, 3, 3), (1, 1, 1), (2, 4, 2)]
)
def test_each_shown_pe_works_on_both_gradients_for_every_row(rows, columns, streamed):
    svg = interleave_svg(rows, columns, streamed)
    shown = rows + (columns > 1)
    for colour in PHASES.values():
        assert len(boxes(svg, colour)) == shown * streamed + 1  # and one in the legend


def test_sizes_are_checked():
    with pytest.raises(ValueError, match=r"rows=0\): must be an integer >= 1"):
        interleave_svg(rows=0)
