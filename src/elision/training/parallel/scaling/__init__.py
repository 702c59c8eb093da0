"""Scaling: what a network's data-parallel training will gain from more ranks."""

from elision.training.parallel.scaling.collectives import COLLECTIVES as COLLECTIVES
from elision.training.parallel.scaling.compression import Compression as Compression
from elision.training.parallel.scaling.cores import Cores as Cores
from elision.training.parallel.scaling.link import Link as Link
from elision.training.parallel.scaling.model import ScalingModel as ScalingModel
from elision.training.parallel.scaling.model import scaling_model as scaling_model
from elision.training.parallel.scaling.step import StepCosts as StepCosts
