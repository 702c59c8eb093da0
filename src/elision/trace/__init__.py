"""Recorded products: the container, and a generator of synthetic ones."""

from elision.trace.container import PackedTensor as PackedTensor
from elision.trace.container import Trace as Trace
from elision.trace.synthetic import sparse_array as sparse_array
from elision.trace.synthetic import synthetic_products as synthetic_products
