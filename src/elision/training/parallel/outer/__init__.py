"""Rare exchange: ranks that train alone for some steps, and the rules that join them."""

from elision.training.parallel.outer.optimizer import OuterOptimizer as OuterOptimizer
from elision.training.parallel.outer.rules import OUTER_RULES as OUTER_RULES
from elision.training.parallel.outer.rules import OuterRule as OuterRule
