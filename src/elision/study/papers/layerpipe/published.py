"""PipeDream's published profiles, and zero bubble's published table.

``profiles.csv`` holds the layers with a weight of the 14 networks whose profiles are
published with PipeDream (github.com/msr-fiddle/pipedream, ``profiler/*/profiles``; MIT
licence, copyright Microsoft Corporation), as
:func:`~elision.training.pipeline.profile.parse_profile` reads them: times in ms, sizes in
bytes.
"""

import csv
import functools
from pathlib import Path

from elision.training.pipeline.profile import ProfiledLayer

__all__ = ["ZERO_BUBBLE", "networks"]

_FILE = Path(__file__).with_name("profiles.csv")

#: Schedule -> (bubble, activations relative to 1F1B, transfers relative to 1F1B), as the
#: README of github.com/sail-sg/zero-bubble-pipeline-parallelism has them for equal times;
#: B0 is the bubble of 1F1B.
ZERO_BUBBLE: dict[str, tuple[str, float, float]] = {
    "1f1b": ("B0", 1.0, 1.0),
    "zb1p": ("B0 / 3", 1.0, 1.0),
    "zb2p": ("0", 2.0, 1.0),
    "zbv": ("0", 1.0, 2.0),
    "v-half": ("B0 / 2", 1 / 2, 2.0),
    "v-min": ("2 B0 / 3 + O(n)", 1 / 3, 2.0),
}


@functools.cache
def networks() -> dict[str, tuple[ProfiledLayer, ...]]:
    """Profiled layers of each network, by name."""
    found: dict[str, list[ProfiledLayer]] = {}
    with _FILE.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            name, layer, *numbers = row.values()
            place = len(found.setdefault(name, []))
            made = ProfiledLayer(f"{layer} {place}", *map(float, numbers))
            found[name].append(made)
    return {name: tuple(layers) for name, layers in found.items()}
