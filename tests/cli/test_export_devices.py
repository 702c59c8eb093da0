"""``elision export --target c --device NAME``: what fits, and what is refused."""

import json
import shutil
from pathlib import Path

import pytest
from command_line import run

from elision.cli import main as cli

pytestmark = pytest.mark.skipif(
    not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="no C compiler"
)


@pytest.fixture(autouse=True)
def _empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli.app, "config", cli.app.config)


def test_a_network_is_written_as_c_and_placed_on_devices(
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = (
        "export --workload digits-cnn --epochs 1 --target c --device pico nrf5340-dk "
        "--examples 100 --calibration 64 --out made"
    )
    assert run(line) == 0
    said = capsys.readouterr().out
    assert "C compiler     integer graph" in said
    assert "pico: fits" in said
    assert "ms (estimate: range over 4 published runs" in said
    summary = json.loads(Path("made/summary.json").read_text())
    agreed = [row for row in summary["agreement"] if row["answers of"] == "C compiler"]
    assert agreed[0]["largest difference (steps)"] == 0
    assert agreed[0]["equal codes %"] == 100
    assert summary["memory"]["arena_bytes"] >= summary["memory"]["peak_bytes"] > 0
    assert [row["device"] for row in summary["devices"]] == ["pico", "nrf5340-dk"]
    assert Path("made", summary["files"]["c"]).with_suffix(".h").is_file()
    page = Path("made/report.html").read_text()
    assert "Memory" in page
    assert "estimated here" in page


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("export --device piko", "unknown device 'piko' (did you mean 'pico'?)"),
        ("export --target c --quantise none", "target 'c' is of integers"),
        ("export --device pico --quantise none", "--device pico would be ignored"),
    ],
)
def test_wrong_input_is_one_line_and_leaves_nothing(
    line: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime")
    assert run(line) == 2
    found = capsys.readouterr().err.strip()
    assert said in found
    assert len(found.splitlines()) == 1
    assert not list(Path().iterdir())
