"""elision pipeline: the table, the figure and the traces; what it refuses."""

import json
from pathlib import Path

import pytest
from command_line import run


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import torch

    threads = torch.get_num_threads()
    monkeypatch.chdir(tmp_path)
    yield
    torch.set_num_threads(threads)


def test_a_workload_is_timed_and_planned(capsys: pytest.CaptureFixture[str]):
    line = "pipeline --workload digits-cnn --processors 2 --batch 4 --out plans"
    assert run(f"{line} --schedule layerpipe 1f1b") == 0
    out = capsys.readouterr().out
    assert "digits-cnn, micro-batches of 4, timed here on one core" in out
    assert {p.name for p in Path("plans").iterdir()} == {
        *("1f1b.json", "layerpipe.json"),
        *("pipeline.csv", "pipeline.json", "pipeline.svg"),
    }
    facts = json.loads(Path("plans/pipeline.json").read_text())
    assert [row["schedule"] for row in facts["schedules"]] == ["layerpipe", "1f1b"]
    assert all(layer["forward"] > 0 for layer in facts["layers"])


def test_an_array_of_processors_is_one_more_row(capsys: pytest.CaptureFixture[str]):
    line = "pipeline --accelerator intergrad:rows=16,columns=16 --model resnet20"
    assert run(f"{line} --schedule zb1p --processors 3") == 0
    assert "simulated" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--schedule zb3p", "unknown schedule 'zb3p'"),
        ("--profile no.txt", "no.txt: no such profile"),
        ("--profile no.txt --batch 4", "--batch 4 would be ignored"),
        ("--workload digits-cnn --input 8", "--input 8 would be ignored"),
        ("--workload digits-cnn --profile x", "give one of --workload, --profile"),
        ("--workload gnmt-tiny", "takes one tensor"),
        ("--model resnet20 --processors 50", "50 stages need at least 50 layers"),
        ("--accelerator scnn", "skips zeros"),
    ],
)
def test_bad_input(line: str, said: str, capsys: pytest.CaptureFixture[str]):
    assert run(f"pipeline {line}") == 2
    assert said in capsys.readouterr().err
    assert not list(Path().iterdir())
