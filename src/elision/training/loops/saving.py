"""A saver around every step of somebody else's loop."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from elision.memory import policy_for, saver

__all__ = ["Saving", "around_forward"]


class Saving:
    """The savers of a training's steps: a new one around each forward pass.

    The backward pass runs outside of the block, as a loop has it. Where no gradient is
    recorded (evaluation, ``no_grad``) there is nothing to save, and no saver is used.

    Rounding is seeded with ``seed`` plus the number of the forward pass, so that a
    hand-written loop ``with saver(model, policy, seed=n):`` gives the same bits, and so
    does a resumed training where the loop counts its steps.

    Args:
        policy: as for :class:`elision.memory.saver`.
        seed: of the first forward pass; default: torch's at that time.
        **options: further arguments of the saver.

    Attributes:
        saved: the last step's saver; None before the first step.
        passes: forward passes under a saver so far.

    Raises:
        ValueError: unknown policy.

    Example:
        >>> model, saving = nn.Linear(64, 64), Saving("exact")
        >>> for _ in range(2):
        ...     with saving.around(model):
        ...         loss = model(torch.randn(8, 64)).sum()
        ...     loss.backward()
        >>> saving.passes
        2
    """

    def __init__(
        self, policy: Any = "exact", *, seed: int | None = None, **options: Any
    ) -> None:
        policy_for(policy, nn.Identity())  # raises now rather than in the first step
        self.saved: saver | None = None
        self.passes = 0
        self._policy, self._seed, self._options = policy, seed, options
        self._place = (0, 0)
        self._undo: Callable[[], None] | None = None

    @contextmanager
    def around(
        self, model: nn.Module, batch: Any = None, step: tuple[int, int] | None = None
    ) -> Iterator[None]:
        """Use a saver for one forward pass, if gradients are recorded.

        Args:
            model: is called in the block.
            batch: tensors that the loop holds anyway, which are kept as they are.
            step: steps of the optimiser so far, and forward passes of each, if the loop
                counts them.
        """
        if not torch.is_grad_enabled() or torch.compiler.is_compiling():
            yield
            return
        if self._seed is None:
            self._seed = torch.initial_seed()
        number = self.passes if step is None else self._number(*step)
        used = saver(model, self._policy, seed=self._seed + number, **self._options)
        with used:
            used.see_batch(batch)
            self.saved = used
            self.passes += 1
            yield

    def _number(self, steps: int, passes: int) -> int:
        """Number of a forward pass by the steps before it."""
        last, within = self._place
        self._place = steps, within + 1 if last == steps and self.passes else 0
        return steps * passes + self._place[1]

    def report(self) -> str:
        """The last step's report (see :meth:`elision.memory.saver.report`)."""
        if self.saved is None:
            return (
                "no forward pass was saved: training has not begun, or the loop does not "
                "call what the saver was put around"
            )
        return f"{self.passes} forward passes; the last one:\n{self.saved.report()}"

    def wrap(
        self, owner: Any, name: str, around: Callable[..., Any]
    ) -> Callable[..., Any]:
        """Let an object's method run in a context until :meth:`detach`.

        Args:
            owner: of the method; only this object is changed.
            name: of the method.
            around: arguments of the method -> context.
        """
        self.detach()
        method, own = getattr(owner, name), vars(owner).get(name)

        @functools.wraps(method)
        def saving(*args: Any, **kwargs: Any) -> Any:
            with around(*args, **kwargs):
                return method(*args, **kwargs)

        def undo() -> None:
            if vars(owner).get(name) is not saving:
                return
            if own is None:
                delattr(owner, name)
            else:
                setattr(owner, name, own)

        setattr(owner, name, saving)
        self._undo = undo
        return method

    def detach(self) -> None:
        """Take the saver off the loop; its last report stays."""
        if self._undo is not None:
            self._undo()
            self._undo = None


def around_forward(
    model: nn.Module,
    policy: Any,
    *,
    inside: nn.Module | None = None,
    seed: int | None = None,
    **options: Any,
) -> Saving:
    """Put a saver around every forward pass of a module, as a loop calls it.

    What is computed outside of the module, a loss for instance, is kept as in plain
    autograd.

    Args:
        model: the module that the loop calls.
        policy: as for :class:`Saving`.
        inside: the module that it calls in turn, whose parts are reported; default:
            ``model``, or what DistributedDataParallel holds.
        seed: likewise.
        **options: likewise.
    """
    saving = Saving(policy, seed=seed, **options)
    if inside is None:
        wrapped = isinstance(model, DistributedDataParallel)
        inside = model.module if wrapped else model

    def around(*args: Any, **kwargs: Any) -> Any:
        return saving.around(inside, (args, kwargs))

    saving.wrap(model, "forward", around)
    return saving
