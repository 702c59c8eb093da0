"""The target ``c``: files written, compiled and run as the command does."""

import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from elision.export import TARGETS, plan_quantised, quantised

pytestmark = pytest.mark.skipif(
    not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="no C compiler"
)


@pytest.mark.parametrize("stem", ["photo-resnet8", "3x3", "plain"])
def test_what_is_written_answers_as_the_graph(stem: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 5))
    graph = quantised(model, torch.randn(9, 1, 6, 6))
    codes = torch.randint(-128, 128, (7, 1, 6, 6), dtype=torch.int8)
    target, path = TARGETS["c"], tmp_path / f"{stem}.c"
    target.check()
    target.write(graph, path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"{stem}.c", f"{stem}.h"]
    assert torch.equal(target.run(path, graph, codes), graph.run(codes))
    size, words = target.stored(path, graph)
    assert size == plan_quantised(graph).flash_bytes
    assert path.name in words


def test_floating_point_is_refused() -> None:
    with pytest.raises(ValueError, match="target 'c' is of integers"):
        TARGETS["c"].check_float()


def test_a_missing_compiler_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(FileNotFoundError, match="no C compiler"):
        TARGETS["c"].check()
