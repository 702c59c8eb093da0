"""elision trace."""

from pathlib import Path

__all__ = ["trace"]


def trace(
    source: Path | None = None,
    *,
    recipe: str | None = None,
    samples: int = 2,
    model: str = "resnet18",
    input: int = 32,
    batch: int = 1,
    sparsity: float = 0.9,
    seed: int = 0,
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
        Images of the step that are kept.
    model
        Network of the layers, if there is no source.
    input
        Height and width of its images.
    batch
        Images.
    sparsity
        Fraction of zeros of every random operand.
    seed
        Of the random operands.
    out
        File to write; default: runs/trace-MODEL.safetensors, or trace-RECIPE.safetensors
        in the run folder.
    """
    from elision.products import Product, Trace
    from elision.products.describe import describe
    from elision.report.table import rows_as_text
    from elision.workloads.shapes.random import random_products

    if source is not None and source.is_file():
        found = Trace.load(source)
    elif source is not None:
        from elision.study import file_name, record_again

        spec, found = record_again(source, recipe, samples)
        out = out or source / f"trace-{file_name(spec)}.safetensors"
    else:
        products = random_products(model, input, batch, sparsity, seed)
        facts = {"model": model, "input": input, "sparsity": sparsity, "seed": seed}
        found = Trace(facts)
        for number, product in enumerate(products):
            first, second = product.kind.operands
            call = number // len(Product)  # its products share three tensors
            found.add(product, (f"{call}/{first}", f"{call}/{second}"))
        out = out or Path("runs") / f"trace-{model}.safetensors"
    print(rows_as_text(describe(found.multiplied())))
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        found.save(out)
        print(f"\ntrace: {out}")
