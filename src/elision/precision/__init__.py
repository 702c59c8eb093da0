"""Precision of a trained network: what a number format of each operand does to it."""

from elision.precision.allocation import Allocation as Allocation
from elision.precision.allocation import allocate as allocate
from elision.precision.allocation import uniform_recipe as uniform_recipe
from elision.precision.arithmetic import Arithmetic as Arithmetic
from elision.precision.arithmetic import arithmetic as arithmetic
from elision.precision.arithmetic import rounding as rounding
from elision.precision.bounds import is_safe as is_safe
from elision.precision.bounds import product_bound as product_bound
from elision.precision.bounds import propagated as propagated
from elision.precision.bounds import root_sum_square as root_sum_square
from elision.precision.curvature import hessian_diagonal as hessian_diagonal
from elision.precision.curvature import hessian_product as hessian_product
from elision.precision.curvature import hessian_trace as hessian_trace
from elision.precision.folding import folded as folded
from elision.precision.noise import product_noise as product_noise
from elision.precision.perturbation import Perturbation as Perturbation
from elision.precision.perturbation import perturbation as perturbation
from elision.precision.pictures import TopClasses as TopClasses
from elision.precision.pictures import top_classes as top_classes
from elision.precision.regulariser import regularised as regularised
from elision.precision.sensitivity import Sensitivity as Sensitivity
from elision.precision.sensitivity import sensitivity as sensitivity
from elision.precision.sufficient import Sufficiency as Sufficiency
from elision.precision.sufficient import sufficient as sufficient
