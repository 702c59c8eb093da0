"""Probes: measurements that a study makes on every recipe it has trained."""

from collections.abc import Callable

from elision.study.probes.base import Probe, Trained
from elision.study.probes.continuation import Continuation
from elision.study.probes.energy import StepEnergy
from elision.study.probes.memory import ActivationMemory
from elision.study.probes.pipeline import Pipeline
from elision.study.probes.roofline import Roofline
from elision.study.probes.speed import Speed
from elision.study.probes.stationarity import Stationarity
from elision.study.probes.translation import Translation

__all__ = [
    "PROBES",
    "ActivationMemory",
    "Continuation",
    "Pipeline",
    "Probe",
    "Roofline",
    "Speed",
    "Stationarity",
    "StepEnergy",
    "Trained",
    "Translation",
]

#: Probes by the names of the command line.
PROBES: dict[str, Callable[..., Probe]] = {
    "speed": Speed,
    "memory": ActivationMemory,
    "stationarity": Stationarity,
    "translation": Translation,
    "continuation": Continuation,
    "pipeline": Pipeline,
    "roofline": Roofline,
    "energy": StepEnergy,
}
