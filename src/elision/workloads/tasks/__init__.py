"""Tasks by name: batches, loss and test metric of what a network is trained to do."""

from elision.workloads.tasks.base import Batch, Metric, Task
from elision.workloads.tasks.classification import Classification
from elision.workloads.tasks.language_modelling import LanguageModelling
from elision.workloads.tasks.translation import Translation

__all__ = [
    "TASKS",
    "Batch",
    "Classification",
    "LanguageModelling",
    "Metric",
    "Task",
    "Translation",
]

#: Tasks by the names that a workload gives.
TASKS: dict[str, Task] = {
    "classification": Classification(),
    "translation": Translation(),
    "language-modelling": LanguageModelling(),
}
