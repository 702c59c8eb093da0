"""elision memory."""

import re
from pathlib import Path

from elision.cli.flags import Integer, Names
from elision.cli.sources import DEFAULT_MODEL

__all__ = ["memory"]

#: Binary multiples of a byte.
_UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


def memory(
    *,
    model: str = DEFAULT_MODEL,
    input: Integer = 32,
    batch: Integer = 32,
    limit: str | None = None,
    way: Names = (),
    block: Names = (),
    rounds: Integer = 5,
    out: Path | None = None,
) -> None:
    """Measure ways to train a network in less memory, and name the cheapest that fits.

    Steps of the network with random weights on random images, plain, under policies of
    the saver, under torch's checkpointing, and combined: most bytes at any moment
    (gradients included, parameters excepted), time, error of the gradients.

    Parameters
    ----------
    model
        Network by name, as elision data lists them; timm:NAME and torchvision:NAME, too.
    input
        Height and width of the images.
    batch
        Images of a step.
    limit
        Largest peak that is allowed, such as 100MiB or 1.5GiB.
    way
        What to try: a policy such as 'bits(4)', checkpoint, save_on_cpu, or several
        joined by a plus sign. Default: exact, bits(8), bits(4), checkpoint,
        checkpoint + bits(4) and save_on_cpu.
    block
        Modules to checkpoint, by path; default: the members of the network's lists of
        blocks.
    rounds
        Timed steps of each way.
    out
        JSON file of all figures.
    """
    allowed = None if limit is None else _bytes(limit)

    import torch
    import torch.nn.functional as F

    from elision.common.checks import count
    from elision.common.files import write_json
    from elision.engines.bench import machine
    from elision.memory import compare_ways
    from elision.workloads import make_model

    count("memory", "batch", batch)
    network = make_model(model, classes=10, image_size=input).train()
    images = torch.randn(batch, 3, input, input)
    labels = torch.arange(batch) % 10
    found = compare_ways(
        network,
        images,
        lambda scores: F.cross_entropy(scores, labels),
        limit_bytes=allowed,
        ways=way,
        blocks=block or None,
        rounds=rounds,
    )
    print(f"{model}, batch {batch} at {input}x{input}\n\n{found}")
    if out is not None:
        facts = {"model": model, "input": input, "batch": batch, "limit_bytes": allowed}
        facts |= {"machine": machine(), "blocks": found.blocks}
        facts |= {"verdict": found.verdict, "ways": found.to_dicts()}
        out.parent.mkdir(parents=True, exist_ok=True)
        write_json(out, facts)
        print(f"\nfigures: {out}")


def _bytes(text: str) -> float:
    """Bytes of a size such as ``100MiB``.

    Raises:
        ValueError: no such size.

    Example:
        >>> _bytes("1.5KiB")
        1536.0
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMGT]iB|B)", text)
    if found is None or float(found[1]) == 0:
        raise ValueError(
            f"--limit {text}: give a size above 0 in {', '.join(_UNITS)}, such as 100MiB"
        )
    return float(found[1]) * _UNITS[found[2]]
