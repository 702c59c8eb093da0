"""Export: a trained network as plain weights, sparse files or a graph of integers.

``finalize`` makes an elided model a plain one, and ``save_sparse`` and ``save_onnx`` write
it. On the way to a microcontroller, ``quantised`` folds batch normalisation and makes of a
plain model a :class:`QuantisedGraph`: int8 weights and activations, int32 sums, and no
floating point between its input and its output. ``arena`` plans a network's memory, and
``c_program`` writes such a graph as C with a static array at the planned offsets.
"""

from elision.export.agreement import Agreement, agreement
from elision.export.aware import aware_recipe, tuned
from elision.export.c_arrays import CProgram, c_program
from elision.export.graph import QuantisedGraph, Value
from elision.export.plain import plain
from elision.export.planning.arena import Arena, arena
from elision.export.planning.quantised import plan_quantised
from elision.export.quantise import quantised
from elision.export.stages import exported
from elision.export.targets import TARGETS
from elision.layers.finalize import (
    finalize,
    load_sparse,
    save_onnx,
    save_sparse,
    to_csr,
)

__all__ = [
    "TARGETS",
    "Agreement",
    "Arena",
    "CProgram",
    "QuantisedGraph",
    "Value",
    "agreement",
    "arena",
    "aware_recipe",
    "c_program",
    "exported",
    "finalize",
    "load_sparse",
    "plain",
    "plan_quantised",
    "quantised",
    "save_onnx",
    "save_sparse",
    "to_csr",
    "tuned",
]
