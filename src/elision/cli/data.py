"""elision data."""

from typing import Any

__all__ = ["data"]


def data(what: str | None = None, name: str | None = None) -> None:
    """List the data sets, models, workloads, recipes, accelerators and papers by name.

    `elision data energy > mine.toml` writes an energy table to edit, which
    `--energy mine.toml` and ACCELERATOR:energy=mine.toml read.

    Parameters
    ----------
    what
        energy: print the file of an energy table that ships with the library.
    name
        Of the table; default: horowitz-45nm.
    """
    if what is not None:
        _print_file(what, name)
        return
    from elision.accelerators import ACCELERATORS
    from elision.accelerators.energy import TABLES
    from elision.methods import METHODS
    from elision.study.papers import PAPERS
    from elision.study.probes import PROBES
    from elision.workloads import ALL_MODELS, DATASETS, WORKLOADS
    from elision.workloads.shapes.networks import NETWORKS

    tables: dict[str, Any] = {
        "data sets": DATASETS,
        "models": ALL_MODELS,
        "networks (shapes alone, for simulate)": NETWORKS,
        "workloads": WORKLOADS,
        "recipes": METHODS,
        "accelerators": ACCELERATORS,
        "energy tables": TABLES,
        "probes": PROBES,
        "papers (for reproduce)": PAPERS,
    }
    for title, names in tables.items():
        print(f"{title}: {', '.join(names)}")


def _print_file(what: str, name: str | None) -> None:
    from elision.accelerators.energy import shipped_text
    from elision.common.names import lookup

    lookup("kind of file", what, {"energy": shipped_text})
    print(shipped_text(name or "horowitz-45nm"), end="")
