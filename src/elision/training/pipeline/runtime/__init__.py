"""Plans, run on real processes: torch's runtime for flushes, our own for delays."""

from elision.training.pipeline.runtime.lost import (
    LostProcessorError as LostProcessorError,
)
from elision.training.pipeline.runtime.run import PipelineRun as PipelineRun
from elision.training.pipeline.runtime.run import run as run
from elision.training.pipeline.runtime.run import stages_in as stages_in
