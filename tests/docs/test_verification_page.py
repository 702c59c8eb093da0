"""The page on verification: what it prints is what the code prints."""

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "is-it-still-a-convolution.md"

pytest.importorskip("islpy")


def test_the_output_of_every_block_is_the_one_printed() -> None:
    text = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    printed, shown = [], []
    for language, block in blocks:
        if language == "text":
            shown.append(block)
            continue
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            exec(block, names)
        if output.getvalue():
            printed.append(output.getvalue())
    assert len(printed) > 5
    assert printed == shown
