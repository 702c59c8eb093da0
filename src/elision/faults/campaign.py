"""A campaign: many seeded trials of a fault in a network that infers."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from elision.common import checks
from elision.common.files import load_tensors, save_tensors
from elision.common.restoring import restored
from elision.common.seeds import seed_at, stream_of
from elision.common.workers import spread
from elision.faults.draw import Reach
from elision.faults.fault import Fault
from elision.faults.intervals import METHODS, Interval
from elision.faults.outcome import (
    OUTCOMES,
    Normalised,
    Trials,
    mean_changed,
    rate_of,
    rows,
)
from elision.faults.sites import Site, site_of
from elision.layers.meter import metered

__all__ = ["Alarm", "Campaign", "Defence", "campaign"]

#: Images of one forward pass where every image has faults of its own (own choice).
_BATCH = 256


class Alarm(Protocol):
    """What a defence knows after a pass."""

    @property
    def raised(self) -> bool:
        """Whether it found a fault since it was last asked."""
        ...


#: Watches a model during a pass.
Defence = Callable[[nn.Module], AbstractContextManager[Alarm]]


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
        >>> torch.manual_seed(0)  # doctest: +ELLIPSIS
        <torch...>
        >>> model, x = nn.Linear(4, 3), torch.randn(50, 4)
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
        return rows(self.trials, [name for name, _ in self.strata])

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
        trials: at most so many; whole blocks.
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
    checks.one_of("campaign", "strata", strata, ("bit", "layer", "layer and bit", None))
    if width is not None:
        checks.number("campaign", "width", width, "(0, 1)")
    if not several:
        raise ValueError("campaign(faults=()): must name a fault at least")
    was_training = model.training
    model.eval()
    try:
        with restored(model, random_state=True):
            golden = _Golden(model, data, several)
            cut = _strata(golden.sites, strata)
            make = partial(
                _block,
                model,
                data,
                several,
                (cut is not None and strata) or None,
                golden.scores.argmax(1),
                seed,
                block,
                critical,
                defence,
            )
            number = -(-trials // block)
            made = _kept(folder, golden.mark(seed, strata, block, critical))
            found = Trials.empty()
            result = Campaign(
                found,
                [("all", 1.0)] if cut is None else [(n, w) for n, w, _ in cut],
                golden.accuracy,
                golden.stored_bits,
                golden.surviving,
                golden.work,
                confidence,
                method,
            )
            todo = [k for k in range(number) if not made.has(k)]
            running = _in_order(
                spread([partial(_numbered, make, k) for k in todo], workers, executor)
                if workers > 1 or executor is not None
                else (_numbered(make, k) for k in todo),
                todo,
            )
            for k in range(number):
                if not made.has(k):
                    made.keep(k, next(running))
                found.extend(made.read(k))
                if progress is not None:
                    progress(min(len(found), trials), trials)
                if width is not None and result.wrong.width <= width:
                    break
    finally:
        model.train(was_training)
    return result


def _numbered(make: Callable[[int], Trials], number: int) -> tuple[int, Trials]:
    return number, make(number)


def _in_order(
    done: Iterator[tuple[int, Trials]], order: Sequence[int]
) -> Iterator[Trials]:
    """Results in their order, whatever the order in which they are ready."""
    early: dict[int, Trials] = {}
    for number in order:
        while number not in early:
            k, result = next(done)
            early[k] = result
        yield early.pop(number)


class _Golden:
    """The run without a fault, and what the faults reach."""

    def __init__(
        self, model: nn.Module, data: tuple[Tensor, Tensor], faults: Sequence[Fault]
    ) -> None:
        inputs, targets = data
        self._model, self._data, self._faults = model, data, faults
        self.sites = [site_of(model, fault, inputs) for fault in faults]
        with _entered(self.sites):
            self.scores = _scores(model, inputs)
        if self.scores.ndim != 2 or len(self.scores) != len(targets):
            raise ValueError(
                "campaign(data=...): the model must give scores (N, classes) for N "
                f"examples with N classes, got {tuple(self.scores.shape)} for "
                f"{len(targets)}"
            )
        self.accuracy = float((self.scores.argmax(1) == targets).double().mean())
        self.stored_bits = sum(site.reach.stored_bits for site in self.sites)
        self.surviving = sum(site.surviving for site in self.sites)
        self.work = _work(model, inputs, faults)

    def mark(
        self, seed: int, strata: str | None, block: int, critical: float
    ) -> dict[str, Any]:
        """What a campaign is of; another cannot go on with its blocks."""
        digest = hashlib.sha256()
        for name, value in sorted(self._model.state_dict().items()):
            digest.update(name.encode())
            if isinstance(value, Tensor):
                digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())  # fmt: skip
        for tensor in self._data:
            digest.update(
                tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
            )
        return {
            "model and data": digest.hexdigest(),
            "faults": [str(fault) for fault in self._faults],
            "seed": seed,
            "strata": strata,
            "block": block,
            "critical": critical,
        }


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


@contextmanager
def _entered(sites: Sequence[Site]) -> Iterator[None]:
    with ExitStack() as stack:
        for site in sites:
            stack.enter_context(site.entered())
        yield


@torch.no_grad()
def _scores(model: nn.Module, inputs: Tensor) -> Tensor:
    return torch.cat([model(part) for part in inputs.split(_BATCH)])


def _strata(
    sites: Sequence[Site], by: str | None
) -> list[tuple[str, float, Reach]] | None:
    """Name, share and reach of each stratum; None where all bits are one."""
    if by is None or len(sites) != 1:
        return None
    (site,) = sites
    if site.fault.rate is not None or site.fault.number != 1:
        return None
    return [
        (name, reach.size / site.reach.size, reach)
        for name, reach in site.reach.strata(by)
    ]


def _block(
    model: nn.Module,
    data: tuple[Tensor, Tensor],
    faults: Sequence[Fault],
    by: str | None,
    golden: Tensor,
    seed: int,
    block: int,
    critical: float,
    defence: Defence | None,
    number: int,
) -> Trials:
    """The trials of one block."""
    inputs, targets = data
    model.eval()
    sites = [site_of(model, fault, inputs) for fault in faults]
    cut = _strata(sites, by)
    generator = torch.Generator().manual_seed(
        seed_at(stream_of("campaign", seed), number)
    )
    first = number * block

    def draw(trial: int) -> list[list]:
        if cut is not None:
            reach = cut[trial % len(cut)][2]
            return [reach.drawn(generator, 1)]
        return [s.reach.drawn(generator, s.reach.number(generator)) for s in sites]

    def stratum(trial: int) -> int:
        return 0 if cut is None else trial % len(cut)

    found = Trials.empty()
    single = all(s.by_sample or s.fault.lifetime == "transient" for s in sites)
    together = _BATCH if all(s.by_sample for s in sites) else 1
    with _entered(sites), restored(model, random_state=True), torch.no_grad():
        for start in range(first, first + block, together if single else 1):
            trials = range(
                start, min(start + (together if single else 1), first + block)
            )
            if single:
                at = torch.randint(len(inputs), (len(trials),), generator=generator)
            else:
                at = torch.arange(len(inputs))
            draws = [draw(trial) for trial in trials]
            scores, alarm = _struck(model, inputs[at], sites, draws, defence)
            before, classes = golden[at], targets[at]
            for k, trial in enumerate(trials):
                rows = slice(k, k + 1) if single else slice(None)
                found.add(
                    stratum(trial),
                    *_outcome(
                        scores[rows], before[rows], classes[rows], critical, alarm
                    ),
                )
    return found


def _struck(
    model: nn.Module,
    inputs: Tensor,
    sites: Sequence[Site],
    draws: list[list[list]],
    defence: Defence | None,
) -> tuple[Tensor, bool]:
    """Scores under faults, and whether a defence raised an alarm.

    Args:
        model, inputs, sites, defence: see :func:`campaign`.
        draws: of each trial, of each site.
    """
    with ExitStack() as stack:
        for k, site in enumerate(sites):
            own = [draw[k] for draw in draws]
            if site.by_sample and len(own) < len(inputs):  # all examples of one trial
                own = own * len(inputs)
            stack.enter_context(site.struck(own))
        alarm = None if defence is None else stack.enter_context(defence(model))
        scores = (
            torch.cat([model(inputs)])
            if len(inputs) <= _BATCH or any(s.by_sample for s in sites)
            else _scores(model, inputs)
        )
        return scores, alarm is not None and alarm.raised


def _outcome(
    scores: Tensor, golden: Tensor, targets: Tensor, critical: float, alarm: bool
) -> tuple[int, float, float]:
    """Outcome, share of changed predictions and accuracy lost of one trial."""
    after = scores.argmax(1)
    changed = float((after != golden).double().mean())
    right = (golden == targets).double().mean() - (after == targets).double().mean()
    drop = float(right)
    if alarm or not bool(scores.isfinite().all()):
        kind = "detected"
    elif drop > critical:
        kind = "critical"
    else:
        kind = "silent" if changed else "masked"
    return OUTCOMES.index(kind), changed, drop


class _kept:
    """Blocks that were made, in memory or in files of a folder.

    Raises:
        ValueError: the folder's blocks are of another campaign.
    """

    def __init__(self, folder: Path | None, mark: dict[str, Any]) -> None:
        self._folder, self._mark = folder, json.loads(json.dumps(mark))
        self._blocks: dict[int, Trials] = {}
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(folder.glob("block-*.safetensors")):
            tensors, facts = load_tensors(path, "block of a campaign")
            known = facts.get("campaign") if isinstance(facts, dict) else None
            if known != self._mark:
                other = [k for k in mark if (known or {}).get(k) != self._mark[k]]
                raise ValueError(
                    f"{path}: a campaign with another {', '.join(other)}; give another "
                    "folder"
                )
            columns = {f.name: tensors[f.name].tolist() for f in fields(Trials)}
            self._blocks[int(facts["number"])] = Trials(**columns)

    def has(self, number: int) -> bool:
        return number in self._blocks

    def read(self, number: int) -> Trials:
        return self._blocks[number]

    def keep(self, number: int, trials: Trials) -> None:
        self._blocks[number] = trials
        if self._folder is None:
            return
        columns = {n: torch.from_numpy(v) for n, v in trials.columns().items()}
        path = self._folder / f"block-{number:06d}.safetensors"
        save_tensors(path, columns, {"campaign": self._mark, "number": number})
