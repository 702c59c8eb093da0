"""elision faults: what it writes, that it goes on, and what it refuses."""

import json

import pytest

from elision.cli.main import main

SMALL = {
    "--workload": "digits-cnn",
    "--epochs": "1",
    "--examples": "50",
    "--trials": "100",
}


def _run(capsys, *arguments, status=0):
    small = [
        word for pair in SMALL.items() if pair[0] not in arguments for word in pair
    ]
    with pytest.raises(SystemExit) as stopped:
        main(["faults", *small, *arguments])
    assert (stopped.value.code or 0) == status
    return capsys.readouterr()


def test_networks_and_trainings_are_struck_and_written(tmp_path, capsys):
    out = tmp_path / "run"
    arguments = (
        "--recipe",
        "dense",
        "--training",
        "weight",
        "--first",
        "5",
        "--out",
        str(out),
    )
    first = _run(capsys, *arguments).out
    assert "dense, int8" in first
    assert "per surviving weight" in first
    summary = json.loads((out / "summary.json").read_text())
    assert summary["networks"]["dense, fp32"]["trials"] == 100
    page = (out / "report.html").read_text()
    for heading in (
        "Networks under faults",
        "By bit",
        "By layer",
        "Faults while training",
    ):
        assert heading in page
    assert {path.name for path in (out / "figures").iterdir()} == {
        "bits.svg", "layers.svg", "recovery-0.svg",
    }  # fmt: skip
    blocks = {path: path.stat().st_mtime_ns for path in out.rglob("block-*")}
    assert blocks
    assert _run(capsys, *arguments).out == first
    assert {path: path.stat().st_mtime_ns for path in out.rglob("block-*")} == blocks


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--site", "wieght"), "unknown site 'wieght'"),
        (("--site", "bitmap"), "storage must be bitmap"),
        (("--format", "int88"), "int88"),
        (("--training", "gradients"), "unknown site of a training 'gradients'"),
        (("--recipe", "rigll"), "rigll"),
        (("--trials", "0"), "faults(trials=0): must be an integer >= 1"),
        (("--examples", "0"), "faults(examples=0): must be an integer >= 1"),
        (("--first", "-1"), "faults(first=-1): must be an integer >= 0"),
        (("--width", "2"), "faults(width=2.0): must be a number in (0, 1)"),
        (
            ("--site", "scale", "--recipe", "dense"),
            "nothing there to change in format of",
        ),
        (
            ("--site", "gradient", "--recipe", "dense"),
            "only while a network is trained",
        ),
        (("--bits", "40", "--recipe", "dense"), "words have 32 bits"),
    ],
)
def test_wrong_words_are_answered_in_one_line(tmp_path, capsys, arguments, message):
    found = _run(capsys, *arguments, "--out", str(tmp_path), status=2).err
    assert message in found
    assert "Traceback" not in found
