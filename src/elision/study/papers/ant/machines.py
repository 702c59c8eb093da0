"""ANT's baseline, and ratios that may have nothing to compare."""

import math

from elision.accelerators import Ant, Scnn

__all__ = ["baseline", "ratio"]


def baseline(ant: Ant) -> Scnn:
    """The SCNN-like machine with ANT's memories, multipliers, start-up and tiles.

    Example:
        >>> baseline(Ant(elements=16, matmul_tile=8)).grid
        (1, 16)
    """
    return Scnn(
        grid=(1, ant.elements),
        multipliers=ant.multipliers,
        startup_cycles=ant.startup_cycles,
        skip_empty_pairs=ant.skip_empty_pairs,
        matmul_tile=ant.matmul_tile,
        buffer_kib=ant.buffer_kib,
        accumulator_kib=ant.accumulator_kib,
        global_kib=ant.global_kib,
        energy=ant.energy,
    )


def ratio(numerator: float, denominator: float) -> float:
    """The quotient; NaN where there is nothing to compare.

    Example:
        >>> ratio(3, 2), ratio(3, 0)
        (1.5, nan)
    """
    return numerator / denominator if denominator else math.nan
