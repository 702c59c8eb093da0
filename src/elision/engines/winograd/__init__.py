"""Winograd's convolution: exact transforms, all three products, and what they cost.

``transforms(m, r)`` makes the matrices of F(m, r) of exact rationals and proves them,
``compute`` gives each of the three products of a convolution by them, and ``cost`` counts
multiplications, operations of the transforms and bytes. A convolution with strides or
dilation is split into parts without (``parts_of``). ``native_product`` is the fast path:
forward products and input gradients of 3x3 layers by a C++ kernel.
"""

from elision.engines.winograd.cook_toom import (
    Proof,
    Transforms,
    points_of,
    transforms,
)
from elision.engines.winograd.cost import Operations, WinogradCost, cost
from elision.engines.winograd.native import native_product
from elision.engines.winograd.parts import Part, parts_of
from elision.engines.winograd.products import compute

__all__ = [
    "Operations",
    "Part",
    "Proof",
    "Transforms",
    "WinogradCost",
    "compute",
    "cost",
    "native_product",
    "parts_of",
    "points_of",
    "transforms",
]
