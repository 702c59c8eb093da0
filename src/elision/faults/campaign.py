"""A campaign: many seeded trials of a fault in a network that infers."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from elision.common import checks
from elision.common.restoring import restored
from elision.common.workers import spread
from elision.faults.block import Block, Defence, entered, scores_of, strata_of
from elision.faults.fault import Fault
from elision.faults.intervals import METHODS, Interval
from elision.faults.kept import KeptBlocks, digest_of
from elision.faults.outcome import (
    OUTCOMES,
    Normalised,
    Trials,
    mean_changed,
    rate_of,
    rows,
)
from elision.faults.sites import site_of
from elision.layers.meter import metered

__all__ = ["Campaign", "campaign"]

_STRATA = ("bit", "layer", "layer and bit", None)


@dataclass
class Campaign:
    """What many trials of a fault did.

    Attributes:
        trials: one entry a trial.
        strata: name and share of the reachable bits of each stratum.
        accuracy: of the network without a fault, its values as they are stored.
        stored_bits: that the faults reach.
        surviving: stored values among them that are not zero.
        work: MACs of an inference over those of a dense network: of a weight stored
            without its zeros, those of its zeros are left out.
        confidence, method: of the intervals.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> model, x = nn.Linear(4, 3), torch.randn(50, 4, generator=generator)
        >>> found = campaign(model, (x, model(x).argmax(1)), Fault(), trials=200)
        >>> found.accuracy, len(found.trials)
        (1.0, 200)
    """

    trials: Trials
    strata: list[tuple[str, float]]
    accuracy: float
    stored_bits: int
    surviving: int
    work: float
    confidence: float = 0.95
    method: str = "wilson"

    @property
    def weights(self) -> list[float]:
        """Share of the reachable bits of each stratum."""
        return [weight for _, weight in self.strata]

    def rate(self, *outcomes: str) -> Interval:
        """Rate of outcomes a trial, with its interval."""
        return rate_of(
            self.trials, outcomes, self.weights, self.confidence, self.method
        )

    @property
    def wrong(self) -> Interval:
        """Rate of trials in which a prediction changed and nothing told of it."""
        return self.rate("silent", "critical")

    @property
    def changed(self) -> float:
        """Share of predictions that a trial's faults change, in the mean."""
        return mean_changed(self.trials, self.weights)

    @property
    def normalised(self) -> Normalised:
        """The four measures."""
        return Normalised.of(
            self.changed,
            stored_bits=self.stored_bits,
            surviving=self.surviving,
            work=self.work,
        )

    def rows(self) -> list[dict[str, Any]]:
        """A row a stratum."""
        names = [name for name, _ in self.strata]
        return rows(self.trials, names, self.confidence, self.method)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the single trials, as plain values."""
        return {
            "trials": len(self.trials),
            "accuracy": self.accuracy,
            "stored_bits": self.stored_bits,
            "surviving": self.surviving,
            "work": self.work,
            "outcomes": {o: self.rate(o)._asdict() for o in OUTCOMES},
            "wrong": self.wrong._asdict(),
            "changed": self.changed,
            "normalised": self.normalised.to_dict(),
            "confidence": self.confidence,
            "method": self.method,
            "strata": self.rows(),
        }


def campaign(
    model: nn.Module,
    data: tuple[Tensor, Tensor],
    faults: Fault | Sequence[Fault],
    *,
    trials: int = 1000,
    seed: int = 0,
    strata: str | None = "bit",
    width: float | None = None,
    confidence: float = 0.95,
    method: str = "wilson",
    critical: float = 0.01,
    defence: Defence | None = None,
    folder: Path | None = None,
    workers: int = 1,
    executor: Executor | None = None,
    block: int = 100,
    progress: Callable[[int, int], None] | None = None,
) -> Campaign:
    """Strike a network again and again, and count what came of it.

    A trial draws the faults, infers and compares with the golden run, which is made once.
    Stored weights (``lifetime="reload"``) are struck once for all examples of ``data``;
    activations, and ``"transient"`` weights, once for one example drawn at random. The
    same seed gives the same trials on any number of workers. The model is in evaluation
    mode meanwhile, and afterwards as it was.

    Args:
        model: gives scores ``(N, classes)`` for ``data[0]``.
        data: examples ``(N, ...)`` and their classes ``(N,)``.
        faults: what strikes; of several, each trial has all.
        trials: how many, rounded up to whole blocks; ``width`` may end them earlier.
        seed: of the draws.
        strata: ``"bit"``, ``"layer"`` or ``"layer and bit"``: equally many trials in each;
            None: drawn from all bits. Several faults, a rate, or a number above 1 are
            drawn from all.
        width: trials end with the block after which the interval of :attr:`Campaign.wrong`
            is no wider; None: all are made.
        confidence: of the intervals.
        method: ``"wilson"`` or ``"clopper-pearson"``.
        critical: accuracy lost beyond which a trial is critical.
        defence: watches each pass; an alarm makes a trial ``detected``.
        folder: keeps every block, so that the same call goes on where it was interrupted.
        workers: processes.
        executor: runs blocks elsewhere (:mod:`elision.common.cluster`).
        block: trials that are made together.
        progress: called with trials done and in all.

    Raises:
        ValueError: a site that the model lacks, a number out of range, or a folder that
            holds a campaign with another model, data or faults.

    Source of the stopping rule: sequential sampling by blocks; the interval is that of a
    fixed number, so it covers a little less often than it says.
    """
    several = (faults,) if isinstance(faults, Fault) else tuple(faults)
    checks.integer("campaign", "trials", trials)
    checks.integer("campaign", "block", block)
    checks.number("campaign", "critical", critical, "[0, 1]")
    checks.one_of("campaign", "method", method, tuple(METHODS))
    checks.one_of("campaign", "strata", strata, _STRATA)
    if width is not None:
        checks.number("campaign", "width", width, "(0, 1)")
    if not several:
        raise ValueError("campaign(faults=()): must name a fault at least")
    was_training = model.training
    model.eval()
    try:
        with restored(model, random_state=True):
            golden, found = _clean(model, data, several, strata, confidence, method)
            mark = {
                "model and data": digest_of(model, data),
                "faults": [str(fault) for fault in several],
                "seed": seed,
                "strata": strata,
                "block": block,
                "critical": critical,
            }
            made = KeptBlocks(folder, mark)
            make = Block(
                model, data, several, strata, golden, seed, block, critical, defence
            )
            numbers = range(-(-trials // block))
            calls = [partial(make, k) for k in numbers if k not in made]
            coming = spread(calls, workers, executor)
            for k in numbers:
                _await(k, made, coming)
                found.trials.extend(made[k])
                if progress is not None:
                    progress(min(len(found.trials), trials), trials)
                if width is not None and found.wrong.width <= width:
                    break
    finally:
        model.train(was_training)
    return found


def _await(number: int, made: KeptBlocks, coming: Iterator[tuple[int, Trials]]) -> None:
    """Keep blocks as they come, in any order, until this one is there."""
    while number not in made:
        made.keep(*next(coming))


def _clean(
    model: nn.Module,
    data: tuple[Tensor, Tensor],
    faults: tuple[Fault, ...],
    by: str | None,
    confidence: float,
    method: str,
) -> tuple[Tensor, Campaign]:
    """Predictions without a fault, and the campaign before its first trial."""
    inputs, classes = data
    sites = [site_of(model, fault, inputs) for fault in faults]
    with entered(sites):
        scores = scores_of(model, inputs)
    if scores.ndim != 2 or len(scores) != len(classes):
        raise ValueError(
            "campaign(data=...): the model must give scores (N, classes) for N "
            f"examples with N classes, got {tuple(scores.shape)} for {len(classes)}"
        )
    golden = scores.argmax(1)
    return golden, Campaign(
        Trials.empty(),
        [(name, share) for name, share, _ in strata_of(sites, by)],
        float((golden == classes).double().mean()),
        sum(site.reach.stored_bits for site in sites),
        sum(site.surviving for site in sites),
        _work(model, inputs, faults),
        confidence,
        method,
    )


def _work(model: nn.Module, inputs: Tensor, faults: Sequence[Fault]) -> float:
    """MACs of an inference over dense ones, by the storage of the weights."""
    with torch.no_grad(), metered(model) as meter:
        model(inputs[:1])
    dense = done = 0.0
    for (name, _), work in meter.by_layer.items():
        sparse = any(f.storage != "dense" and f.selects(name) for f in faults)
        dense += work.dense_macs
        done += work.dense_macs * (work.densities["weight"] if sparse else 1.0)
    return done / dense if dense else 1.0
