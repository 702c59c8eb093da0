"""Precision of a trained network: what a number format of each operand does to it."""

from elision.precision.bounds import is_safe as is_safe
from elision.precision.bounds import product_bound as product_bound
from elision.precision.bounds import propagated as propagated
from elision.precision.bounds import root_sum_square as root_sum_square
from elision.precision.ternary_file import load_ternary as load_ternary
from elision.precision.ternary_file import save_ternary as save_ternary
from elision.precision.ternary_network import TernaryNetwork as TernaryNetwork
from elision.precision.ternary_residual import ternary_residual as ternary_residual
