"""Probes: questions that a study asks of every recipe it has trained."""

from collections.abc import Callable

from elision.probes.base import Probe, Trained
from elision.probes.memory import ActivationMemory
from elision.probes.speed import Speed
from elision.probes.stationarity import Stationarity

__all__ = ["PROBES", "ActivationMemory", "Probe", "Speed", "Stationarity", "Trained"]

#: Probes by the names a person knows them by.
PROBES: dict[str, Callable[..., Probe]] = {
    "speed": Speed,
    "memory": ActivationMemory,
    "stationarity": Stationarity,
}
