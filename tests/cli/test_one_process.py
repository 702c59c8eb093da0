"""Commands that own a folder: a second process in it is told so, and writes nothing."""

from pathlib import Path

import pytest
from command_line import run

from elision.common.locking import alone_in

WORKLOAD = """[workload]
name = "small"
dataset = "digits"
model = "mlp"
epochs = 1
"""


@pytest.mark.parametrize(
    "command",
    [
        "study --recipe dense",
        "train",
        "search",
        "search --method random --budget 0.9",
        "federate",
        "faults",
        "sensitivity",
        "export",
    ],
)
def test_a_second_process_in_a_folder_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    workload, folder = tmp_path / "small.toml", tmp_path / "run"
    workload.write_text(WORKLOAD)
    folder.mkdir()
    with alone_in(folder):
        status = run(f"{command} --workload {workload} --out {folder}")
    assert status == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"elision: {folder}: another process is at work in it")
    assert list(folder.iterdir()) == []


def test_a_second_reproduction_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with alone_in(tmp_path):
        assert run(f"reproduce layerpipe --out {tmp_path}") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"elision: {tmp_path}: another process is at work in it")
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_no_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("mine")
    assert run(f"sensitivity --epochs 1 --workload digits-mlp --out {path}") == 2
    assert capsys.readouterr().err.startswith(f"elision: {path}: is a file")
    assert path.read_text() == "mine"
