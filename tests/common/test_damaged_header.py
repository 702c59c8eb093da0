"""A damaged header that quotes what it holds is refused in one line."""

import json
from pathlib import Path

import pytest
import torch

from elision.common.files import load_tensors, save_tensors


def test_a_header_with_lines_in_its_names_is_refused_in_one(tmp_path: Path) -> None:
    path = tmp_path / "trace.safetensors"
    save_tensors(path, {"x": torch.ones(3)}, {"about": "x"})
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["x"]["dtype"] = "a\nb\x1b[31m"
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])
    with pytest.raises(ValueError, match="not a complete trace file") as caught:
        load_tensors(path, "trace")
    assert "\n" not in str(caught.value)
