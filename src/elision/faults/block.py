"""A block of trials: drawn from its number alone, so that any worker may make it."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from elision.common.restoring import restored
from elision.common.seeds import seed_at, stream_of
from elision.faults.draw import Hits, Reach
from elision.faults.fault import Fault
from elision.faults.outcome import OUTCOMES, Trials
from elision.faults.sites import Site, site_of

__all__ = ["Alarm", "Block", "Defence", "Stratum", "entered", "scores_of", "strata_of"]

#: Examples of one forward pass (own choice).
_BATCH = 256


class Alarm(Protocol):
    """What a defence knows after a pass."""

    @property
    def raised(self) -> bool:
        """Whether it found a fault since it was last asked."""
        ...


#: Watches a model during a pass.
Defence = Callable[[nn.Module], AbstractContextManager[Alarm]]


class Stratum(NamedTuple):
    """A part of the bits that a fault reaches.

    Attributes:
        name: of the bit, the layer or both.
        share: of all bits.
        reach: the bits; None where several sites are drawn from, each by itself.
    """

    name: str
    share: float
    reach: Reach | None


def strata_of(sites: Sequence[Site], by: str | None) -> list[Stratum]:
    """The strata of a campaign: one, where faults are drawn from all bits."""
    one = len(sites) == 1 and sites[0].fault.rate is None
    if by is None or not one or sites[0].fault.number != 1:
        return [Stratum("all", 1.0, None)]
    whole = sites[0].reach
    return [
        Stratum(name, reach.size / whole.size, reach)
        for name, reach in whole.strata(by)
    ]


@contextmanager
def entered(sites: Sequence[Site]) -> Iterator[None]:
    """All sites, one in another."""
    with ExitStack() as stack:
        for site in sites:
            stack.enter_context(site.entered())
        yield


@torch.no_grad()
def scores_of(model: nn.Module, inputs: Tensor) -> Tensor:
    """Scores of all examples, batch by batch."""
    return torch.cat([model(part) for part in inputs.split(_BATCH)])


@dataclass(frozen=True)
class Block:
    """Makes the trials of a block from its number.

    Attributes:
        model: that is struck.
        data: examples and classes.
        faults: what strikes in each trial.
        by: of the strata; None: drawn from all bits.
        golden: predictions without a fault.
        seed: of the draws.
        size: trials of a block.
        critical: accuracy lost beyond which a trial is critical.
        defence: watches each pass.
    """

    model: nn.Module
    data: tuple[Tensor, Tensor]
    faults: tuple[Fault, ...]
    by: str | None
    golden: Tensor
    seed: int
    size: int
    critical: float
    defence: Defence | None

    def __call__(self, number: int) -> tuple[int, Trials]:
        """The number and its trials."""
        # Torch hands processes the memory of tensors, not copies: strike one's own.
        model = copy.deepcopy(self.model).eval()
        sites = [site_of(model, fault, self.data[0]) for fault in self.faults]
        strata = strata_of(sites, self.by)
        seed = seed_at(stream_of("campaign", self.seed), number)
        generator = torch.Generator().manual_seed(seed)
        own = all(s.by_sample or s.fault.lifetime == "transient" for s in sites)
        # Trials that share no value are made in one pass; a defence tells of a pass.
        alone = not all(site.by_sample for site in sites) or self.defence is not None
        together = 1 if alone else _BATCH
        trials = range(number * self.size, (number + 1) * self.size)
        found = Trials.empty()
        with entered(sites), restored(model, random_state=True), torch.no_grad():
            for start in range(0, len(trials), together):
                part = trials[start : start + together]
                at = torch.arange(len(self.data[0]))
                if own:
                    at = torch.randint(len(at), (len(part),), generator=generator)
                draws = [
                    self._drawn(sites, strata[trial % len(strata)], generator)
                    for trial in part
                ]
                scores, alarm = self._struck(model, sites, draws, at)
                for k, trial in enumerate(part):
                    row = slice(k, k + 1) if own else slice(None)
                    outcome = self._outcome(scores[row], at[row], alarm)
                    found.add(trial % len(strata), *outcome)
        return number, found

    def _drawn(
        self, sites: Sequence[Site], stratum: Stratum, generator: torch.Generator
    ) -> list[list[Hits]]:
        """The faults of one trial, of each site."""
        if stratum.reach is not None:
            return [stratum.reach.drawn(generator, 1)]
        return [
            site.reach.drawn(generator, site.reach.number(generator)) for site in sites
        ]

    def _struck(
        self,
        model: nn.Module,
        sites: Sequence[Site],
        draws: list[list[list[Hits]]],
        at: Tensor,
    ) -> tuple[Tensor, bool]:
        """Scores under faults, and whether a defence raised an alarm."""
        inputs = self.data[0][at]
        with ExitStack() as stack:
            for k, site in enumerate(sites):
                own = [draw[k] for draw in draws]
                if site.by_sample and len(own) < len(inputs):
                    own = own * len(inputs)  # all examples of one trial
                stack.enter_context(site.struck(own))
            watched = (
                None
                if self.defence is None
                else stack.enter_context(self.defence(model))
            )
            if any(site.by_sample for site in sites):
                scores = model(inputs)
            else:
                scores = scores_of(model, inputs)
            return scores, watched is not None and watched.raised

    def _outcome(
        self, scores: Tensor, at: Tensor, alarm: bool
    ) -> tuple[int, float, float]:
        """Outcome, share of changed predictions and accuracy lost of one trial."""
        golden, classes, after = self.golden[at], self.data[1][at], scores.argmax(1)
        changed = float((after != golden).double().mean())
        before = (golden == classes).double().mean()
        drop = float(before - (after == classes).double().mean())
        if alarm or not bool(scores.isfinite().all()):
            kind = "detected"
        elif drop > self.critical:
            kind = "critical"
        else:
            kind = "silent" if changed else "masked"
        return OUTCOMES.index(kind), changed, drop
