"""elision trace."""

from pathlib import Path
from typing import TYPE_CHECKING

from elision.cli.flags import Integer, refuse_ignored
from elision.cli.sources import DEFAULT_MODEL, layers_by_network, sparsities_of

if TYPE_CHECKING:
    from elision.products import Geometry, Trace

    Layers = list[tuple[str, Geometry]]

__all__ = ["trace"]


def trace(
    source: Path | None = None,
    *,
    recipe: str | None = None,
    samples: Integer | None = None,
    model: str | None = None,
    input: Integer | None = None,
    batch: Integer | None = None,
    sparsity: str | None = None,
    seed: Integer | None = None,
    out: Path | None = None,
) -> None:
    """Record the operands of a trained run, make random ones, or describe a trace file.

    Parameters
    ----------
    source
        Folder of a study or training: one more training step of its model is recorded.
        A trace file: it is described. Without it, operands are random.
    recipe
        Which of the run's recipes; default: the first.
    samples
        Images of the step that are kept; default: 2.
    model
        Network of the layers, if there is no source; default: resnet18.
    input
        Height and width of its images; default: 32.
    batch
        Images; default: 1.
    sparsity
        Fraction of zeros of the random operands; default: 0.9. A number is that of all
        three, input=0.5,weight=0.9,grad_output=0.7 one for each.
    seed
        Of the random operands; default: 0.
    out
        File to write; default: runs/trace-MODEL.safetensors, or trace-RECIPE.safetensors
        in the run folder.
    """
    from elision.products import Trace
    from elision.products.describe import describe
    from elision.report.table import rows_as_text

    run = {"recipe": recipe, "samples": samples}
    drawn = {
        "model": model,
        "input": input,
        "batch": batch,
        "sparsity": sparsity,
        "seed": seed,
    }
    if source is not None and source.is_file():
        refuse_ignored(f"the trace file {source} is described as it is", run | drawn)
        found = Trace.load(source)
    elif source is not None:
        from elision.study import file_name, record_again

        refuse_ignored(f"the run in {source} has operands of its own", drawn)
        kept = 2 if samples is None else samples
        spec, found = record_again(source, recipe, kept)
        out = out or source / f"trace-{file_name(spec)}.safetensors"
    else:
        refuse_ignored("there is no run to record, and operands are random", run)
        network = model or DEFAULT_MODEL
        layers = layers_by_network([network], [], [], input, batch)[network]
        found = _random(network, layers, sparsity or "0.9", seed or 0)
        out = out or Path("runs") / f"trace-{network}.safetensors"
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        found.save(out)
    print(rows_as_text(describe(found.multiplied())))
    if out is not None:
        print(f"\ntrace: {out}")


def _random(model: str, layers: "Layers", sparsity: str, seed: int) -> "Trace":
    """A trace of a training step of the layers, with random operands."""
    from elision.accelerators.design.sweep import shares_by_operand
    from elision.accelerators.step import training_products
    from elision.common.checks import random_seed
    from elision.products import Product, Trace, synthetic_products

    (given,) = sparsities_of([sparsity])
    shares = shares_by_operand(given)
    seed = random_seed("trace", "seed", seed)
    found = Trace({"model": model, "sparsity": given, "seed": seed})
    call = -1
    for product in training_products(synthetic_products(layers, shares, seed)):
        first, second = product.kind.operands
        call += (
            product.kind is Product.FORWARD
        )  # a layer's products share three tensors
        found.add(product, (f"{call}/{first}", f"{call}/{second}"))
    return found
