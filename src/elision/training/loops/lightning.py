"""Lightning: callbacks that elide a module and let its masks move, or use a saver."""

import importlib
from importlib.util import find_spec
from typing import Any

from elision.common.extras import imported
from elision.layers import elide
from elision.layers.recipe import Recipe
from elision.topology import Topology, attach
from elision.training.loops.saving import Saving

__all__ = ["callback", "saver"]


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


def saver(policy: Any = "exact", *, seed: int | None = None, **options: Any) -> Any:
    """A Lightning callback that keeps what every step saves in fewer bytes.

    ::

        saving = elision.training.loops.lightning.saver("bits(4)")
        Trainer(callbacks=[saving], ...).fit(module)
        print(saving.report())

    The saver is around ``training_step``, from when training starts until it ends, by
    itself or by an exception. That covers gradient accumulation, autocast, several
    processes, manual optimisation and compiled submodules (with the policies that can be
    traced). It is a :class:`~elision.training.loops.saving.Saving`, too.

    Args:
        policy: as for :class:`elision.memory.saver`.
        seed: of the first forward pass's rounding; the n-th after it has ``seed + n``,
            in a resumed training as well.
        **options: further arguments of the saver.

    Raises:
        ValueError: unknown policy; when training starts, a ``LightningModule`` that is
            compiled itself.
        ModuleNotFoundError: neither ``lightning`` nor ``pytorch_lightning`` is installed.
    """
    base = _callback_class()

    class SaverCallback(Saving, base):
        """Puts a saver around the training step."""

        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            """Wrap the module's training step."""
            if getattr(pl_module, "_compiler_ctx", None) is not None:
                raise ValueError(
                    "elision.training.loops.lightning.saver: the LightningModule is "
                    "compiled, its training step included, in which no saver can be "
                    "used; compile the network inside it instead"
                )

            def around(*args: Any, **kwargs: Any) -> Any:
                step = trainer.global_step, trainer.accumulate_grad_batches
                return self.around(pl_module, (args, kwargs), step)

            self.wrap(pl_module, "training_step", around)

        def on_train_end(self, trainer: Any, pl_module: Any) -> None:
            """Give the module its training step back."""
            del trainer, pl_module
            self.detach()

        def on_exception(
            self, trainer: Any, pl_module: Any, exception: BaseException
        ) -> None:
            """Likewise."""
            del trainer, pl_module, exception
            self.detach()

    return SaverCallback(policy, seed=seed, **options)


def _callback_class() -> Any:
    if find_spec("lightning") is None and find_spec("pytorch_lightning") is not None:
        return importlib.import_module("pytorch_lightning").Callback
    return imported("lightning.pytorch", "lightning", "the Lightning callback").Callback
