"""Layers over sequences: recurrent ones, and attention."""

from collections.abc import Callable

from elision.products import MatmulGeometry
from elision.workloads.shapes.onnx_graph.operation import (
    Operation,
    Products,
    Sizes,
    misfit,
)

__all__ = ["attention", "recurrent"]


def recurrent(gates: int) -> Callable[[Operation], Products]:
    """The reader of a recurrent layer with ``gates`` gates."""

    def read(node: Operation) -> Products:
        entry, (directions, columns, hidden) = node.shape(0), node.shape(2)
        if len(entry) != 3 or entry[2] != node.shape(1)[2]:
            raise misfit(entry, node.shape(1))
        steps, batch = entry[1::-1] if node.attributes.get("layout") else entry[:2]
        inputs = MatmulGeometry(steps * batch, entry[2], columns)
        if columns != gates * hidden:
            raise ValueError(f"{gates} gates of {hidden} do not fit {columns} rows")
        if gates == 3 and not node.attributes.get("linear_before_reset"):
            widths = [2 * hidden, hidden]  # the new state waits for the reset gate
        else:
            widths = [columns]
        step = [MatmulGeometry(batch, hidden, width) for width in widths]
        names = [""] if directions == 1 else [".forward", ".reverse"]
        return [
            made
            for name in names
            for made in (
                (f"{name}.input", inputs),
                *[(f"{name}.recurrent", product) for product in steps * step],
            )
        ]

    return read


def attention(node: Operation) -> Products:
    """Scores and context; the heads that share keys and values are rows of one product."""
    queries, keys, values = (
        _heads(node.shape(position), node.attributes.get(f"{name}_num_heads", 1))
        for position, name in enumerate(("q", "kv", "kv"))
    )
    batch, heads, length, width = queries
    if width != keys[3] or heads % keys[1] or keys[:3] != values[:3]:
        raise misfit(queries, keys, values)
    past = node.shapes[4] if len(node.shapes) > 4 else None
    seen = keys[2] + (past[2] if past else 0)
    rows, batch = length * (heads // keys[1]), batch * keys[1]
    return [
        (".scores", MatmulGeometry(rows, width, seen, batch)),
        (".context", MatmulGeometry(rows, seen, values[3], batch)),
    ]


def _heads(shape: Sizes, heads: int) -> Sizes:
    """``(batch, heads, length, width)``, where the heads may lie side by side."""
    if len(shape) == 4:
        return shape
    batch, length, width = shape
    return batch, heads, length, width // heads
