"""Data parallelism: how weight gradients travel, how often, and what scaling will be."""

from elision.training.parallel.outer import OuterOptimizer as OuterOptimizer
