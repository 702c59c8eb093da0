"""Models, data, tasks, and the presets that join them into something to train."""

from elision.workloads.data import DATASETS as DATASETS
from elision.workloads.data import Augmentation as Augmentation
from elision.workloads.data import BatchEfficiency as BatchEfficiency
from elision.workloads.data import Dataset as Dataset
from elision.workloads.data import GlobalBuckets as GlobalBuckets
from elision.workloads.data import LocalBuckets as LocalBuckets
from elision.workloads.data import RandomBatches as RandomBatches
from elision.workloads.data import batch_efficiency as batch_efficiency
from elision.workloads.data import batches as batches
from elision.workloads.data import load_dataset as load_dataset
from elision.workloads.decoding import beam_search as beam_search
from elision.workloads.examples import Examples as Examples
from elision.workloads.models import MODELS as MODELS
from elision.workloads.models import TRANSLATORS as TRANSLATORS
from elision.workloads.models import make_model as make_model
from elision.workloads.presets import DEFAULT_WORKLOAD as DEFAULT_WORKLOAD
from elision.workloads.presets import WORKLOADS as WORKLOADS
from elision.workloads.presets import find_workload as find_workload
from elision.workloads.presets import read_workload as read_workload
from elision.workloads.shapes.of_model import layer_shapes as layer_shapes
from elision.workloads.tasks import TASKS as TASKS
from elision.workloads.tasks import Batch as Batch
from elision.workloads.tasks import Metric as Metric
from elision.workloads.tasks import Task as Task
from elision.workloads.text import Translations as Translations
from elision.workloads.workload import Workload as Workload
