"""Quantisation-aware training: the forward product reads what the integers will be."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from elision.common.checks import integer, number
from elision.layers import Recipe, Table, elide, restore
from elision.operands import Cast
from elision.precision.folding import folded
from elision.products import Product
from elision.workloads import Examples, Workload

__all__ = ["aware_recipe", "tuned"]

#: Learning rate over the workload's, whose networks have batch norms still: own choice.
RATE = 0.02


def aware_recipe(bits: int = 8) -> Recipe:
    """The recipe of quantisation-aware training with the formats of the integer graph.

    The forward product reads its input in 8 bits with a step and a zero point of the
    batch, and its weight in ``bits`` with a scale for each output channel. Both gradients
    pass the rounding as if it were not there (straight through), and read what was not
    rounded.

    Source: Jacob et al., Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference, CVPR 2018, section 3. The paper follows the ranges of
    activations by a moving average; here they are the batch's, and those of the export are
    calibrated after the training.

    Args:
        bits: of the weights, 2 to 8.

    Example:
        >>> print(aware_recipe(4).table[Product.FORWARD, "weight"])
        int4:over=channel along axis 0
    """
    integer("aware_recipe", "bits", bits, "[2, 8]")
    return Recipe(
        f"aware-int{bits}",
        Table(
            {
                Product.FORWARD: {
                    "input": Cast("uint8"),
                    "weight": Cast(f"int{bits}:over=channel", axis=0),
                }
            }
        ),
    )


def tuned(
    model: nn.Module,
    workload: Workload,
    dataset: Examples,
    *,
    bits: int = 8,
    epochs: int = 1,
    rate: float = RATE,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> nn.Module:
    """A copy of a plain network, its norms folded, trained on under the export's rounding.

    Weights that are zero stay zero: a mask of the training before is frozen.

    Args:
        model: plain and trained; stays as it is.
        workload: whose batches, loss, optimiser and schedule.
        dataset: the workload's data.
        bits: of the weights.
        epochs: of the training.
        rate: of learning at its begin, over the workload's.
        seed: of the batches.
        progress: called with steps done and in all.

    Returns:
        The network, plain again, in evaluation mode; its weights are not rounded.

    Raises:
        ValueError: a number is out of range, or the loss is no finite number any more.
    """
    integer("tuned", "epochs", epochs)
    number("tuned", "rate", rate, "> 0")
    task = workload.task
    example = next(iter(workload.test_batches(dataset)))[0][:2]
    made = copy.deepcopy(folded(model, example)).requires_grad_(True)
    chosen = workload.changed(
        epochs=epochs, learning_rate=workload.learning_rate * rate, warmup=0
    )
    kept = [(p, p != 0) for p in made.parameters() if p.ndim > 1]
    made = elide(made, aware_recipe(bits), engine="torch").train()
    for parameter, mask in kept:
        parameter.register_hook(_masking(mask))
    optimizer = chosen.make_optimizer(made)
    chosen.clip_gradients(optimizer)
    each = chosen.steps_per_epoch(dataset)
    step = 0
    for epoch in range(epochs):
        for batch in chosen.train_batches(dataset, seed=seed, epoch=epoch):
            chosen.set_learning_rate(optimizer, step, each)
            optimizer.zero_grad()
            loss = task.loss(made, batch)
            if not bool(loss.isfinite()):
                raise ValueError(
                    f"quantisation-aware training: the loss is {loss.item()} at step "
                    f"{step}; give a smaller rate than {rate:g}"
                )
            loss.backward()
            optimizer.step()
            step += 1
            if progress is not None:
                progress(step, epochs * each)
    for parameter, mask in kept:
        parameter.data.mul_(mask)
    return restore(made).eval()


def _masking(mask: Tensor) -> Callable[[Tensor], Tensor]:
    """A hook that leaves the gradient of masked weights out."""
    return lambda gradient: torch.where(mask, gradient, 0.0)
