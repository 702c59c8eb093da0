"""The command that runs a study, for those who read its report."""

import shlex
from dataclasses import fields
from typing import Any

from elision.study.config import StudyConfig

__all__ = ["command_line"]

#: Flags by the setting's name, where they are not the same.
_FLAGS = {"recipes": "recipe", "accelerators": "accelerator", "probes": "probe"}
#: Settings that are told otherwise, or not on the command line.
_TOLD = ("processes", "workload")


def command_line(config: StudyConfig) -> str:
    """A command that runs a study, its settings where they are not the defaults.

    A workload of the user's own, and all of a run whose batches are shared, is in the
    run folder's ``workload.toml``.

    Args:
        config: of the study.

    Example:
        >>> command_line(StudyConfig(recipes=("dense", "swat(0.9)"), epochs=2))
        "elision study --recipe dense 'swat(0.9)' --epochs 2"
    """
    if config.processes > 1:
        shared = f"torchrun --standalone --nproc_per_node={config.processes}"
        return f"{shared} -m elision train --config workload.toml"
    if not isinstance(config.workload, str):
        return "elision study --config workload.toml"
    defaults = {field.name: field.default for field in fields(config)}
    words = ["elision", "study"]
    if not config.accelerators:
        words += ["--accelerator", "none"]
        defaults["accelerators"] = ()
    if config.workload != defaults["workload"]:
        words += ["--workload", config.workload]
    for name, default in defaults.items():
        value = getattr(config, name)
        if name not in _TOLD and value != default:
            words += [f"--{_FLAGS.get(name, name)}", *_words(value)]
    return shlex.join(words)


def _words(value: Any) -> list[str]:
    return [str(word) for word in (value if isinstance(value, tuple) else (value,))]
