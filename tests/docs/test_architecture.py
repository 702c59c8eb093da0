"""The architecture page: floors as contracted and imported, rooms and files that exist."""

import importlib.util
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import elision

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "architecture.md"
PACKAGE = Path(elision.__file__).parent
ROOMS = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}

pytestmark = pytest.mark.skipif(not PAGE.is_file(), reason="not a checkout")


@pytest.fixture(scope="module")
def floors() -> ModuleType:
    spec = importlib.util.spec_from_file_location("floors", ROOT / "docs/floors.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def contracts() -> Iterator[dict[str, Any]]:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    yield from tomllib.loads(text)["tool"]["importlinter"]["contracts"]


def drawn() -> dict[str, float]:
    """Height of every box in the committed picture."""
    svg = (ROOT / "docs/figures/floors.svg").read_text(encoding="utf-8")
    boxes = re.findall(r'<g><title>(\w+) imports.*?<rect x=".*?" y="([\d.]+)"', svg)
    return {room: float(y) for room, y in boxes}


def test_the_floors_drawn_are_those_of_the_contract(floors: ModuleType) -> None:
    heights = drawn()
    assert heights.keys() == ROOMS
    (layers,) = (c["layers"] for c in contracts() if c["type"] == "layers")
    by_height: dict[float, set[str]] = {}
    for room, y in heights.items():
        by_height.setdefault(y, set()).add(room)
    contracted = [set(re.findall(r"\w+", floor)) & ROOMS for floor in layers]
    assert [by_height[y] for y in sorted(by_height)] == contracted
    assert [set(floor) for floor in floors.floors()] == contracted


def test_every_import_points_down_in_the_picture(floors: ModuleType) -> None:
    heights, found = drawn(), floors.imports()
    assert found.keys() == ROOMS
    for room, others in found.items():
        assert all(heights[room] < heights[other] for other in others), room
    assert found["common"] == set()
    assert "products" in found["layers"]


def test_arrows_leave_out_only_what_a_path_implies(floors: ModuleType) -> None:
    found = {"a": {"b", "c"}, "b": {"c"}, "c": set(), "d": {"c"}}
    assert floors.arrows(found) == [("a", "b"), ("b", "c"), ("d", "c")]


def test_the_committed_picture_is_of_todays_imports(floors: ModuleType) -> None:
    assert floors.is_current(), "run python docs/floors.py"


def test_the_page_lists_every_room_and_no_other() -> None:
    page = PAGE.read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)/` \| .+ \|$", page, re.MULTILINE)
    assert set(rows) - {"formats"} == ROOMS - {"formats"}
    assert len(rows) == len(set(rows))


def test_each_trip_has_six_lines_and_names_files_that_exist() -> None:
    page = PAGE.read_text(encoding="utf-8")
    trips = [part for part in page.split("\n## ") if "\n1. " in part]
    assert len(trips) == 2
    for trip in trips:
        assert re.findall(r"^(\d)\. ", trip, re.MULTILINE) == list("123456")
    named = re.findall(r"`([\w/]+\.py)`", page)
    assert len(named) > 15
    missing = [
        n for n in named if not (PACKAGE / n).is_file() and not (ROOT / n).is_file()
    ]
    assert missing == []


def test_the_contracts_forbid_circles_in_every_room() -> None:
    (acyclic,) = (c for c in contracts() if c["type"] == "acyclic_siblings")
    assert acyclic["ancestors"] == ["elision.*"]
    assert not acyclic.keys() & {"ignore_imports", "skip_descendants"}


@pytest.mark.parametrize("page", ["index.md", "../README.md"])
def test_the_page_is_linked(page: str) -> None:
    text = (PAGE.parent / page).read_text(encoding="utf-8")
    assert re.search(r"^architecture$|docs/architecture\.md", text, re.MULTILINE)
