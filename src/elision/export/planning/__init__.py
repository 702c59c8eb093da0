"""Memory planning: which tensors of an inference are live when, and where they lie."""

from elision.export.planning.graph import (
    Buffer,
    Graph,
    Operation,
    buffers,
    live_bytes,
    peak_bytes,
)
from elision.export.planning.offsets import (
    Placement,
    greedy_by_lifetime,
    greedy_by_size,
    least_arena,
    place,
)
from elision.export.planning.order import Order, best_order

__all__ = [
    "Buffer",
    "Graph",
    "Operation",
    "Order",
    "Placement",
    "best_order",
    "buffers",
    "greedy_by_lifetime",
    "greedy_by_size",
    "least_arena",
    "live_bytes",
    "peak_bytes",
    "place",
]
