"""Probes: questions that a study asks of every recipe it has trained."""

from collections.abc import Callable

from elision.probes.base import Probe, Trained

__all__ = ["PROBES", "Probe", "Trained"]

#: Probes by the names a person knows them by.
PROBES: dict[str, Callable[..., Probe]] = {}
