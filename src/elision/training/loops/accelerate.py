"""Accelerate: attach the controller to what ``prepare`` returned.

Steps that gradient accumulation skips never reach the optimiser's hooks, so nothing has
to be counted here: this is :func:`elision.topology.attach` after a check that the order
of the calls was right.
"""

from typing import Any

from elision.topology import Topology, attach

__all__ = ["attach_prepared"]


def attach_prepared(accelerator: Any, model: Any, optimizer: Any) -> Topology:
    """Let the masks of an elided model move under Accelerate.

    ::

        elision.elide(model, elision.methods.RigL(sparsity=0.9))
        model, optimizer = accelerator.prepare(model, optimizer)
        topology = attach_prepared(accelerator, model, optimizer)

    Args:
        accelerator: the ``Accelerator``.
        model: as ``prepare`` returned it.
        optimizer: as ``prepare`` returned it.

    Raises:
        ValueError: the optimiser did not come from ``prepare``, the model is not
            elided, or the optimiser does not own its weights.
    """
    if optimizer not in accelerator._optimizers:
        raise ValueError(
            "the optimiser was not prepared: attach to what accelerator.prepare returned"
        )
    return attach(accelerator.unwrap_model(model), optimizer)
