"""What the README says to type works."""

import re
from pathlib import Path

import pytest

from elision.cli.main import app

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def test_the_scripts_run(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) == 4
    names: dict[str, object] = {}
    for block in blocks:
        exec(block, names)
    printed = capsys.readouterr().out
    assert re.search(r"^scnn .*'total': \d+", printed, re.MULTILINE)
    assert "threshold mask" in printed


def test_the_commands_exist() -> None:
    _, _, after = README.partition("## From the command line")
    table, _, _ = after.partition("Every command")
    named = set(re.findall(r"`elision (\w+)", table)) | {"trace", "simulate", "compare"}
    known = {name for name in app if not name.startswith("-")}
    assert named == known
