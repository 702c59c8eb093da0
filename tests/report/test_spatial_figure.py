"""Drawings of spatial arrays: elements, links and entry cycles are those of the map."""

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from elision.accelerators.spatial import LoopNest, SpaceTimeMap, mappings
from elision.accelerators.spatial.derived import elements
from elision.accelerators.spatial.search import pareto, search
from elision.products import MatmulGeometry
from elision.report.spatial_figure import array_svg, search_svg

NEST = LoopNest.matmul(3, 4, 2)
FIGURES = Path(__file__).parents[2] / "docs" / "figures"


def test_every_map_can_be_drawn_element_by_element() -> None:
    for mapping in list(mappings(NEST, hops="mesh")):
        drawn = array_svg(NEST, mapping.map, mapping.letters)
        ElementTree.fromstring(drawn)
        assert drawn.count('class="pe"') == elements(NEST, mapping.map)


def test_the_skew_stands_at_the_edge() -> None:
    drawn = array_svg(NEST, SpaceTimeMap.keeping(NEST, "C"))
    labels = re.findall(r'text-anchor="middle" fill="(#\w+)">(\d+)<', drawn)
    first, second = dict.fromkeys(colour for colour, _ in labels)
    assert [int(n) for colour, n in labels if colour == first] == [0, 1, 2]
    assert [int(n) for colour, n in labels if colour == second] == [0, 1, 2, 3]
    assert "C: stays in the elements" in drawn


#: The drawings of the documentation: file -> map of a matrix product of 3 cubed, title.
PAGE = {
    "spatial-output-stationary.svg": (
        SpaceTimeMap(("i", "j"), {"i": 1, "j": 1, "k": 1}),
        "C stays: output-stationary",
    ),
    "spatial-hexagonal.svg": (
        SpaceTimeMap(((1, 0, -1), (0, 1, -1)), (1, 1, 1)),
        "all three move: hexagonal",
    ),
}


@pytest.mark.skipif(not FIGURES.is_dir(), reason="not a checkout")
@pytest.mark.parametrize("name", PAGE)
def test_the_page_shows_what_the_library_draws(name) -> None:
    map, title = PAGE[name]
    drawn = array_svg(LoopNest.matmul(3, 3, 3), map, title)
    assert (FIGURES / name).read_text("utf-8") == drawn + "\n"


def test_long_loops_are_drawn_short_and_deep_arrays_not_at_all() -> None:
    nest = LoopNest.matmul(64, 64, 64)
    drawn = array_svg(nest, SpaceTimeMap.keeping(nest, "B"))
    assert drawn.count('class="pe"') == 16
    line = array_svg(nest, SpaceTimeMap(("j",), {"i": 64, "k": 1, "j": 1}))
    assert line.count('class="pe"') == 4
    with pytest.raises(ValueError, match="3 dimensions cannot be drawn"):
        array_svg(nest, SpaceTimeMap(("i", "j", "k"), {"i": 1, "j": 1, "k": 1}))


def test_a_search_is_drawn_with_its_front() -> None:
    found = search(MatmulGeometry(16, 16, 16), pes=4)
    drawn = search_svg(found, pareto(found), "a layer")
    ElementTree.fromstring(drawn)
    assert "Pareto front" in drawn
    assert f"of {len(found):,} candidates" in drawn
    with pytest.raises(ValueError, match="no candidate"):
        search_svg([], [])
