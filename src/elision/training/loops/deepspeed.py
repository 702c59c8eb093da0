"""DeepSpeed: attach the controller, or put a saver, to what ``initialize`` returned.

Recipes that move no mask need nothing: a model is elided before ``initialize``. DeepSpeed
reduces gradients itself, so compressed gradients need DistributedDataParallel.
"""

from typing import Any

from elision.topology import Topology, attach
from elision.training.loops.saving import Saving, around_forward

__all__ = ["attach_engine", "saver"]


def attach_engine(engine: Any, *, steps: int | None = None) -> Topology:
    """Let the masks of an elided model move under DeepSpeed without ZeRO.

    ::

        elision.elide(model, elision.methods.RigL(sparsity=0.9))
        engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config)
        topology = attach_engine(engine)

    Args:
        engine: a ``DeepSpeedEngine`` at ZeRO stage 0.
        steps: length of the run, to which the method's schedule is fitted.

    Raises:
        ValueError: a stage of ZeRO whose optimiser steps flat parts of the weights, or
            as for :func:`elision.topology.attach`.
    """
    stage = engine.zero_optimization_stage()
    if stage:
        raise ValueError(
            f"attach_engine: at ZeRO stage {stage} DeepSpeed's optimiser steps flat parts "
            "of the weights, of which it owns none that a mask is of; give stage 0, or "
            "DistributedDataParallel with torch's ZeroRedundancyOptimizer, which shards "
            "the optimiser likewise"
        )
    return attach(engine.module, engine.optimizer, steps=steps)


def saver(
    engine: Any, policy: Any = "exact", *, seed: int | None = None, **options: Any
) -> Saving:
    """Keep what every forward pass saves in fewer bytes, under DeepSpeed.

    Args:
        engine: a ``DeepSpeedEngine``; what it is called with is the batch.
        policy: as for :class:`elision.memory.saver`.
        seed: of the first forward pass's rounding; the n-th after it has ``seed + n``.
        **options: further arguments of the saver.

    Raises:
        ValueError: unknown policy.
    """
    return around_forward(engine, policy, inside=engine.module, seed=seed, **options)
