"""Training runs: loop, execution, ranks, checkpoints, stationarity, others' loops."""

from elision.training.checkpoint import EpochMetrics as EpochMetrics
from elision.training.execution import Execution as Execution
from elision.training.loggers import LogTo as LogTo
from elision.training.loggers import RunLog as RunLog
from elision.training.loop import Progress as Progress
from elision.training.loop import RunPlan as RunPlan
from elision.training.loop import TrainingDivergedError as TrainingDivergedError
from elision.training.loop import TrainResult as TrainResult
from elision.training.loop import train as train
from elision.training.ranks import Ranks as Ranks
from elision.training.ranks import joined as joined
