"""Loggers: what a training tells TensorBoard, Weights & Biases and MLflow."""

from elision.training.loggers.base import Logger as Logger
from elision.training.loggers.base import Told as Told
from elision.training.loggers.log import LOGGERS as LOGGERS
from elision.training.loggers.log import LogTo as LogTo
from elision.training.loggers.log import RunLog as RunLog
from elision.training.loggers.log import check_loggers as check_loggers
