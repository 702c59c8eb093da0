"""A study: train, trace, simulate, compare, as plain functions on plain dataclasses."""

from elision.study.compare import compared
from elision.study.config import (
    DEFAULT_ACCELERATORS,
    DEFAULT_RECIPES,
    StudyConfig,
    file_name,
)
from elision.study.outcome import RecipeOutcome, StudyOutcome
from elision.study.run import (
    added_to,
    default_folder,
    record_again,
    study,
    study_share,
    trained_network,
)

__all__ = [
    "DEFAULT_ACCELERATORS",
    "DEFAULT_RECIPES",
    "RecipeOutcome",
    "StudyConfig",
    "StudyOutcome",
    "added_to",
    "compared",
    "default_folder",
    "file_name",
    "record_again",
    "study",
    "study_share",
    "trained_network",
]
