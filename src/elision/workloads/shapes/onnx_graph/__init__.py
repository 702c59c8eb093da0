"""Layer shapes of ONNX graphs; needs the ``onnx`` extra.

:mod:`.read` loads a file and gives its open dimensions their sizes, :mod:`.walk` follows
the graph node by node with what :mod:`.values` knows before anything runs, and
:mod:`.operators` says which products an operator computes.
"""

from elision.workloads.shapes.onnx_graph.read import open_dimensions as open_dimensions
from elision.workloads.shapes.onnx_graph.read import read_onnx as read_onnx
