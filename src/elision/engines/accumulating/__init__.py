"""Products whose sums are rounded as they grow: the accumulator is a number format.

:func:`compute` is what a layer calls. ``oracle`` is the slow, obviously right way, in
torch; ``kernel`` the native one, equal to it bit by bit; ``integers`` sums whole numbers.
Whatever the engine of the layer, the accumulator decides who computes.
"""

from elision.engines.accumulating.compute import compute, random_key
from elision.engines.accumulating.integers import ChainOverflowWarning
from elision.engines.accumulating.running import running_sums

__all__ = ["ChainOverflowWarning", "compute", "random_key", "running_sums"]
