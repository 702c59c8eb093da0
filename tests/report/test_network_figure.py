"""The drawing of a design."""

from pathlib import Path
from xml.etree import ElementTree

import pytest

from elision.accelerators.spatial import LoopNest
from elision.accelerators.spatial.schedule import LISTINGS, Schedule, parse, read
from elision.report.network_figure import network_svg

DOCS = Path(__file__).parents[2] / "docs"
SVG = "{http://www.w3.org/2000/svg}"


def texts(drawn: str) -> list[str]:
    return [t.text or "" for t in ElementTree.fromstring(drawn).iter(f"{SVG}text")]


@pytest.mark.parametrize("name", LISTINGS)
def test_every_kernel_is_named_inside_the_drawing(name: str) -> None:
    design = read(name).design()
    drawn = network_svg(design, name)
    found = texts(drawn)
    assert set(design.structure.kernels) <= set(found)
    root = ElementTree.fromstring(drawn)
    width, height = float(root.get("width", 0)), float(root.get("height", 0))
    for box in root.iter(f"{SVG}rect"):
        x, y, w, h = (float(box.get(k, 0)) for k in ("x", "y", "width", "height"))
        assert x >= 0
        assert x + w <= width
        assert y >= 0
        assert y + h <= height


@pytest.mark.parametrize(
    "made",
    [
        Schedule(LoopNest.matmul(3, 5, 4)).unroll("j"),
        Schedule(LoopNest.matmul(3, 5, 4)).unroll("k", "j").forward("C", (1, 0)),
        Schedule(LoopNest.matmul(9, 5, 4)).unroll("i", "k").forward("B", (-1, 0)),
    ],
)
def test_arrays_without_kernels_are_drawn(made: Schedule) -> None:
    design = made.design()
    found = texts(network_svg(design))
    assert {"memory: A", "memory: B", "memory: C"} <= set(found)
    # A datum that moves the other way enters at the other end.
    assert not any(text.startswith("-") for text in found)


def test_the_figure_of_the_page_is_what_the_page_makes() -> None:
    page = (DOCS / "from-a-listing-to-an-array.md").read_text("utf-8")
    listing = page.partition('listing = """\n')[2].partition('"""')[0]
    drawn = network_svg(parse(listing).design(), "the listing's array")
    assert (DOCS / "figures" / "listing-array.svg").read_text("utf-8") == drawn
