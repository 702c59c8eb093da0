"""Layer shapes from files that people have: one file per source.

Every source gives ``[(name, geometry), ...]`` in execution order, which is what
``elision.workloads.shapes.layer_shapes`` gives for a model.
"""

from elision.shapes.onnx_graph import read_onnx as read_onnx
from elision.shapes.topology import read_topology as read_topology
from elision.shapes.topology import write_topology as write_topology
