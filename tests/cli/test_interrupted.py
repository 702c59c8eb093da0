"""An interruption, and a request to end, is one line, wherever it falls."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from elision.cli import main as command_line
from elision.cli.signals import requests_kept


def _stop_in_a_callback(number: signal.Signals) -> None:
    class Lost:
        def __del__(self) -> None:
            os.kill(os.getpid(), number)
            sum(range(1000))  # the handler runs here, where its exception is ignored

    Lost()
    time.sleep(10)
    raise AssertionError("the signal was lost")


def _stop(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)
    time.sleep(10)
    raise AssertionError("the signal was lost")


def _stop_in_a_callback_that_is_missed(number: signal.Signals) -> None:
    class Lost:
        def __del__(self) -> None:
            os.kill(os.getpid(), number)
            sum(range(1000))

    Lost()
    raise RuntimeError("the callback has not done its work")


@pytest.fixture(autouse=True)
def _not_in_the_background() -> Iterator[None]:
    """SIGINT means an interruption: shells have programs in the background ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    "how", [_stop, _stop_in_a_callback, _stop_in_a_callback_that_is_missed]
)
@pytest.mark.parametrize(
    ("number", "status", "line"),
    [
        (signal.SIGINT, 1, "elision: interrupted; the same command continues\n"),
        (
            signal.SIGTERM,
            143,
            "elision: ended by SIGTERM; the same command continues\n",
        ),
    ],
)
def test_a_stop_is_told_in_one_line_even_in_a_callback_of_python(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    how: Callable[[signal.Signals], None],
    number: signal.Signals,
    status: int,
    line: str,
) -> None:
    monkeypatch.setattr(command_line, "_run", lambda _: how(number))
    with pytest.raises(SystemExit) as end:
        command_line.main(["study"])
    assert end.value.code == status
    assert capsys.readouterr().err == line
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_rank_of_torchrun_ends_on_sigterm_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "one")
    with requests_kept():
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_the_handler_of_a_users_program_stays() -> None:
    def mine(*_: object) -> None: ...

    before = signal.signal(signal.SIGTERM, mine)
    try:
        with requests_kept():
            assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, before)


def test_an_interruption_while_the_command_line_loads_is_one_line() -> None:
    script = (
        "import importlib.abc, sys\n"
        "class Interrupts(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'cyclopts': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupts())\n"
        "from elision.__main__ import main\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 130
    assert done.stderr == "elision: interrupted before it began\n"


def test_a_message_moves_no_cursor_and_ends(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: object) -> None:
        raise ValueError("\x1b[2J" + "x" * 100_000 + "\u202eend")

    monkeypatch.setattr(command_line, "_run", fail)
    with pytest.raises(SystemExit):
        command_line.main(["study"])
    said = capsys.readouterr().err
    assert said.startswith("elision: \\x1b[2Jxxx")
    assert said.endswith("xxx\\u202eend\n")
    assert len(said) < 2100
