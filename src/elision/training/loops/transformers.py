"""Hugging Face Trainer: a callback that lets the masks of an elided model move."""

import importlib
from typing import Any

from elision.topology import Topology, attach

__all__ = ["callback"]


def callback(*, fit: bool = False) -> Any:
    """A ``TrainerCallback`` for a model that was elided before the Trainer got it.

    ::

        elision.elide(model, elision.methods.RigL(sparsity=0.9))
        Trainer(model=model, callbacks=[elision.training.loops.transformers.callback()])

    The controller is attached to the Trainer's optimiser when training begins and
    detached when it ends; it is the callback's ``topology`` from then on. The masks are
    in the model's state, so a checkpoint holds them.

    Args:
        fit: whether the method's schedule is fitted to the steps of the run.

    Raises:
        ModuleNotFoundError: transformers is not installed.
    """
    try:
        base = importlib.import_module("transformers").TrainerCallback
    except ModuleNotFoundError as error:
        if error.name != "transformers":
            raise
        raise ModuleNotFoundError(
            "the Trainer callback needs transformers, which is not installed: "
            "pip install 'elision[transformers]'",
            name="transformers",
        ) from error

    class ElisionCallback(base):
        """Attaches the controller to the Trainer's optimiser."""

        def __init__(self) -> None:
            self.topology: Topology | None = None

        def on_train_begin(
            self, args: Any, state: Any, control: Any, **about: Any
        ) -> None:
            """Attach, once the optimiser is there."""
            del args, control
            steps = state.max_steps if fit else None
            self.topology = attach(about["model"], about["optimizer"], steps=steps)

        def on_train_end(
            self, args: Any, state: Any, control: Any, **about: Any
        ) -> None:
            """Take the hooks off the optimiser."""
            del args, state, control, about
            if self.topology is not None:
                self.topology.detach()

    return ElisionCallback()
