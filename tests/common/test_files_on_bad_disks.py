"""Files on disks that fill, behind links, and for other users to read."""

import os
from pathlib import Path

import pytest
import torch
from small_disk import largest_file

from elision.common.files import (
    append_text,
    check_no_links_out,
    load_tensors,
    replacing,
    save_tensors,
)


def _moved_away(folder: Path, aside: Path) -> None:
    """Write a file whose folder is renamed meanwhile."""
    with replacing(folder / "facts.json") as temporary:
        temporary.write_text("half")
        folder.rename(aside)


def test_an_addition_that_does_not_fit_leaves_the_file_as_it_was(
    tmp_path: Path,
) -> None:
    path = tmp_path / "rows.csv"
    append_text(path, "a\n")
    with (
        largest_file(6),
        pytest.raises(
            OSError, match=r"rows\.csv: could not be written: File too large"
        ),
    ):
        append_text(path, "more than fits\n")
    assert path.read_text() == "a\n"
    with largest_file(6), pytest.raises(OSError, match="File too large"):
        append_text(tmp_path / "new.csv", "more than fits\n")
    assert list(tmp_path.iterdir()) == [path]
    append_text(path, "b\n")
    assert path.read_text() == "a\nb\n"


def test_an_addition_is_never_written_through_a_link(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs.txt"
    theirs.write_text("theirs\n")
    link = tmp_path / "rows.csv"
    link.symlink_to(theirs)
    append_text(link, "ours\n")
    assert theirs.read_text() == "theirs\n"
    assert not link.is_symlink()
    assert link.read_text() == "theirs\nours\n"
    link.unlink()
    link.symlink_to(tmp_path / "nothing")
    append_text(link, "ours\n")
    assert link.read_text() == "ours\n"
    assert not (tmp_path / "nothing").exists()


def test_tensors_that_do_not_fit_leave_the_old_file_and_no_other(
    tmp_path: Path,
) -> None:
    path = tmp_path / "checkpoint.safetensors"
    save_tensors(path, {"x": torch.zeros(8)}, {})
    before = path.read_bytes()
    with (
        largest_file(4096),
        pytest.raises(OSError, match="could not be written: File too large"),
    ):
        save_tensors(path, {"x": torch.zeros(4096)}, {})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_moved_away_keeps_no_temporary_file(tmp_path: Path) -> None:
    folder, aside = tmp_path / "run", tmp_path / "aside"
    folder.mkdir()
    message = r"facts\.json: could not be written: No such file"
    with pytest.raises(OSError, match=message):
        _moved_away(folder, aside)
    assert list(aside.iterdir()) == []


def test_tensors_are_written_by_names_and_with_rights_of_our_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, made = tmp_path / "trace.safetensors", []
    replace = os.replace

    def watched(source: Path, target: Path) -> None:
        made.extend(entry.name for entry in tmp_path.iterdir())
        replace(source, target)

    monkeypatch.setattr(os, "replace", watched)
    mask = os.umask(0o022)
    try:
        save_tensors(path, {"x": torch.ones(3)}, {"step": 1})
    finally:
        os.umask(mask)
    assert len(made) == 1
    assert made[0].endswith(".elision-partial")
    assert path.stat().st_mode & 0o777 == 0o644
    tensors, facts = load_tensors(path, "trace")
    assert tensors["x"].tolist() == [1.0, 1.0, 1.0]
    assert facts == {"step": 1}


def test_links_out_of_a_folder_are_found_at_any_depth(tmp_path: Path) -> None:
    run, outside = tmp_path / "run", tmp_path / "outside"
    (run / "recipes" / "dense").mkdir(parents=True)
    outside.mkdir()
    (run / "latest").symlink_to(run / "recipes")  # stays inside
    check_no_links_out(run)
    check_no_links_out(tmp_path / "not-there")
    (tmp_path / "named").symlink_to(run)
    check_no_links_out(tmp_path / "named")
    (run / "recipes" / "dense" / "seed-1").symlink_to(outside)
    with pytest.raises(
        ValueError, match="dense/seed-1: is a symbolic link to a folder"
    ):
        check_no_links_out(run)
