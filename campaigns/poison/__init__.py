"""Poison: damaged files of every kind that the library reads.

A kind is a good set of files, the ways in which it is damaged, and what reads it. A
damaged file may be refused in one line, or be another valid file (a topology with another
number). One that carries a checksum must be refused, or read as the good one is: anything
else would be wrong numbers accepted in silence.
"""

from functools import partial

from campaigns.campaign import Campaign
from campaigns.poison import (
    caches,
    commands,
    data,
    machines,
    names,
    networks,
    programs,
    recipes,
    runs,
)
from campaigns.poison.kind import row

__all__ = ["POISON"]

_KINDS = (
    *runs.KINDS,
    *recipes.KINDS,
    *commands.KINDS,
    *machines.KINDS,
    *programs.KINDS,
    *networks.KINDS,
    *data.KINDS,
    *caches.KINDS,
)

#: More than 10,000 trials over all kinds.
POISON = Campaign(
    "poison",
    "trials",
    220,
    {kind.name: partial(row, kind) for kind in _KINDS} | {"names": names.row},
)
