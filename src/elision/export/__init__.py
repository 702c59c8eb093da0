"""Export: a trained network as plain weights, sparse files or a graph of integers.

``finalize`` makes an elided model a plain one, and ``save_sparse`` and ``save_onnx`` write
it. On the way to a microcontroller, ``quantised`` folds batch normalisation and makes of a
plain model a :class:`QuantisedGraph`: int8 weights and activations, int32 sums, and no
floating point between its input and its output. ``arena`` plans a network's memory, and
``c_program`` writes such a graph as C with a static array at the planned offsets.
"""

from elision.export.c_arrays import CProgram, c_program
from elision.export.graph import QuantisedGraph, Value
from elision.export.planning.arena import Arena, arena
from elision.export.quantise import quantised
from elision.layers.finalize import (
    finalize,
    load_sparse,
    save_onnx,
    save_sparse,
    to_csr,
)

__all__ = [
    "Arena",
    "CProgram",
    "QuantisedGraph",
    "Value",
    "arena",
    "c_program",
    "finalize",
    "load_sparse",
    "quantised",
    "save_onnx",
    "save_sparse",
    "to_csr",
]
