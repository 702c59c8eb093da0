"""SCALE-Sim topology files: one layer a line, as values separated by commas.

A convolution file has the columns *Layer name, IFMAP Height, IFMAP Width, Filter Height,
Filter Width, Channels, Num Filter, Strides*, a matrix-product file *Layer, M, N, K*: M
rows, N columns and K values summed. :mod:`.columns` knows the columns by their titles,
:mod:`.lines` takes a file apart, :mod:`.read` and :mod:`.write` are what their names say.

What the format means:

- There is no padding: sizes are those of the padded image.
- Where a stride leaves a rest, SCALE-Sim counts the window that is begun as well, which is
  ``ceil((H - R + t)/t)`` outputs, one more than torch. A layer is read with the sizes that
  the file gives, and has torch's outputs; ``Systolic(counting="scalesim")`` counts it as
  SCALE-Sim does. One that is written has the rest trimmed off, so that all agree about it.
- An image of K columns and one channel under filters of 1 x K is a matrix product, which
  is how SCALE-Sim itself turns *M, N, K* into a convolution.
- A name that contains ``DP`` is of a depthwise layer: *Num Filter* filters for each
  channel by itself.
"""

from elision.workloads.shapes.scalesim.read import open_symbols as open_symbols
from elision.workloads.shapes.scalesim.read import read_topology as read_topology
from elision.workloads.shapes.scalesim.write import write_topology as write_topology
