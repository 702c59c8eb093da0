"""Striking a training while it runs, in anybody's loop."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import nn
from torch.optim import Optimizer

from elision.common.checks import integer
from elision.common.seeds import stream_of
from elision.faults.fault import Fault
from elision.faults.training.sites import TRAINING_SITES, Messages, Saved, TrainingSite
from elision.memory import Policy, policy_for
from elision.training.parallel import make_compressor

__all__ = ["Striking", "striking"]


class Striking:
    """The faults of one training; made by :func:`striking`.

    Attributes:
        step: number of the step that runs, from 0; −1 before the first.

    Example:
        >>> struck = Striking([Fault(site="gradient")], first=3, steps=2, seed=0)
        >>> struck.step, struck.last, struck.struck
        (-1, 4, 0)
    """

    def __init__(
        self, faults: Sequence[Fault], first: int, steps: int, seed: int
    ) -> None:
        self._first, self._last = first, first + steps - 1
        self.step = -1
        self.sites: list[TrainingSite] = []
        for k, fault in enumerate(faults):
            generator = torch.Generator().manual_seed(stream_of(f"fault {k}", seed))
            self.sites.append(TRAINING_SITES[fault.site](fault, generator))

    @property
    def last(self) -> int:
        """The last step that is struck."""
        return self._last

    @property
    def struck(self) -> int:
        """Faults so far; a permanent one counts once."""
        return sum(site.struck for site in self.sites)

    def policy(self, policy: Policy | str, model: nn.Module) -> Policy:
        """A policy for :func:`elision.memory.saver` whose packed bytes are struck.

        Args:
            policy: a policy or its spec.
            model: whose activations it keeps.
        """
        found = policy_for(policy, model)
        for site in self.sites:
            if isinstance(site, Saved):
                found = site.policy(found)
        return found

    def _before_pass(self, model: nn.Module) -> None:
        if not model.training:
            return
        self.step += 1
        active = self._first <= self.step <= self._last
        for site in self.sites:
            site.active = active
            site.before_pass()

    def _before_update(self) -> None:
        for site in self.sites:
            site.before_update()

    def _after_update(self) -> None:
        for site in self.sites:
            site.after_update()


@contextmanager
def striking(
    model: nn.Module,
    optimizer: Optimizer,
    faults: Fault | Sequence[Fault],
    *,
    first: int = 1,
    steps: int = 1,
    seed: int = 0,
    compressor: str | None = None,
) -> Iterator[Striking]:
    """Strike a training in some of its steps; the loop stays as it is.

    A step begins with a forward pass of the model in training mode and ends with a step
    of the optimiser.

    Args:
        model: that is trained, elided or not.
        optimizer: of its parameters.
        faults: what strikes each of the steps; of several, all do.
        first: the first step that is struck; step 0 can be struck by a rate alone where
            the site is an activation, a gradient, a message or saved bytes.
        steps: how many are.
        seed: of the draws.
        compressor: of site ``message``: a spec by which gradients travel; None: as they
            are.

    Raises:
        ValueError: a number out of range, or a site that the training lacks.

    Example:
        >>> model = nn.Linear(4, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> faults = Fault(site="weight-gradient", bits=(30,))
        >>> with striking(model, optimizer, faults, first=2) as struck:
        ...     for _ in range(4):
        ...         optimizer.zero_grad()
        ...         model(torch.ones(1, 4)).sum().backward()
        ...         optimizer.step()
        >>> struck.step, struck.struck
        (3, 1)
    """
    integer("striking", "first", first, ">= 0")
    integer("striking", "steps", steps)
    several = (faults,) if isinstance(faults, Fault) else tuple(faults)
    found = Striking(several, first, steps, seed)
    made = None if compressor is None else make_compressor(compressor)
    with ExitStack() as stack:
        for site in found.sites:
            if isinstance(site, Messages):
                site.compressor = made
            site.attach(model, optimizer, stack)
        begin = model.register_forward_pre_hook(lambda m, _: found._before_pass(m))
        before = optimizer.register_step_pre_hook(lambda *_: found._before_update())
        after = optimizer.register_step_post_hook(lambda *_: found._after_update())
        for handle in (begin, before, after):
            stack.callback(handle.remove)
        yield found
