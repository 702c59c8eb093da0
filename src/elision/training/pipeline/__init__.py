"""Pipelines: which processor computes which product of which micro-batch when."""

from elision.training.pipeline.costs import LayerCost as LayerCost
from elision.training.pipeline.plan import Plan as Plan
from elision.training.pipeline.plan import plan as plan
from elision.training.pipeline.schedules import SCHEDULES as SCHEDULES
