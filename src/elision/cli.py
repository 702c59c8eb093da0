"""The command line: one command per thing a person wants.

Nothing heavy is imported before a command runs, so that ``--help`` answers at once. Exit
status: 0, 1 (the work failed) or 2 (the arguments are wrong), with one clear line.
"""

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter
from cyclopts.config import Toml

from elision import __version__

__all__ = ["app", "main"]

app = App(
    name="elision",
    version=__version__,
    help="Make neural-network training cheaper by leaving out work, and prove what "
    "that is worth.",
)

Specs = Annotated[tuple[str, ...], Parameter(consume_multiple=True)]


@app.command
def study(
    *,
    workload: str = "photo-resnet8",
    recipe: Specs = (),
    accelerator: Specs = (),
    seed: int = 0,
    epochs: int | None = None,
    data: Path | None = None,
    record: int = 2,
    samples: int = 2,
    out: Path | None = None,
) -> None:
    """Train under several recipes, record, simulate, compare: the main job.

    Started again with the same arguments, it continues where it was interrupted.

    Parameters
    ----------
    workload
        Preset of data, model and training settings.
    recipe
        NAME or NAME:parameter=value,...; default: dense, SWAT, W-ReSprop, meProp.
    accelerator
        NAME or NAME:parameter=value,...; default: dense, SCNN and ANT.
    seed
        Of initial weights, batches and augmentation.
    epochs
        Passes over the data; default: the workload's.
    data
        Folder of the data set, for those that need one.
    record
        Epochs whose last step is recorded.
    samples
        Images kept of each recorded step.
    out
        Run folder; default: runs/study-WORKLOAD.
    """
    from elision.report.page import rows_as_text, study_table
    from elision.study import (
        DEFAULT_ACCELERATORS,
        DEFAULT_RECIPES,
        StudyConfig,
    )
    from elision.study import study as run

    config = StudyConfig(
        workload=workload,
        recipes=recipe or DEFAULT_RECIPES,
        accelerators=accelerator or DEFAULT_ACCELERATORS,
        seed=seed,
        epochs=epochs,
        data=None if data is None else str(data),
        record=record,
        samples=samples,
    )
    folder = out or Path("runs") / f"study-{workload}"
    with _Bar() as bar:
        outcome = run(config, folder, bar.step)
    print(rows_as_text(study_table(outcome)))
    print(f"\nreport: {folder / 'report.html'}")


@app.command
def simulate(
    *,
    trace: Path | None = None,
    model: str = "resnet18",
    input: int = 32,
    batch: int = 1,
    sparsity: float = 0.9,
    accelerator: Specs = ("dense", "scnn", "ant"),
    seed: int = 0,
) -> None:
    """Cost of a trace, or of a model with random sparse operands, on accelerators.

    Parameters
    ----------
    trace
        File that a recording wrote; without it, operands are random.
    model
        Network whose layers are taken when there is no trace.
    input
        Height and width of its images.
    batch
        Images.
    sparsity
        Fraction of zeros of every random operand.
    accelerator
        NAME or NAME:parameter=value,...
    seed
        Of the random operands.
    """
    from elision.accelerators import ACCELERATORS
    from elision.report.page import rows_as_text
    from elision.simulation import simulate as run
    from elision.simulation import total
    from elision.specs import build
    from elision.trace import Trace, synthetic_products

    machines = {s: build("accelerator", s, ACCELERATORS) for s in accelerator}
    if trace is not None:
        products: Any = Trace.load(trace)
    else:
        if not 0 <= sparsity < 1:
            raise ValueError(f"sparsity must be in [0, 1), got {sparsity}")
        from elision.workloads import layer_shapes, make_model

        network = make_model(model, image_size=input)
        layers = layer_shapes(network, (batch, 3, input, input))
        products = synthetic_products(layers, sparsity, seed)
    sums = total(run(products, machines))
    rows = [
        {
            "machine": machine,
            "product": product,
            "cycles": f"{cost.cycles:,}",
            "products issued": f"{cost.multiplies:,}",
            "redundant": f"{cost.redundant_multiplies:,}",
            "multiplier use": f"{100 * cost.utilisation:.1f} %",
            "energy nJ": f"{cost.energy_pj / 1000:,.1f}",
        }
        for machine, costs in sums.items()
        for product, cost in costs.items()
    ]
    print(rows_as_text(rows))


@app.command
def data() -> None:
    """List the data sets, models, workloads, recipes and accelerators by name."""
    from elision.accelerators import ACCELERATORS
    from elision.methods import METHODS
    from elision.workloads import DATASETS, MODELS, WORKLOADS

    tables: dict[str, Any] = {
        "data sets": DATASETS,
        "models": MODELS,
        "workloads": WORKLOADS,
        "recipes": METHODS,
        "accelerators": ACCELERATORS,
    }
    for title, names in tables.items():
        print(f"{title}: {', '.join(names)}")


@app.command
def reproduce(name: Literal["intergrad"], *, out: Path | None = None) -> None:
    """Write a published table beside our own numbers.

    Parameters
    ----------
    name
        What to reproduce.
    out
        Folder for the tables; default: runs/reproduce-NAME.
    """
    from elision.reproduce.intergrad import write

    folder = out or Path("runs") / f"reproduce-{name}"
    folder.mkdir(parents=True, exist_ok=True)
    write(folder)
    print(f"tables: {folder}")


@app.command
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


class _Bar:
    """A progress bar on a terminal; elsewhere a line when an epoch ends."""

    def __init__(self) -> None:
        self._progress: Any = None
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> "_Bar":
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import Progress

            self._progress = Progress(console=Console(stderr=True))
            self._progress.start()
        return self

    def __exit__(self, *failure: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def step(self, recipe: str, done: int, of: int, metrics: Any) -> None:
        """Show that so many steps of a recipe are done."""
        if self._progress is not None:
            if recipe not in self._tasks:
                self._tasks[recipe] = self._progress.add_task(recipe, total=of)
            self._progress.update(self._tasks[recipe], completed=done)
        elif metrics is not None:
            print(
                f"{recipe}: epoch {metrics.epoch + 1}, loss {metrics.loss:.3f}, "
                f"test accuracy {100 * metrics.test_accuracy:.1f} %",
                file=sys.stderr,
            )


@app.meta.default
def _with_config(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    config: Annotated[
        Path | None, Parameter(help="TOML file with a table per command.")
    ] = None,
) -> None:
    if config is not None:
        app.config = (Toml(config, must_exist=True),)
    app(tokens, exit_on_error=False)


def main() -> None:
    """Run the command line and exit with its status."""
    try:
        app.meta(exit_on_error=False)
    except CycloptsError:
        sys.exit(2)  # the message has been printed
    except (ValueError, FileNotFoundError, ModuleNotFoundError) as error:
        print(f"elision: {error}", file=sys.stderr)
        sys.exit(2)
    except (RuntimeError, OSError) as error:
        print(f"elision: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("elision: interrupted; the same command continues", file=sys.stderr)
        sys.exit(1)
