"""Training runs: the loop, its checkpoints, whether it came to rest, other loops."""

from elision.training.checkpoint import EpochMetrics as EpochMetrics
from elision.training.loop import Progress as Progress
from elision.training.loop import RunPlan as RunPlan
from elision.training.loop import TrainingDivergedError as TrainingDivergedError
from elision.training.loop import TrainResult as TrainResult
from elision.training.loop import evaluate as evaluate
from elision.training.loop import train as train
