"""elision memory: the ways, the file, and arguments that have no meaning."""

import json
from pathlib import Path

import pytest

from elision.cli import main as cli
from elision.cli.memory import _bytes

SMALL = "memory --model resnet8 --batch 4 --rounds 1 --way bits(4) checkpoint"


def test_the_cheapest_way_is_named_and_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "folder" / "ways.json"
    words = [*SMALL.split(), "--limit", "1.5GiB", "--out", str(out)]
    cli.app(words, result_action="return_value")
    said = capsys.readouterr().out
    assert "resnet8, batch 4 at 32x32" in said
    assert "cheapest within 1536.0 MiB: plain" in said
    found = json.loads(out.read_text())
    assert [way["name"] for way in found["ways"]] == ["plain", "bits(4)", "checkpoint"]
    assert found["limit_bytes"] == 1.5 * 2**30
    assert found["verdict"] in said


def test_a_limit_that_nothing_meets(capsys: pytest.CaptureFixture[str]) -> None:
    words = [*SMALL.split()[:-1], "--limit", "1KiB"]
    cli.app(words, result_action="return_value")
    assert "no way fits 0.0 MiB: the smallest, bits(4)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--limit 100MB", "--limit 100MB: give a size above 0 in B, KiB"),
        ("--limit 0MiB", "--limit 0MiB: give a size above 0"),
        ("--way bitz(4)", "did you mean 'bits'?"),
        ("--model resnet8 --block nowhere", "the model has no such module"),
        ("--rounds 0", "rounds=0"),
        ("--batch 0", "memory(batch=0)"),
        ("--model resnet9", "resnet8"),
    ],
)
def test_what_has_no_meaning_is_one_line(
    words: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["memory", *words.split()])
    assert end.value.code == 2
    printed = capsys.readouterr().err.strip()
    assert said in printed
    assert "\n" not in printed


def test_sizes() -> None:
    assert [_bytes(text) for text in ("7B", "100MiB", "2 GiB")] == [
        7,
        100 * 2**20,
        2**31,
    ]
