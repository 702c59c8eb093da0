"""Files of commands where none can be written, or where no folder is yet."""

from pathlib import Path

import pytest

from elision.cli.main import main


def _ended(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as end:
        main(words)
    assert isinstance(end.value.code, int)
    return end.value.code, capsys.readouterr().err


def test_the_file_and_the_cause_are_told_without_a_number(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = tmp_path / "taken"
    taken.write_text("mine")
    out = taken / "folder" / "t.safetensors"
    words = ("trace", "--model", "cnn", "--input", "8", "--out", str(out))
    status, said = _ended(capsys, *words)
    assert status == 1
    assert said == f"elision: {out.parent}: Not a directory\n"
    assert taken.read_text() == "mine"


def test_a_file_may_be_named_in_a_folder_that_is_not_there_yet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "tables" / "shapes.csv"
    status, _ = _ended(capsys, "shapes", "--model", "cnn", "--out", str(out))
    assert status == 0
    assert out.read_text("utf-8")


def test_a_link_out_of_an_export_is_refused_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, outside = tmp_path / "export", tmp_path / "outside"
    folder.mkdir()
    outside.mkdir()
    (folder / "network").symlink_to(outside)
    words = ("export", "--workload", "digits-mlp", "--epochs", "1", "--target", "c")
    status, said = _ended(capsys, *words, "--out", str(folder))
    assert status == 2
    assert said.startswith(f"elision: {folder / 'network'}: is a symbolic link")
    assert list(outside.iterdir()) == []
