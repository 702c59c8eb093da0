"""What ``elision sensitivity`` refuses, before it trains a network for it."""

from pathlib import Path

import pytest

from elision.cli import main as cli


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--formats nope", "unknown number format 'nope'; known: fp32"),
        ("--formats 1", "rounding(bits=1): must be an integer in [2, 16]"),
        ("--arithmetic 8q", "arithmetic '8q': write bits such as 8a-4w"),
        ("--operand wieght", "unknown operand 'wieght' (did you mean 'weight'?)"),
        ("--budget 1", "sensitivity(budget=1.0): must be a number >= 2"),
        ("--examples 0", "sensitivity(examples=0): must be an integer >= 1"),
        ("--threshold 0.1", "--threshold 0.1 would be ignored: there is no trace"),
        ("--trace missing.npz", "missing.npz: no such trace file"),
        ("nofolder", "nofolder: not a run folder (it has no config.toml)"),
    ],
)
def test_what_cannot_be_is_said_before_the_training(
    line: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli.app, "config", cli.app.config)

    def trained(*_: object, **__: object) -> None:
        pytest.fail("a network was trained first")

    monkeypatch.setattr("elision.study.sensitivity.trained_plainly", trained)
    with pytest.raises(SystemExit) as end:
        cli.main(["sensitivity", *line.split()])
    error = capsys.readouterr().err.strip()
    assert end.value.code
    assert said in error
    assert "\n" not in error
    assert not list(tmp_path.iterdir())


def test_the_usual_budget_is_one_that_the_formats_reach(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checked: list[float] = []

    def check(*choices: object) -> None:
        checked.append(choices[3])  # pyright: ignore[reportArgumentType]
        raise ValueError("enough")

    monkeypatch.setattr(cli.app, "config", cli.app.config)
    monkeypatch.setattr("elision.study.sensitivity.check_choices", check)
    for formats in ("2 4", "6 8", "mxfp8 int16"):
        with pytest.raises(SystemExit):
            cli.main(["sensitivity", "--formats", *formats.split()])
    assert checked == [4.0, 6.0, 8.0]
