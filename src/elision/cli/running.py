"""Run a study with a progress bar, and print its table."""

import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elision.cli.progress import Bar

if TYPE_CHECKING:
    from elision.energy import Grid
    from elision.study import StudyConfig
    from elision.training import Ranks

__all__ = ["cluster", "run", "run_share"]


def run(
    config: "StudyConfig",
    folder: Path,
    *,
    workers: int | None = None,
    ray: str | None = None,
    grid: "Grid | None" = None,
    log: Sequence[str] = (),
) -> None:
    """Run a study, or what is left of one, and print a row for every recipe.

    Args:
        config: the study.
        folder: its run folder.
        workers: processes that the runs are spread over; None: one, or a cluster's all.
        ray: address of a Ray cluster that trains the runs.
        grid: PUE and grid intensity; None: those of the folder, or the default.
        log: loggers of the trainings.

    Raises:
        ValueError: ``workers`` is out of range.
    """
    from elision.common.checks import integer
    from elision.study import study

    if workers is not None:
        integer("study", "workers", workers)
    with cluster(ray) as executor, Bar(config.metric) as bar:
        count = workers or getattr(executor, "workers", 1)
        outcome = study(
            config,
            folder,
            bar.step,
            workers=count,
            executor=executor,
            grid=grid,
            log=log,
        )
    _print(outcome)


def run_share(
    config: "StudyConfig",
    folder: Path,
    ranks: "Ranks",
    grid: "Grid | None" = None,
    log: Sequence[str] = (),
) -> bool:
    """Run a study on one of the processes that share it; whether this one printed."""
    from elision.study import study_share

    if not ranks.is_first:
        study_share(config, folder, ranks)
        return False
    with Bar(config.metric) as bar:
        _print(study_share(config, folder, ranks, bar.step, grid, log))
    return True


def cluster(address: str | None) -> Any:
    """An executor on a Ray cluster; without an address a context that holds None."""
    if address is None:
        return nullcontext()
    from elision.common.cluster import RayExecutor

    return RayExecutor(address)


def _print(outcome: Any) -> None:
    from elision.report.table import rows_as_text
    from elision.study.energy import energy_of
    from elision.study.page.overview import study_table, study_verdict

    config = outcome.config
    width = shutil.get_terminal_size().columns
    print(rows_as_text(study_table(outcome), width))
    if (verdict := study_verdict(outcome)) is not None:
        print(f"\n{verdict}")
    if len(config.all_seeds()) > 1:
        print(f"\nall but the {config.metric.label} is of seed {config.seed}")
    if outcome.teacher is not None:
        print(f"\ntaught by {outcome.teacher.text()}, by {config.distill}")
    if not isinstance(config.workload, str):
        print(f"\ndata: {outcome.source}")
    spent = energy_of(outcome.outcomes)
    if spent is not None:
        print(f"\nenergy of the training: {spent}")
        print(f"{outcome.grid.amounts(spent)}, with {outcome.grid}")
