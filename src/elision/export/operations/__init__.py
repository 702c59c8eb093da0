"""What a quantised graph is made of: one integer operation a file."""

from elision.export.operations.add import Add
from elision.export.operations.average import Average
from elision.export.operations.base import Operation, as_codes, code_of
from elision.export.operations.concatenate import Concatenate
from elision.export.operations.convolution import Convolution
from elision.export.operations.linear import Linear
from elision.export.operations.lookup import Lookup
from elision.export.operations.maximum import MaxPool
from elision.export.operations.multiply import Multiply
from elision.export.operations.pad import Pad
from elision.export.operations.reshape import Reshape
from elision.export.operations.subsample import Slice

__all__ = [
    "Add",
    "Average",
    "Concatenate",
    "Convolution",
    "Linear",
    "Lookup",
    "MaxPool",
    "Multiply",
    "Operation",
    "Pad",
    "Reshape",
    "Slice",
    "as_codes",
    "code_of",
]
