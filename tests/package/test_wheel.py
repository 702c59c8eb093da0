"""What is built to be installed holds the library whole, and nothing else."""

import re
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import elision

wheel = pytest.importorskip("hatchling.builders.wheel")
sdist = pytest.importorskip("hatchling.builders.sdist")

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the source distribution unpacks to."""
    folder = tmp_path_factory.mktemp("source")
    (made,) = sdist.SdistBuilder(str(ROOT)).build(directory=str(folder))
    with tarfile.open(made) as archive:
        archive.extractall(folder, filter="data")
    (unpacked,) = (path for path in folder.iterdir() if path.is_dir())
    return unpacked


def _files(folder: Path) -> set[str]:
    """Paths of all files below a folder, but for what running leaves there."""
    left = {"__pycache__", ".pytest_cache", "_build", "reference"}
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {path.as_posix() for path in found if not left & {*path.parts}}


def test_the_wheel_is_the_library_and_its_metadata(
    source: Path, tmp_path: Path
) -> None:
    (made,) = wheel.WheelBuilder(str(source)).build(
        directory=str(tmp_path), versions=["standard"]
    )
    with zipfile.ZipFile(made) as archive:
        names = set(archive.namelist())
    library = {f"elision/{name}" for name in _files(ROOT / "src" / "elision")}
    assert {name for name in names if ".dist-info/" not in name} == library
    about = {Path(name).name for name in names - library}
    assert {"METADATA", "entry_points.txt", "LICENSE", "NOTICE"} <= about
    kinds = {Path(name).suffix for name in library}
    assert {".cpp", ".hpp", ".c", ".toml", ".json", ".j2", ".css", ".t2s"} <= kinds


@pytest.mark.parametrize("folder", ["tests", "benchmarks", "campaigns", "src"])
def test_the_source_distribution_has_what_tests_need(source: Path, folder: str) -> None:
    assert _files(source / folder) == _files(ROOT / folder)


def test_the_citation_is_of_this_version(source: Path) -> None:
    text = (source / "CITATION.cff").read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    versions = re.findall(r"^version: (.+)$", text, re.MULTILINE)
    assert versions == [elision.__version__] == [project["project"]["version"]]
