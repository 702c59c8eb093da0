"""Lightning: a callback that elides a module and lets its masks move."""

import importlib
from typing import Any

from elision.layers import elide
from elision.layers.recipe import Recipe
from elision.topology import Topology, attach

__all__ = ["callback"]


def callback(recipe: Recipe, engine: str = "auto", *, fit: bool = False) -> Any:
    """A Lightning callback that trains a module under a recipe.

    The module is elided in ``setup``, before its optimisers are made and before a
    checkpoint is loaded, and the controller is attached to the optimisers when
    training starts; it is the callback's ``topology`` from then on. Masks and counters
    are buffers of the module, so Lightning's checkpoints hold them.

    Args:
        recipe: for example ``elision.methods.RigL(sparsity=0.9)``.
        engine: who computes the products (see :func:`elision.elide`); ``"torch"`` for a
            run that repeats to the last bit.
        fit: whether the method's schedule is fitted to the steps of the run.

    Raises:
        ModuleNotFoundError: neither ``lightning`` nor ``pytorch_lightning`` is installed.
    """
    base = _callback_class()

    class ElisionCallback(base):
        """Elides the module, then moves its masks."""

        def __init__(self) -> None:
            self.topology: Topology | None = None

        def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
            """Elide, once, before the optimisers are made."""
            del trainer, stage
            if not getattr(pl_module, "_elided_by_callback", False):
                elide(pl_module, recipe, engine)
                pl_module._elided_by_callback = True

        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            """Attach to the optimisers; resumed ones have their state by now."""
            steps = trainer.estimated_stepping_batches if fit else None
            self.topology = attach(pl_module, trainer.optimizers, steps=steps)

        def on_train_end(self, trainer: Any, pl_module: Any) -> None:
            """Take the hooks off the optimiser."""
            del trainer, pl_module
            if self.topology is not None:
                self.topology.detach()

    return ElisionCallback()


def _callback_class() -> Any:
    for name in ("lightning.pytorch", "pytorch_lightning"):
        try:
            return importlib.import_module(name).Callback
        except ModuleNotFoundError as error:
            if error.name != name.partition(".")[0]:
                raise
    raise ModuleNotFoundError(
        "the Lightning callback needs lightning, which is not installed: "
        "pip install 'elision[lightning]'",
        name="lightning",
    )
