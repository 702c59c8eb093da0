"""Hugging Face Trainer: masks that move, by a callback; a saver around every step."""

from typing import Any

from elision.common.extras import imported
from elision.topology import Topology, attach
from elision.training.loops.saving import Saving

__all__ = ["callback", "saver"]


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
    library = imported("transformers", "transformers", "the Trainer callback")
    base = library.TrainerCallback

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


def saver(
    trainer: Any, policy: Any = "exact", *, seed: int | None = None, **options: Any
) -> Saving:
    """Keep what every step of a Trainer saves in fewer bytes.

    ::

        trainer = Trainer(model=model, ...)  # or a subclass
        saving = elision.training.loops.transformers.saver(trainer, "bits(4)")
        trainer.train()
        print(saving.report())

    No event of a ``TrainerCallback`` lies between the forward and the backward pass, so
    the saver is put around ``compute_loss`` of this one trainer, whoever defines it. That
    covers gradient accumulation, autocast, several processes and a compiled model (with
    the policies that can be traced); evaluation is left as it is. A subclass that computes
    its loss elsewhere is not covered, and the report says so.

    Args:
        trainer: a ``Trainer``.
        policy: as for :class:`elision.memory.saver`.
        seed: of the first forward pass's rounding; the n-th after it has ``seed + n``,
            in a resumed training as well.
        **options: further arguments of the saver.

    Raises:
        ValueError: unknown policy.
        TypeError: no ``Trainer``: it has no ``compute_loss``.
    """
    if not callable(getattr(trainer, "compute_loss", None)):
        raise TypeError(
            "elision.training.loops.transformers.saver: trainer must have compute_loss, "
            f"as transformers.Trainer does, got {type(trainer).__name__}"
        )
    saving = Saving(policy, seed=seed, **options)

    def around(model: Any, inputs: Any, *_: Any, **__: Any) -> Any:
        step = trainer.state.global_step, trainer.args.gradient_accumulation_steps
        return saving.around(model, inputs, step)

    saving.wrap(trainer, "compute_loss", around)
    return saving
