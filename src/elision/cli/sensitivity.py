"""elision sensitivity."""

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from elision.cli.flags import Integer, Names, refuse_ignored
from elision.cli.progress import Bar

if TYPE_CHECKING:
    from elision.study.page.sensitivity import Page

__all__ = ["sensitivity"]

_Operands = Annotated[
    tuple[str, ...], Parameter(consume_multiple=1, negative="--no-operand")
]

#: Its words stand here, since "examples" in a docstring heads a section.
_Examples = Annotated[
    Integer | None,
    Parameter(help="Test examples for one operand at a time; default: 64."),
]


def sensitivity(
    source: Path | None = None,
    *,
    workload: str | None = None,
    recipe: str | None = None,
    trace: Path | None = None,
    photos: bool = False,
    arithmetic: Names = ("8a-8w", "8a-6w", "8a-4w", "8a-2w"),
    formats: Names = (),
    operand: _Operands = ("weight", "input", "grad_output"),
    budget: float | None = None,
    examples: _Examples = None,
    threshold: float | None = None,
    epochs: Integer | None = None,
    seed: Integer = 0,
    data: Path | None = None,
    out: Path | None = None,
) -> None:
    """Measure what narrow number formats do to a network, layer by layer.

    Noise to signal of every layer and of the scores; the loss's change for each operand,
    predicted and measured; the bits that a budget allots. With --trace: the smallest
    format that each operand of each recorded product needs. With --photos: MobileNetV2 on
    20 photographs.

    Parameters
    ----------
    source
        Folder of a finished study or training: its network. Without it, the workload is
        trained first, with nothing left out.
    workload
        What to train; default: photo-resnet8.
    recipe
        Which of the run's recipes; default: the first. The weights are those it trained.
    trace
        Trace file of a training run.
    photos
        MobileNetV2 with ImageNet's weights (needs the photos extra, and the package of the
        weights).
    arithmetic
        Formats of all layers together: bits such as 8a-4w (inputs, weights), a number
        format, or OPERAND=FORMAT,...
    formats
        Formats of one operand at a time, numbers of bits or names; default: 2 4 6 8. For
        a trace: in order of preference; default: from mxfp4 to fp32.
    operand
        Operands that are rounded one at a time: weight, input, grad_output.
    budget
        Mean bits of the weights, and of the inputs; default: 4, or the fewest of
        --formats.
    threshold
        Relative error of a product that is allowed; default: 0.06.
    epochs
        Of the training; default: the workload's.
    seed
        Of the training and the Hessian's random vectors.
    data
        Folder of the data set, for those that need one.
    out
        Folder of the report; default: runs/sensitivity-NAME.
    """
    named = {"source": source, "--trace": trace, "--photos": photos or None}
    given = [name for name, value in named.items() if value is not None]
    if len(given) > 1:
        raise ValueError(
            f"a sensitivity is of one network: give one of {', '.join(given)}"
        )
    of_training = {"workload": workload, "epochs": epochs, "data": data}
    of_network = {"budget": budget, "examples": examples}
    of_trace = {"threshold": threshold}
    with ExitStack() as held:
        if trace is not None:
            refuse_ignored(
                "a trace holds its operands",
                of_training | of_network | {"recipe": recipe},
            )
            page, tables, summary, text = _of_trace(trace, formats, threshold)
            folder = _folder(trace.stem, out, held)
        elif photos:
            others = of_training | of_network | of_trace
            refuse_ignored("--photos is of MobileNetV2", others | {"recipe": recipe})
            page, tables, summary, text = _of_photos(arithmetic)
            folder = _folder("photos", out, held)
        else:
            refuse_ignored("there is no trace", of_trace)
            if source is not None:
                refuse_ignored(f"{source} is trained", of_training)
            else:
                refuse_ignored("there is no run folder", {"recipe": recipe})
            from elision.precision.arithmetic import bits_of
            from elision.precision.sensitivity import BITS
            from elision.study.sensitivity import check_choices

            formats = formats or BITS
            if budget is None:
                budget = float(max(4, min(map(bits_of, formats))))
            examples = 64 if examples is None else examples
            # Before the training, which takes minutes.
            check_choices(arithmetic, formats, operand, budget, examples)
            with Bar() as bar:
                name, lead, model, dataset, folder = _network(
                    source, recipe, workload, epochs, seed, data, out, bar, held
                )
            page, tables, summary, text = _of_network(
                name,
                lead,
                model,
                dataset,
                arithmetic,
                formats,
                operand,
                budget,
                examples,
                seed,
            )
        from elision.study.sensitivity import write_folder

        write_folder(folder, page, tables, summary)
    print(f"{text}\n\nreport: {folder / 'report.html'}")


def _folder(name: str, out: Path | None, held: ExitStack) -> Path:
    """The report's folder, which is this process's own while ``held`` is open."""
    from elision.study import file_name
    from elision.study.folder import own

    folder = out or Path("runs") / f"sensitivity-{file_name(name)}"
    held.enter_context(own(folder))
    return folder


#: Page, tables by name, summary and what is printed.
_Found = tuple["Page", dict[str, Any], dict[str, Any], str]


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
) -> tuple[str, str, Any, Any, Path]:
    """Name, lead, trained network, its data and the folder; see :func:`_folder`."""
    from elision.study import trained_network
    from elision.study.sensitivity import trained_plainly
    from elision.workloads import DEFAULT_WORKLOAD, find_workload

    if source is not None:
        spec, model, chosen, dataset = trained_network(source, recipe)
        lead = f"{chosen.model} on {chosen.dataset}, trained under {spec}."
        name = f"{chosen.name}-{spec}"
        return name, lead, model, dataset, _folder(name, out, held)
    chosen = find_workload(workload or DEFAULT_WORKLOAD).changed(epochs=epochs)
    dataset = chosen.load_dataset(None if data is None else str(data))
    folder = _folder(chosen.name, out, held)
    model = trained_plainly(
        chosen,
        dataset,
        seed,
        lambda done, of, epoch: bar.step(f"train {chosen.name}", done, of, epoch),
    )
    lead = f"{chosen.model} on {chosen.dataset}, trained for {chosen.epochs} epochs."
    return chosen.name, lead, model, dataset, folder


def _of_network(
    name: str,
    lead: str,
    model: Any,
    dataset: Any,
    arithmetics: tuple[str, ...],
    formats: tuple[str, ...],
    operands: tuple[str, ...],
    budget: float,
    examples: int,
    seed: int,
) -> _Found:
    from dataclasses import asdict

    from elision.report.table import rows_as_text
    from elision.study.page.sensitivity import Page
    from elision.study.sensitivity import examined

    found = examined(
        model,
        dataset.normalise(dataset.test_images),
        dataset.test_labels,
        arithmetics=arithmetics,
        formats=formats,
        operands=operands,
        budget=budget,
        examples=examples,
        seed=seed,
    )
    page = Page(name, lead)
    page.add_perturbation(found.perturbation)
    tables = {
        "arithmetics": found.perturbation.rows(),
        "layers": found.perturbation.layer_rows(),
    }
    text = [str(found.perturbation)]
    if found.sensitivity is not None:
        page.add_sensitivity(found.sensitivity)
        tables["operands"] = [asdict(row) for row in found.sensitivity.rows]
        text.append(str(found.sensitivity))
    if found.allotted:
        page.add_allocation(found.allotted, found.bits)
        tables |= {"budget": list(found.allotted), "bits": list(found.bits)}
        text.append(rows_as_text(list(found.allotted)))
    summary = {"network": name, **found.to_dict()}
    return page, tables, summary, "\n\n".join(text)


def _of_photos(arithmetics: tuple[str, ...]) -> _Found:
    from elision.report.table import rows_as_text
    from elision.study.page.sensitivity import Page
    from elision.study.sensitivity import photo_view

    found = photo_view(arithmetics)
    photos, rows = found.photos, found.rows()
    captions = [found.names[label] for label in photos.labels.tolist()]
    page = Page(
        "MobileNetV2 on photographs",
        "MobileNetV2 with torchvision's ImageNet weights, batch normalisation folded, on "
        "20 photographs of ImageNet; no training after rounding.",
    )
    page.add_perturbation(found.perturbation, rows)
    page.add_photographs(
        list(photos.pixels.permute(0, 2, 3, 1).numpy()),
        captions,
        found.tops,
        photos.labels.tolist(),
        found.names,
    )
    classes = [
        {
            "photograph": caption,
            "arithmetic": top.arithmetic,
            **_top(top, i, found.names),
        }
        for top in found.tops
        for i, caption in enumerate(captions)
    ]
    tables = {
        "arithmetics": rows,
        "layers": found.perturbation.layer_rows(),
        "classes": classes,
    }
    summary = {"network": "mobilenet-v2", "perturbation": found.perturbation.to_dict()}
    return page, tables, summary, rows_as_text(rows)


def _top(top: Any, example: int, names: tuple[str, ...]) -> dict[str, Any]:
    pairs = zip(
        top.classes[example].tolist(), top.shares[example].tolist(), strict=True
    )
    return {
        f"{i + 1}": f"{names[label]} {share:.3f}"
        for i, (label, share) in enumerate(pairs)
    }


def _of_trace(path: Path, formats: tuple[str, ...], threshold: float | None) -> _Found:
    from dataclasses import asdict

    from elision.precision.sufficient import CANDIDATES, THRESHOLD, sufficient
    from elision.products import Trace
    from elision.study.page.sensitivity import Page

    recorded = Trace.load(path)
    if not len(recorded):
        raise ValueError(f"{path}: the trace holds no product")
    first = recorded.of_recipe(recorded.recipes[0])
    limit = THRESHOLD if threshold is None else threshold
    found = sufficient(first, formats or CANDIDATES, limit)
    steps = ", ".join(map(str, recorded.steps))
    page = Page(path.stem, f"The operands recorded in {path.name}, steps {steps}.")
    page.add_sufficiency(found)
    tables = {
        "smallest": found.rows(),
        "errors": [asdict(error) for error in found.errors],
    }
    return page, tables, {"trace": path.name, **found.to_dict()}, str(found)
