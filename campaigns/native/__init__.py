"""Calls of every native kernel, each beside what torch makes of the same operands."""

from campaigns.native.call import Call, Case
from campaigns.native.functions import FUNCTIONS
from campaigns.native.products import PRODUCTS
from campaigns.native.rounding import ROUNDING
from campaigns.native.values import KINDS

__all__ = ["CASES", "KINDS", "Call", "Case"]

#: Every kernel, by name.
CASES: dict[str, Case] = {
    case.name: case for case in (*PRODUCTS, *FUNCTIONS, *ROUNDING)
}
