"""Export: a trained network as plain weights, sparse files or a graph of integers.

``finalize`` makes an elided model a plain one, and ``save_sparse`` and ``save_onnx`` write
it. On the way to a microcontroller, ``quantised`` folds batch normalisation and makes of a
plain model a :class:`QuantisedGraph`: int8 weights and activations, int32 sums, and no
floating point between its input and its output.
"""

from elision.export.graph import QuantisedGraph, Value
from elision.export.quantise import quantised
from elision.layers.finalize import (
    finalize,
    load_sparse,
    save_onnx,
    save_sparse,
    to_csr,
)

__all__ = [
    "QuantisedGraph",
    "Value",
    "finalize",
    "load_sparse",
    "quantised",
    "save_onnx",
    "save_sparse",
    "to_csr",
]
