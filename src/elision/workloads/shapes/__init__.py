"""Layer shapes of models, networks and the files that people have: one file per source.

Every source gives ``[(name, geometry), ...]`` in execution order.
"""

from elision.workloads.shapes.of_model import layer_shapes as layer_shapes
from elision.workloads.shapes.onnx_graph import open_dimensions as open_dimensions
from elision.workloads.shapes.onnx_graph import read_onnx as read_onnx
from elision.workloads.shapes.random import model_layers as model_layers
from elision.workloads.shapes.random import random_products as random_products
from elision.workloads.shapes.scalesim import open_symbols as open_symbols
from elision.workloads.shapes.scalesim import read_topology as read_topology
from elision.workloads.shapes.scalesim import write_topology as write_topology
