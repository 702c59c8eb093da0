"""Claims of run folders: nobody else's file is touched, one process at a time."""

import re
from pathlib import Path
from typing import Any

import pytest

from elision.study.folder import claimed

CONFIG = {"workload": "digits-cnn", "recipes": ["dense"]}


def _claim(folder: Path, config: dict[str, Any]) -> None:
    with claimed(folder, config):
        pass


def _tree(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    "files",
    [
        {"film.mkv": "x", ".film.mkv.partial": "y"},
        {".film.mkv.partial": "y"},
        {"deep/.film.mkv.4711.partial": "y"},
        {"deep/.a.1.0123abcd.elision-partial": "y"},
    ],
    ids=["a film", "a film begun", "below", "an own name below"],
)
def test_a_folder_of_ones_own_is_refused_and_stays_as_it_is(
    tmp_path: Path, files: dict[str, str]
) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    before = _tree(tmp_path)
    with pytest.raises(ValueError, match="not empty and not a run folder"):
        _claim(tmp_path, CONFIG)
    assert _tree(tmp_path) == before


def test_another_run_is_refused_before_anything_is_removed(tmp_path: Path) -> None:
    with claimed(tmp_path, CONFIG):
        pass
    left = tmp_path / f".config.toml.{10**30}.0123abcd.elision-partial"
    left.write_text("")
    with pytest.raises(ValueError, match="another workload"):
        _claim(tmp_path, CONFIG | {"workload": "digits-mlp"})
    assert left.exists()
    with claimed(tmp_path, CONFIG):
        assert not left.exists()


def test_a_claim_killed_before_its_first_file_can_be_made_again(tmp_path: Path) -> None:
    (tmp_path / f".config.toml.{10**30}.0123abcd.elision-partial").write_text("")
    with claimed(tmp_path, CONFIG):
        names = {path.name for path in tmp_path.iterdir()}
        assert names == {"config.toml", "env.json"}


@pytest.mark.parametrize("name", ["env.json", "sources.json"])
@pytest.mark.parametrize("content", ['{"torch": ', "[]", "[" * 100_000])
def test_a_damaged_file_of_a_run_is_named_at_once(
    tmp_path: Path, name: str, content: str
) -> None:
    with claimed(tmp_path, CONFIG, {"data": "0123"}):
        pass
    (tmp_path / name).write_text(content)
    found = f"{re.escape(str(tmp_path / name))}: damaged"
    with pytest.raises(ValueError, match=found), claimed(tmp_path, CONFIG, {}):
        pytest.fail("the trainings would begin")
    (tmp_path / name).unlink()
    with claimed(tmp_path, CONFIG, {"data": "0123"}):
        assert (tmp_path / name).is_file(), (
            "deleted, as the message says, it is written"
        )


def test_a_second_claim_meanwhile_is_told_so(tmp_path: Path) -> None:
    with (
        claimed(tmp_path, CONFIG),
        pytest.raises(ValueError, match="another process is at work"),
    ):
        _claim(tmp_path, CONFIG)
    with claimed(tmp_path, CONFIG):
        pass
