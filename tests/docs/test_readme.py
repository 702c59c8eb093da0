"""What the README says to type works."""

import re
from pathlib import Path

import pytest
import torch

from elision.cli.main import app

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def test_the_scripts_run(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) == 3
    # timm is an extra; the library's own network of the same layers stands in.
    first, *rest = (block.replace("timm:resnet18", "resnet18") for block in blocks)
    names: dict[str, object] = {}
    exec(first, names)
    model = names["model"]
    assert isinstance(model, torch.nn.Module)
    names["optimizer"] = torch.optim.SGD(model.parameters(), lr=0.1)
    for block in rest:
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
