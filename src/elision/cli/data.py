"""elision data."""

from typing import Any

__all__ = ["data"]


def data() -> None:
    """List the data sets, models, workloads, recipes, accelerators and papers by name."""
    from elision.accelerators import ACCELERATORS
    from elision.methods import METHODS
    from elision.study.papers import PAPERS
    from elision.study.probes import PROBES
    from elision.workloads import DATASETS, MODELS, WORKLOADS
    from elision.workloads.shapes.networks import NETWORKS

    tables: dict[str, Any] = {
        "data sets": DATASETS,
        "models": MODELS,
        "networks (shapes alone, for simulate)": NETWORKS,
        "workloads": WORKLOADS,
        "recipes": METHODS,
        "accelerators": ACCELERATORS,
        "probes": PROBES,
        "papers (for reproduce)": PAPERS,
    }
    for title, names in tables.items():
        print(f"{title}: {', '.join(names)}")
