"""SCALE-Sim topology files: one layer a line, as values separated by commas.

A convolution file has the columns *Layer name, IFMAP Height, IFMAP Width, Filter Height,
Filter Width, Channels, Num Filter, Strides*, a matrix-product file *Layer, M, N, K*: M
rows, N columns and K values summed. :mod:`.columns` knows the columns by their titles,
:mod:`.lines` takes a file apart, :mod:`.read` and :mod:`.write` are what their names say.

What the format means is what SCALE-Sim computes of it:

- There is no padding: sizes are those of the padded image.
- Where a stride leaves a rest, SCALE-Sim counts the window that is begun, which is
  ``ceil((H - R + t)/t)`` outputs, one more than torch. A layer that is read has its image
  padded to the end of that window; one that is written has the rest trimmed off, so that
  torch, SCALE-Sim and this library agree about it.
- An image of K columns and one channel under filters of 1 x K is a matrix product, which
  is how SCALE-Sim itself turns *M, N, K* into a convolution.
- A name that contains ``DP`` is of a depthwise layer: *Num Filter* filters for each
  channel by itself.
"""

from elision.workloads.shapes.scalesim.read import open_symbols as open_symbols
from elision.workloads.shapes.scalesim.read import read_topology as read_topology
from elision.workloads.shapes.scalesim.write import write_topology as write_topology
