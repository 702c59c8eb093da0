"""Requests to end: an interruption by a person, and SIGTERM, as schedulers send it."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

__all__ = ["Ended", "requests_kept"]


class Ended(BaseException):
    """This process was asked to end (SIGTERM); the counterpart of KeyboardInterrupt."""


#: Signals by the exception that each is raised as.
_SIGNALS: dict[type[BaseException], signal.Signals] = {
    KeyboardInterrupt: signal.SIGINT,
    Ended: signal.SIGTERM,
}


@contextlib.contextmanager
def requests_kept() -> Iterator[None]:
    """Context in which a request to end is an exception that Python cannot lose.

    One that falls into a callback of the interpreter's own, of which an import runs
    thousands, would be printed and lost; it is raised once more, and in the place of an
    error that comes of the callback's end. A process of torchrun's
    ends on SIGTERM as it is: it may be waiting for another one that has ended already, in
    a call that no exception leaves.
    """
    lost: list[tuple[type[BaseException], threading.Timer]] = []

    def raised_again(unraisable: Any) -> None:
        if number := _SIGNALS.get(unraisable.exc_type):
            # A moment later, for what is raised in here is thrown away, too.
            timer = threading.Timer(0.01, signal.raise_signal, [number])
            lost.append((unraisable.exc_type, timer))
            timer.start()
        else:
            before(unraisable)

    with contextlib.ExitStack() as stack:
        before, sys.unraisablehook = sys.unraisablehook, raised_again
        stack.callback(setattr, sys, "unraisablehook", before)
        if _takes_sigterm():
            handler = signal.signal(signal.SIGTERM, _end)
            stack.callback(signal.signal, signal.SIGTERM, handler)
        try:
            yield
        except Exception:
            if not lost:
                raise
            request, timer = lost[-1]
            timer.cancel()
            raise request from None


def _takes_sigterm() -> bool:
    """Whether SIGTERM is ours to handle."""
    return (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL  # not a user's program's
        and "TORCHELASTIC_RUN_ID" not in os.environ
    )


def _end(*_: object) -> None:
    raise Ended
