"""elision faults."""

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from elision.cli.flags import Integer, Integers, Names
from elision.cli.progress import Bar

if TYPE_CHECKING:
    from elision.study.faults import Network, StruckTraining

__all__ = ["faults"]

_Optional = Annotated[
    tuple[str, ...], Parameter(consume_multiple=True, negative="--no-training")
]

#: Its words stand here, since "examples" in a docstring heads a section.
_Examples = Annotated[Integer, Parameter(help="Test examples of a trial, at most.")]


def faults(
    source: Path | None = None,
    *,
    workload: str = "photo-resnet8",
    recipe: Names = ("dense", "gradual:sparsity=0.8"),
    format: Names = ("fp32", "int8"),
    site: str = "weight",
    storage: str = "dense",
    action: str = "flip",
    bits: Integers = (),
    length: Integer = 1,
    rate: float | None = None,
    trials: Integer = 1000,
    width: float | None = None,
    examples: _Examples = 400,
    layers: bool = True,
    training: _Optional = (),
    first: Integer = 20,
    steps: Integer = 5,
    faults_per_step: Integer = 10,
    memory: str | None = None,
    compress: str | None = None,
    epochs: Integer | None = None,
    seed: Integer = 0,
    workers: Integer = 1,
    data: Path | None = None,
    out: Path | None = None,
) -> None:
    """Flip bits of trained networks, and of training, and say what comes of it.

    Each recipe is trained and struck in each format: the share of wrong trials with its
    interval by bit and by layer, and the resilience against the first network by four
    measures. With --training, trainings are struck as well. Started again with the same
    arguments, it goes on where it was interrupted.

    Parameters
    ----------
    source
        Folder of a finished study or training, whose networks are struck; default: the
        workload is trained.
    workload
        What to train.
    recipe
        Recipes of the networks; of a source: which of its recipes.
    format
        Number formats of what is struck; the first is what others are compared with.
    site
        weight, scale (of a format with scales), index or bitmap (of a storage without
        zeros), or activation.
    storage
        Of the weights: dense, csr or bitmap.
    action
        flip, stuck-at-0 or stuck-at-1.
    bits
        Positions in a word, 0 the least significant; default: all.
    length
        Neighbouring bits that change together.
    rate
        Faults a stored bit, instead of one a trial.
    trials
        Of each network, rounded up to whole hundreds.
    width
        A network's trials end when the interval of wrong trials is this narrow.
    layers
        Strike by layer as well.
    training
        Sites that are struck while the first recipe is trained: weight, activation,
        gradient, weight-gradient, optimizer, error-memory, saved, message.
    first
        The first struck step.
    steps
        Struck steps.
    faults_per_step
        Faults of a struck step.
    memory
        Policy of saved activations of a struck training, such as 'bits(4)'.
    compress
        Compressor of the gradients of a struck training, such as int8.
    epochs
        Of each training; default: the workload's.
    seed
        Of the trainings and the faults.
    workers
        Processes; any number gives the same result.
    data
        Folder of the data set, for those that need one.
    out
        Folder of the report; default: runs/faults-NAME.
    """
    from elision.common.checks import integer, number
    from elision.faults import Fault
    from elision.faults.sites import check_inference_site
    from elision.faults.training.sites import check_training_site
    from elision.formats import format_named
    from elision.methods import check_recipe
    from elision.report.table import rows_as_text
    from elision.study.faults import struck_networks, struck_training, test_examples
    from elision.study.page.faults import FaultPage
    from elision.study.sensitivity import write_folder

    # Before any training, which takes minutes.
    chosen_bits = tuple(bits) if not isinstance(bits, int) else (bits,)
    formats = [None if name == "fp32" else format_named(name).name for name in format]
    fault = Fault(
        site=site,
        storage=storage,
        action=action,  # pyright: ignore[reportArgumentType]
        bits=chosen_bits or None,
        length=length,
        rate=rate,
    )
    check_inference_site(fault)
    for words, value, allowed in (
        ("trials", trials, ">= 1"),
        ("examples", examples, ">= 1"),
        ("workers", workers, ">= 1"),
        ("first", first, ">= 0"),
        ("steps", steps, ">= 1"),
    ):
        integer("faults", words, value, allowed)
    if width is not None:
        number("faults", "width", width, "(0, 1)")
    for spec in recipe:
        check_recipe(spec)
    for name in training:
        check_training_site(name)
    struck_sites = {
        name: Fault(site=name, number=faults_per_step, lifetime="transient")
        for name in training
    }
    words = f"{action} of {length} bit{'s' * (length > 1)} of a {site}" + (
        f", {rate:g} a stored bit" if rate is not None else ", one a trial"
    )
    with ExitStack() as held:
        with Bar() as bar:
            name, lead, networks, dataset, chosen, folder = _networks(
                source, workload, recipe, epochs, seed, data, out, bar, held
            )
            found = struck_networks(
                networks,
                test_examples(dataset, examples),
                fault,
                formats,
                trials=trials,
                layers=layers,
                folder=folder / "trials",
                progress=lambda what, done, of: bar.step(f"strike {what}", done, of),
                width=width,
                seed=seed,
                workers=workers,
            )
            trainings = []
            if struck_sites:
                if chosen is None:
                    raise ValueError(
                        f"--training would be ignored: {source} is trained already"
                    )
                trainings = struck_training(
                    chosen,
                    recipe[0],
                    dataset,
                    struck_sites,
                    first=first,
                    steps=steps,
                    seed=seed,
                    memory=memory,
                    compressor=compress,
                    progress=lambda done, of, _: bar.step(
                        "train under faults", done, of
                    ),
                )
        page = FaultPage(name, lead)
        page.add_networks(found, words)
        if trainings:
            page.add_trainings(
                trainings, f"{faults_per_step} flips in each struck step"
            )
        tables = _tables(found, trainings)
        summary = {
            "subject": name,
            "fault": vars(fault),
            "networks": {n.name: n.bits.to_dict() for n in found},
            "trainings": [
                {"name": t.name, "site": t.site, "clean": t.clean, "struck": t.struck}
                for t in trainings
            ],
        }
        write_folder(folder, page, tables, summary)
    text = [rows_as_text(tables[n]) for n in ("networks", "trainings") if n in tables]
    print("\n\n".join(text) + f"\n\nreport: {folder / 'report.html'}")


def _tables(
    found: "list[Network]", trainings: "list[StruckTraining]"
) -> dict[str, Any]:
    """Rows by the name of a table."""
    from elision.study import file_name
    from elision.study.faults import network_rows, recovery_rows

    tables: dict[str, Any] = {"networks": network_rows(found)}
    for network in found:
        tables[f"bits-{file_name(network.name)}"] = network.bits.rows()
        if network.layers is not None:
            tables[f"layers-{file_name(network.name)}"] = network.layers.rows()
    if trainings:
        tables["trainings"] = recovery_rows(trainings)
    return tables


def _networks(
    source: Path | None,
    workload: str,
    recipes: tuple[str, ...],
    epochs: int | None,
    seed: int,
    data: Path | None,
    out: Path | None,
    bar: Bar,
    held: ExitStack,
) -> tuple[str, str, dict[str, Any], Any, Any, Path]:
    """Name, lead, networks by recipe, their data, the workload that can be trained.

    Last the folder, which is this process's own while ``held`` is open.
    """
    from elision.layers import restore
    from elision.study import file_name, trained_network
    from elision.study.faults import trained_under
    from elision.study.folder import own
    from elision.workloads import find_workload

    networks: dict[str, Any] = {}
    if source is not None:
        dataset = chosen = None
        for spec in recipes:
            name, model, chosen, dataset = trained_network(source, spec)
            networks[name] = restore(model).eval()
        assert chosen is not None
        lead = f"{chosen.model} on {chosen.dataset}."
        folder = out or Path("runs") / f"faults-{file_name(chosen.name)}"
        held.enter_context(own(folder))
        return chosen.name, lead, networks, dataset, None, folder
    chosen = find_workload(workload).changed(epochs=epochs)
    dataset = chosen.load_dataset(None if data is None else str(data))
    folder = out or Path("runs") / f"faults-{file_name(chosen.name)}"
    held.enter_context(own(folder))
    for spec in recipes:
        place = folder / "networks" / file_name(spec)
        place.mkdir(parents=True, exist_ok=True)
        networks[spec] = trained_under(
            chosen,
            spec,
            dataset,
            seed=seed,
            folder=place,
            progress=lambda done, of, epoch, spec=spec: bar.step(
                f"train {spec}", done, of, epoch
            ),
        )
    lead = f"{chosen.model} on {chosen.dataset}, trained for {chosen.epochs} epochs."
    return chosen.name, lead, networks, dataset, chosen, folder
