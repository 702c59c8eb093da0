"""What the loggers of a training are told of its steps and epochs."""

from dataclasses import asdict

from torch import Tensor

from elision.topology import Topology
from elision.training.checkpoint import EpochMetrics, RunState
from elision.training.loggers import RunLog
from elision.training.spent import EpochEnergy

__all__ = ["TrainingLog"]


class TrainingLog:
    """Steps and epochs of a training as values of a log; steps are counted from 1.

    The last step of an epoch is told with the epoch.

    Args:
        log: of the run.
        state: of the run; its history is told first, as far as it was not.
        topology: the masks, if the recipe has any.
        per_epoch: steps of an epoch.
    """

    def __init__(
        self, log: RunLog, state: RunState, topology: Topology, per_epoch: int
    ) -> None:
        self._log, self._state, self._topology = log, state, topology
        self._per_epoch = per_epoch
        self._last: dict[str, float] = {}
        self._masks = self._copied()
        for metrics in state.history:
            log.scalars(self._row(metrics), self._step_of(metrics))

    def _step_of(self, metrics: EpochMetrics) -> int:
        return (metrics.epoch + 1) * self._per_epoch

    def _row(self, metrics: EpochMetrics) -> dict[str, float]:
        return metrics.to_row(self._state.metric)

    def step(self, done: int, loss: float | None, learning_rate: float) -> None:
        """Tell of a step.

        Args:
            done: steps that are done with it.
            loss: of its batch; None where other processes have a part of it.
            learning_rate: of the step.
        """
        values = {"step/learning_rate": learning_rate}
        if loss is not None:
            values["step/loss"] = loss
        if done % self._per_epoch:
            self._log.scalars(values, done)
        else:
            self._last = values

    def epoch(self, metrics: EpochMetrics, spent: EpochEnergy | None) -> None:
        """Tell of an epoch, once its checkpoint is written.

        Args:
            metrics: of the epoch.
            spent: seconds, bytes and joules of the epoch.
        """
        values = self._row(metrics) | self._last | self._work() | self._moved()
        if spent is not None:
            energy = asdict(spent.energy)
            measured = ("wall_seconds", "cpu_seconds", "peak_bytes")
            joules = ("low_joules", "high_joules")
            found = {n: energy[n] for n in (*measured, *joules)}
            values |= {f"epoch/{n}": v for n, v in found.items() if v is not None}
            if spent.step_cpu_seconds is not None:
                values["epoch/step_cpu_seconds"] = spent.step_cpu_seconds
        if self._state.saved_bytes is not None:
            logical, stored = self._state.saved_bytes
            values |= {"saved_bytes/logical": logical, "saved_bytes/stored": stored}
        self._log.scalars(values, self._step_of(metrics))
        self._log.flush()

    def _work(self) -> dict[str, float]:
        """Work and densities of the steps metered so far, by product."""
        meter = self._state.meter
        found = {"training_macs_ratio": meter.total().ratio}
        for product, work in meter.by_product().items():
            found[f"work/{product.value}"] = work.ratio
            for operand, density in work.densities.items():
                found[f"density/{product.value}/{operand}"] = density
        return found

    def _moved(self) -> dict[str, float]:
        """Density of each mask, and the share of its places that changed in the epoch."""
        before, self._masks = self._masks, self._copied()
        if not self._masks:
            return {}
        found: dict[str, float] = {"masks/moves": self._topology.moves}
        for name, mask in self._masks.items():
            found[f"masks/density/{name}"] = mask.float().mean().item()
            changed = (mask != before[name]).float().mean().item()
            found[f"masks/changed/{name}"] = changed
        return found

    def _copied(self) -> dict[str, Tensor]:
        masks = self._topology.masks()
        return {name: mask.detach().bool().clone() for name, mask in masks.items()}
