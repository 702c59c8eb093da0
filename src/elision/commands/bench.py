"""elision bench."""

from pathlib import Path

__all__ = ["bench"]


def bench(*, out: Path | None = None) -> None:
    """Measure this machine: dense and sparse rates, break-even sparsity per layer.

    Parameters
    ----------
    out
        JSON file for the rows.
    """
    from elision.engines.bench import bench as run
    from elision.files import write_json

    rows = [row.to_dict() for row in run(progress=print)]
    if out is not None:
        write_json(out, rows)
    for row in rows:
        print(row)
