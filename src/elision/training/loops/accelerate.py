"""Accelerate: attach the controller, or put a saver, to what ``prepare`` returned.

Steps that gradient accumulation skips never reach the optimiser's hooks, so nothing has
to be counted here: this is :func:`elision.topology.attach` after a check that the order
of the calls was right.
"""

from collections.abc import Sequence
from typing import Any

from elision.topology import Topology, attach
from elision.training.loops.saving import Saving, around_forward

__all__ = ["attach_prepared", "saver"]


def attach_prepared(
    accelerator: Any,
    model: Any,
    optimizer: Any | Sequence[Any],
    *,
    steps: int | None = None,
) -> Topology:
    """Let the masks of an elided model move under Accelerate.

    ::

        elision.elide(model, elision.methods.RigL(sparsity=0.9))
        model, optimizer = accelerator.prepare(model, optimizer, steps=steps)
        topology = attach_prepared(accelerator, model, optimizer)

    Args:
        accelerator: the ``Accelerator``.
        model: as ``prepare`` returned it.
        optimizer: as ``prepare`` returned it, or a list of several.
        steps: length of the run, to which the method's schedule is fitted.

    Raises:
        ValueError: the optimiser did not come from ``prepare``, the model is not
            elided, or the optimiser does not own its weights.
    """
    given = optimizer if isinstance(optimizer, (list, tuple)) else [optimizer]
    if any(each not in accelerator._optimizers for each in given):
        raise ValueError(
            "the optimiser was not prepared: attach to what accelerator.prepare returned"
        )
    return attach(accelerator.unwrap_model(model), optimizer)


def saver(
    model: Any, policy: Any = "exact", *, seed: int | None = None, **options: Any
) -> Saving:
    """Keep what every forward pass saves in fewer bytes, under Accelerate.

    ::

        model, optimizer = accelerator.prepare(model, optimizer)
        saving = elision.training.loops.accelerate.saver(model, "bits(4)")
        ...
        print(saving.report())

    The loss is outside of it where the loop computes that itself; a loop that writes
    ``with elision.memory.saver(model, "bits(4)"):`` around both has it inside.

    Args:
        model: as ``prepare`` returned it.
        policy: as for :class:`elision.memory.saver`.
        seed: of the first forward pass's rounding; the n-th after it has ``seed + n``.
        **options: further arguments of the saver.

    Raises:
        ValueError: unknown policy.
    """
    return around_forward(model, policy, seed=seed, **options)
