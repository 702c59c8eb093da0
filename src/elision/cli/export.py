"""elision export."""

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from elision.cli.flags import Integer, Names, refuse_ignored
from elision.cli.progress import Bar

if TYPE_CHECKING:
    from elision.export.graph import QuantisedGraph
    from elision.study.page.export import ExportPage

__all__ = ["export"]

#: Its words stand here, since "examples" in a docstring heads a section.
_Examples = Annotated[
    Integer, Parameter(help="Inputs on which the file's answers are compared.")
]


def export(
    source: Path | None = None,
    *,
    target: Names = ("onnx",),
    device: Names = (),
    workload: str | None = None,
    recipe: str | None = None,
    quantise: Literal["post", "aware", "none"] = "post",
    bits: Integer = 8,
    calibration: Integer = 512,
    examples: _Examples = 1000,
    aware_epochs: Integer | None = None,
    epochs: Integer | None = None,
    seed: Integer = 0,
    data: Path | None = None,
    out: Path | None = None,
) -> None:
    """Write a trained network for a device: pruned, folded, as integers; and run the file.

    Prints the accuracy and the bytes of each stage, how far the file's answers are from
    those of the network, and the memory that its integers need.

    Parameters
    ----------
    source
        Folder of a finished study or training: its network. Without it, the workload is
        trained first.
    target
        Formats of the files.
    device
        Microcontrollers: whether the integers fit, and for how much time and energy.
    workload
        What to train; default: photo-resnet8.
    recipe
        Which of the run's recipes, default the first; or that of the training, default
        dense. What it pruned stays pruned.
    quantise
        post: scales from training images. aware: trained on under rounding first. none:
        in floating point.
    bits
        Of the weights, 2 to 8; activations have 8.
    calibration
        Training images that the scales are taken from.
    aware_epochs
        Of the training with --quantise aware; default: 1.
    epochs
        Of the training; default: the workload's.
    seed
        Of the trainings.
    data
        Folder of the data set, for those that need one.
    out
        Folder of the files and the report; default: runs/export-NAME.
    """
    from elision.common.checks import integer
    from elision.common.names import lookup
    from elision.export.targets import TARGETS

    targets = {name: lookup("target", name, TARGETS) for name in target}
    for each in targets.values():
        each.check()
        if quantise == "none":
            each.check_float()
    _check(quantise, bits, aware_epochs, source, workload, epochs, data)
    if device:
        from elision.export.devices import find_device

        for each in device:
            find_device(each)
        if quantise == "none":
            raise ValueError(
                f"--device {device[0]} would be ignored: it is of integers; give "
                "--quantise post or aware"
            )
    for words, value in (("calibration", calibration), ("examples", examples)):
        integer("export", words, value)

    from elision.export.stages import exported
    from elision.report.table import rows_as_text
    from elision.study import file_name
    from elision.study.page.export import ExportPage
    from elision.study.sensitivity import write_folder

    with ExitStack() as held:
        with Bar() as bar:
            name, spec, model, chosen, dataset, folder = _network(
                source, recipe, workload, epochs, seed, data, out, bar, held
            )
            found = exported(
                model,
                chosen,
                dataset,
                folder,
                targets,
                name=file_name(chosen.name),
                quantise=quantise,
                bits=bits,
                calibration=calibration,
                examples=examples,
                epochs=aware_epochs or 1,
                seed=seed,
                progress=bar.step,
            )
        page = ExportPage(
            name, f"{chosen.model} on {chosen.dataset}, trained under {spec}."
        )
        page.add(found)
        tables = {"stages": found.rows(), "agreement": list(found.agreements)}
        text = [rows_as_text(tables["stages"]), rows_as_text(tables["agreement"])]
        memory: dict[str, Any] | None = None
        if found.graph is not None:
            memory, more = _add_memory(found.graph, device, page, tables)
            text += more
        summary = {
            "network": name,
            "quantise": quantise,
            "bits": bits if found.graph is not None else None,
            "calibration": calibration,
            "files": {key: path.name for key, path in found.files.items()},
            "stages": tables["stages"],
            "agreement": tables["agreement"],
            "memory": memory,
            "devices": tables.get("devices", []),
        }
        write_folder(folder, page, tables, summary)
    text += [f"{key}: {path}" for key, path in found.files.items()]
    print("\n\n".join(text) + f"\nreport: {folder / 'report.html'}")


def _add_memory(
    graph: "QuantisedGraph",
    devices: tuple[str, ...],
    page: "ExportPage",
    tables: dict[str, Any],
) -> tuple[dict[str, Any], list[str]]:
    """Add the plan of a graph's memory, and its fit to devices; its summary and text."""
    from elision.export import plan_quantised
    from elision.export.devices import fit

    tables["operations"] = graph.rows()
    plan = plan_quantised(graph)
    fits = [fit(plan, each) for each in devices]
    page.add_memory(plan, fits)
    tables["memory"] = plan.rows()
    if fits:
        tables["devices"] = [each.row() for each in fits]
    return plan.summary(), [plan.text(), *(each.text() for each in fits)]


def _check(
    quantise: str,
    bits: int,
    aware_epochs: int | None,
    source: Path | None,
    workload: str | None,
    epochs: int | None,
    data: Path | None,
) -> None:
    """Raise ValueError for a number out of range, or an argument that does nothing."""
    from elision.common.checks import integer

    integer("export", "bits", bits, "[2, 8]")
    if quantise == "none" and bits != 8:
        raise ValueError(f"--bits {bits} would be ignored: nothing is quantised")
    if aware_epochs is not None:
        integer("export", "aware_epochs", aware_epochs)
        if quantise != "aware":
            raise ValueError(
                f"--aware-epochs {aware_epochs} would be ignored: --quantise {quantise} "
                "does not train"
            )
    if source is not None:
        given = {"workload": workload, "epochs": epochs, "data": data}
        refuse_ignored(f"{source} is trained", given)


def _network(
    source: Path | None,
    recipe: str | None,
    workload: str | None,
    epochs: int | None,
    seed: int,
    data: Path | None,
    out: Path | None,
    bar: Bar,
    held: ExitStack,
) -> tuple[str, str, Any, Any, Any, Path]:
    """Name, recipe, trained network, its workload and data, and the export's folder.

    The folder is this process's own while ``held`` is open.
    """
    from elision.export.stages import check_exportable
    from elision.methods import check_recipe
    from elision.study import file_name, trained_network
    from elision.study.folder import own
    from elision.study.trained import trained_for
    from elision.workloads import DEFAULT_WORKLOAD, find_workload

    if source is not None:
        spec, model, chosen, dataset = trained_network(source, recipe)
        check_exportable(chosen, dataset)
        name = f"{chosen.name}-{spec}"
        folder = out or Path("runs") / f"export-{file_name(name)}"
        held.enter_context(own(folder))
        return name, spec, model, chosen, dataset, folder
    spec = recipe or "dense"
    check_recipe(spec)
    chosen = find_workload(workload or DEFAULT_WORKLOAD).changed(epochs=epochs)
    dataset: Any = chosen.load_dataset(None if data is None else str(data))
    check_exportable(chosen, dataset)
    name = f"{chosen.name}-{spec}"
    folder = out or Path("runs") / f"export-{file_name(name)}"
    held.enter_context(own(folder))
    place = folder / "network"
    place.mkdir(parents=True, exist_ok=True)
    model = trained_for(
        chosen,
        spec,
        dataset,
        seed=seed,
        folder=place,
        progress=lambda done, of, epoch: bar.step(
            f"train {chosen.name}", done, of, epoch
        ),
    )
    return name, spec, model, chosen, dataset, folder
