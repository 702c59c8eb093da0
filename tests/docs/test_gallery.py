"""The gallery: each picture is there, is described, and is made by what stands below it."""

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
from page_commands import NOT_RUN, run
from pages import ROOT, commands_in

PAGE = ROOT / "docs" / "gallery.md"

pytestmark = pytest.mark.skipif(not PAGE.is_file(), reason="not a checkout")

#: What a reader loads for a picture, at most.
MOST_BYTES = 256 * 1024
#: What the page shows at least, by the names of the pictures.
SHOWN = [
    "report",
    "break-even",
    "memory-map",
    "ant",
    "systolic-folds",
    "timeline",
    "retiming",
    "pipeline",
    "scaling",
    "sensitivity",
    "faults",
    "search",
    "spatial",
]


def _script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / f"docs/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where a dataclass looks for its annotations
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def gallery() -> ModuleType:
    return _script("gallery")


def test_something_makes_every_picture(gallery: ModuleType) -> None:
    recorded = _script("recorded_figures")
    made = {ROOT / "docs" / entry.figure for entry in gallery.entries()}
    made |= {ROOT / f"docs/figures/{name}.svg" for name in recorded.FIGURES}
    made.add(ROOT / "docs/figures/floors.svg")  # docs/floors.py
    figures = {p for p in (ROOT / "docs/figures").rglob("*") if p.is_file()}
    assert figures == made


@pytest.mark.parametrize("name", ["noise-by-layer", "scaling"])
def test_a_recorded_picture_is_drawn(name: str) -> None:
    drawn = _script("recorded_figures").FIGURES[name]()
    page = (ROOT / f"docs/figures/{name}.svg").read_text("utf-8")
    words = re.compile(r">([^<>\n]*[a-z]{2}[^<>\n]*)<")
    assert words.findall(drawn) == words.findall(page)


def test_every_picture_is_small_and_described(gallery: ModuleType) -> None:
    found = gallery.entries()
    assert [entry.name for entry in found] == SHOWN
    for entry in found:
        assert (ROOT / "docs" / entry.figure).stat().st_size < MOST_BYTES, entry.name
        assert len(entry.about) > 40, entry.name


def test_an_entry_without_what_makes_it_is_refused(
    gallery: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "gallery.md"
    text = PAGE.read_text(encoding="utf-8")
    page.write_text(text.replace("Writes `ant.svg`.", ""), encoding="utf-8")
    monkeypatch.setattr(gallery, "PAGE", page)
    with pytest.raises(SystemExit, match="lacks its picture"):
        gallery.entries()


@pytest.mark.parametrize("name", SHOWN)
@pytest.mark.usefixtures("own_files")
@pytest.mark.filterwarnings("ignore")  # of the compiler
def test_a_picture_is_made_by_what_stands_below_it(
    gallery: ModuleType, name: str
) -> None:
    (entry,) = (entry for entry in gallery.entries() if entry.name == name)
    if entry.language == "python":
        exec(entry.block, {})
    commands = commands_in(entry.block) if entry.language == "sh" else []
    for start, reason in NOT_RUN.items():
        if any(command.startswith(start) for command in commands):
            pytest.skip(f"{start}: {reason}")
    for command in commands:
        run(command)
    assert Path(entry.written).stat().st_size > 1000
