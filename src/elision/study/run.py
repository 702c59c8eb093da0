"""study: train under several recipes, record, simulate, compare, report.

The data goes one way::

    workload ──train──> history, work, trace ──simulate──> costs ──compare──> summary
                        (one recipe after another)  └─ probes ──> findings └──> report

A recipe at a seed is one training run with a checkpoint folder of its own. The runs are
independent, so other processes may train them first; the study then finds them finished.
A run whose loss becomes NaN is a result, too: the study says so and goes on.
"""

import copy
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from elision.accelerators import ACCELERATORS
from elision.accelerators.simulate import CostRow, simulate
from elision.common.files import (
    read_json,
    taken_apart,
    to_csv,
    without_nan,
    write_json,
    write_text,
)
from elision.common.names import lookup
from elision.common.specs import build
from elision.common.versioned import unversioned, versioned
from elision.common.workers import spread
from elision.distill import LessonCache, Teaching
from elision.energy import Grid
from elision.layers.recipe import Recipe
from elision.layers.record import record
from elision.methods import is_external, recipe_from_toml
from elision.products import LayerProduct, Product, Trace
from elision.products.describe import count
from elision.study import folder as runfolder
from elision.study.config import (
    StudyConfig,
    command_line_toml,
    file_name,
    recipe_folder,
    told_once,
)
from elision.study.energy import ACCOUNT, account, kept_grid
from elision.study.kept_costs import keep_costs
from elision.study.outcome import (
    RecipeOutcome,
    StudyOutcome,
    logged_values,
    metric_rows,
    tables,
)
from elision.study.probes import PROBES, Trained
from elision.study.schemas import columns_of
from elision.study.sources import digests
from elision.study.teacher import Teacher, check_taught_alike, place_of
from elision.study.timing import Timing
from elision.training import checkpoint
from elision.training.checkpoint import EpochMetrics
from elision.training.loggers import LogTo, check_loggers
from elision.training.loop import (
    Progress,
    RunPlan,
    TrainingDivergedError,
    TrainResult,
    train,
)
from elision.training.ranks import Ranks
from elision.workloads import Batch, Examples, Workload

__all__ = [
    "StudyProgress",
    "added_to",
    "configured",
    "default_folder",
    "kept_findings",
    "kept_recipe",
    "outcome_of",
    "probe_file",
    "record_again",
    "study",
    "study_share",
    "trained_network",
]

#: A recipe's file in its folder of the run, and the folder of a teacher's outputs.
_RECIPE, _LESSONS = "recipe.toml", "lessons"

#: Folder of a run in which its loggers keep their files.
_LOGS = "logs"

#: Called with the recipe at work (and its seed where there are several), steps done, steps
#: in all, and a finished epoch if any.
StudyProgress = Callable[[str, int, int, EpochMetrics | None], None]


def study(
    config: StudyConfig,
    folder: Path,
    progress: StudyProgress | None = None,
    *,
    workers: int = 1,
    executor: Executor | None = None,
    grid: Grid | None = None,
    log: Sequence[str] = (),
) -> StudyOutcome:
    """Run a study, or what is left of one, and write its run folder.

    Args:
        config: the study's configuration.
        folder: the run folder; one that holds part of the same study is continued.
        progress: called after every step and epoch.
        workers: processes that the training runs are spread over. Results are those of
            one process; probes and simulation run in this one.
        executor: trains the runs elsewhere, on a cluster's machines for example; the
            folder must lie on a file system that they share.
        grid: PUE and grid intensity for the energy of the trainings; None: those that the
            folder was given before, else the stated default.
        log: loggers that every training is told to, ``NAME`` or ``NAME:TARGET`` (see
            :func:`elision.training.loggers.check_loggers`). They are no part of the
            study: what it comes to is the same, and a logger that fails is left out.

    Returns:
        The contents of the folder's ``summary.json``, tables and report.

    Raises:
        ValueError: the folder belongs to another study, its data or device is not there,
            its batches are shared by several processes (:func:`study_share`), or an
            unknown logger.
        ModuleNotFoundError: a logger's extra is not installed.
        TrainingDivergedError: the loss of every recipe became NaN or infinite at the
            first seed, so that there is nothing to show.
        OSError: the folder cannot be written.
    """
    if config.processes > 1:
        raise ValueError(
            f"this run shares its batches over {config.processes} processes; start it "
            f"with torchrun --nproc_per_node={config.processes}"
        )
    with _claimed(config, folder, log) as run:
        timing = Timing(folder)
        if workers > 1 or executor is not None:
            _train_elsewhere(run, folder, timing, progress, workers, executor)
        return _completed(run, folder, timing, progress, Ranks(), grid)


def study_share(
    config: StudyConfig,
    folder: Path,
    ranks: Ranks,
    progress: StudyProgress | None = None,
    grid: Grid | None = None,
    log: Sequence[str] = (),
) -> StudyOutcome | None:
    """Run a study whose every batch is shared by several processes, on one of them.

    Rank 0 does all that :func:`study` does; the others train and write nothing.

    Args:
        config: the study's configuration, the same on every rank.
        folder: the run folder, as of :func:`study`.
        ranks: the processes, of which this is one.
        progress: called after every step and epoch.
        grid: PUE and grid intensity, as of :func:`study`.
        log: loggers that rank 0 tells, as of :func:`study`.

    Returns:
        The outcome on rank 0, None on the others.

    Raises:
        ValueError: as for :func:`study`, or the study is of another number of processes.
    """
    if config.processes != ranks.count:
        raise ValueError(
            f"the study shares its batches over {config.processes} processes, and there "
            f"are {ranks.count}"
        )
    if ranks.is_first:
        with _claimed(config, folder, log) as run:
            ranks.gather(None)  # the others begin after the claim
            timing = Timing(folder)
            return _completed(run, folder, timing, progress, ranks, grid)
    ranks.gather(None)
    run = _Run.of(config)
    for spec in config.recipes:
        for seed in config.all_seeds():
            run.train(spec, seed, folder, ranks)
    return None


@contextmanager
def _claimed(config: StudyConfig, folder: Path, log: Sequence[str]) -> Iterator["_Run"]:
    """Context of the run, its folder claimed.

    Data, a device or a network of the user's own that is not there claims nothing.
    """
    check_loggers(log)
    run = _Run.of(config, log)
    config.execution().torch_device()
    own = not isinstance(config.workload, str)
    found = digests(run.workload, run.dataset, own=own)
    for spec in config.recipes:
        run.method(spec)  # likewise a recipe of a module or a file
    if (teacher := run.teacher) is not None:
        found["teacher"] = teacher.digest
    run.try_teaching()
    with runfolder.claimed(folder, _plain(config), found):
        yield run


def _plain(config: StudyConfig) -> dict[str, Any]:
    """The configuration as its folder holds it."""
    return {k: v for k, v in config.to_dict().items() if v is not None}


def default_folder(config: StudyConfig, folder: Path) -> Path:
    """A folder for a run that was given none.

    Args:
        config: the run's configuration.
        folder: the folder's usual name, such as ``runs/study-digits-cnn``.

    Returns:
        The folder if it is free, or holds this run, which is then continued, or less of
        it; else the first such of ``folder-2``, ``folder-3`` and so on.
    """
    return runfolder.numbered(folder, _plain(config))


def added_to(
    folder: Path,
    *,
    recipes: Iterable[str] = (),
    accelerators: Iterable[str] = (),
    probes: Iterable[str] = (),
    seeds: int | tuple[int, ...] | None = None,
) -> StudyConfig:
    """Configuration of a run that a folder holds, with more to it.

    Started with it in that folder, :func:`study` runs what is missing and trains nothing
    again.

    Args:
        folder: of a study or a training.
        recipes: further recipes; likewise machines and probes. What the run has already
            may be named again.
        accelerators: likewise.
        probes: likewise.
        seeds: number of all seeds, or the seeds; None: those of the run.

    Raises:
        ValueError: not a run folder, or an unknown name.
    """
    config = configured(folder)
    grown = {
        f"{kind}s": told_once(kind, (*getattr(config, f"{kind}s"), *more))
        for kind, more in (
            ("recipe", recipes),
            ("accelerator", accelerators),
            ("probe", probes),
        )
    }
    return replace(config, seeds=config.seeds if seeds is None else seeds, **grown)


def _completed(
    run: "_Run",
    folder: Path,
    timing: Timing,
    progress: StudyProgress | None,
    ranks: Ranks,
    grid: Grid | None,
) -> StudyOutcome:
    """Train what is left, then probe, simulate and write."""
    config, grid = run.config, kept_grid(folder, grid)
    accelerators = {
        spec: build("accelerator", spec, ACCELERATORS) for spec in config.accelerators
    }
    outcomes: list[RecipeOutcome] = []
    trace = Trace({"study": config.to_dict(), "data": run.dataset.source})
    for spec in config.recipes:
        results = {
            seed: run.train(
                spec,
                seed,
                folder,
                ranks,
                None
                if progress is None
                else partial(progress, _at(spec, seed, config)),
            )
            for seed in config.all_seeds()
        }
        outcome = outcome_of(
            spec,
            run.method(spec),
            results,
            partial(simulate, accelerators=accelerators),
        )
        outcomes.append(outcome)
        first = results[config.seed]
        timing.note(spec, first.step_seconds)
        trace.extend(first.trace, prefix=f"{spec}/", recipe=spec)
        run.log_outcome(outcome, folder)
        if outcome.finished:
            place = recipe_folder(folder, spec)
            _keep_recipe(run.method(spec), place)
            if accelerators:
                keep_costs(place, outcome.costs)
            for probe in config.probes:
                outcome.findings[probe] = run.probe(probe, spec, first, folder)
    if not any(o.finished for o in outcomes):
        raise TrainingDivergedError(outcomes[0].diverged[config.seed])
    trace.save(folder / "trace.safetensors")
    env = runfolder.kept_environment(folder)
    outcome = StudyOutcome(
        config,
        outcomes,
        env,
        timing.seconds,
        run.dataset.source,
        trace,
        grid,
        teacher=run.teacher,
    )
    _write(outcome, folder)
    return outcome


def _at(spec: str, seed: int, config: StudyConfig) -> str:
    """A recipe, and its seed where there are several."""
    return f"{spec}, seed {seed}" if len(config.all_seeds()) > 1 else spec


def _train_elsewhere(
    run: "_Run",
    folder: Path,
    timing: Timing,
    progress: StudyProgress | None,
    workers: int,
    executor: Executor | None,
) -> None:
    """Have other processes train every run; this one then finds them finished."""
    config, threads = run.config, torch.get_num_threads()
    units = [(spec, seed) for seed in config.all_seeds() for spec in config.recipes]
    calls = [
        partial(_train_unit, config, folder.resolve(), spec, seed, threads, run.log)
        for spec, seed in units
    ]
    total = config.resolved_workload().epochs * run.per_epoch
    for spec, seed, seconds, metrics in spread(calls, workers, executor):
        if seed == config.seed:
            timing.note(spec, seconds)
        if progress is not None:
            progress(_at(spec, seed, config), total, total, metrics)


def _train_unit(
    config: StudyConfig,
    folder: Path,
    spec: str,
    seed: int,
    threads: int,
    log: tuple[str, ...],
) -> tuple[str, int, float | None, EpochMetrics]:
    """Train one recipe at one seed, in a process of its own."""
    torch.set_num_threads(threads)  # the order of sums depends on it
    result = _Run.of(config, log).train(spec, seed, folder, Ranks())
    return spec, seed, result.step_seconds, result.history[-1]


def configured(folder: Path) -> StudyConfig:
    """The configuration of a run's folder.

    Raises:
        ValueError: not a run folder, or of another kind of run; the message names its file.
    """
    values = runfolder.configuration(folder)
    try:
        return StudyConfig.from_toml(values)
    except ValueError as error:
        raise ValueError(f"{folder / 'config.toml'}: {error}") from error


def record_again(folder: Path, recipe: str | None, samples: int) -> tuple[str, Trace]:
    """Record one more training step of a finished run, with its trained weights.

    Args:
        folder: of a study or a training.
        recipe: spec of one of its recipes; None for the first.
        samples: examples of the step that are kept.

    Returns:
        The recipe's spec and the trace.

    Raises:
        ValueError: not a run folder, one that has not finished this recipe, or a recipe
            that the run does not have (lists those it has).
    """
    spec, run, result = _trained(folder, recipe, taught=True)
    config, model = run.config, result.model
    following = run.workload.train_batches(
        run.dataset, seed=config.seed, epoch=run.workload.epochs
    )
    facts = {"study": config.to_dict(), "recipe": spec, "data": run.dataset.source}
    with record(model.train(), samples=samples, about=facts) as trace:
        run.loss(result, next(following)).backward()
    return spec, trace


def trained_network(
    folder: Path, recipe: str | None = None
) -> tuple[str, nn.Module, Workload, Examples]:
    """The trained network of a finished run, with its workload and data.

    Args:
        folder: of a study or a training.
        recipe: spec of one of its recipes; None for the first.

    Returns:
        The recipe's spec, the network under it, the workload and its data.

    Raises:
        ValueError: as for :func:`record_again`.
    """
    spec, run, result = _trained(folder, recipe)
    return spec, result.model, run.workload, run.dataset


def teacher_named(name: str) -> tuple[Teacher, Examples]:
    """The teacher that a configuration names, and the data that it was trained on."""
    folder, recipe = place_of(name)
    try:
        spec, run, result = _trained(folder, recipe)
    except (ValueError, OSError) as error:
        raise ValueError(f"teacher {name}: {error}") from error
    network = result.model.requires_grad_(False)
    found = Teacher(name, spec, run.workload, network, result.history[-1].score)
    return found, run.dataset


def _trained(
    folder: Path, recipe: str | None, *, taught: bool = False
) -> "tuple[str, _Run, TrainResult]":
    """Spec, run and result, its network on the CPU, of a finished run.

    The run's teacher is needed only where ``taught``: for further steps.
    """
    config = configured(folder)
    spec = config.recipes[0] if recipe is None else recipe
    lookup("recipe of this run", spec, dict.fromkeys(config.recipes))
    if not (folder / "summary.json").is_file():
        raise ValueError(f"{folder}: the run is not finished; the same command goes on")
    run = _Run.of(config)
    if is_external(spec):  # a folder may be somebody else's: import nothing it names
        run = replace(run, kept={spec: kept_recipe(recipe_folder(folder, spec))})
    if not taught:
        place, epochs = recipe_folder(folder, spec), run.workload.epochs
        if checkpoint.epochs_done(place) == epochs:  # it learns no more
            run = replace(run, config=replace(config, teacher=None, distill=None))
    result = run.train(spec, config.seed, folder, Ranks())
    if result.diverged is not None:
        raise ValueError(
            f"{folder}: {spec} diverged, there is no step: {result.diverged}"
        )
    result.model.cpu()
    return spec, run, result


@dataclass(frozen=True)
class _Run:
    """A configuration with its workload and data set, looked up once."""

    config: StudyConfig
    workload: Workload
    dataset: Examples
    kept: Mapping[str, Recipe] = field(default_factory=dict)
    log: tuple[str, ...] = ()

    @classmethod
    def of(cls, config: StudyConfig, log: Sequence[str] = ()) -> "_Run":
        workload = config.resolved_workload()
        dataset = workload.load_dataset(config.data)
        return cls(config, workload, dataset, log=tuple(log))

    @property
    def per_epoch(self) -> int:
        """Steps of an epoch."""
        return self.workload.steps_per_epoch(self.dataset)

    def method(self, spec: str) -> Recipe:
        """The recipe of a spec, fitted to the length of the run."""
        if spec in self.kept:
            return self.kept[spec]
        return self.config.recipe(spec, self.workload.epochs * self.per_epoch)

    @cached_property
    def teacher(self) -> Teacher | None:
        """The teacher, loaded once; None: nobody teaches, or the student itself."""
        if self.config.teacher is None:
            return None
        found, its_data = teacher_named(self.config.teacher)
        check_taught_alike(found, its_data, self.dataset)
        return found

    def teaching(self, folder: Path | None) -> Teaching | None:
        """What ``train`` is given; lessons are kept in the run's folder."""
        by = self.config.distillations()
        if not by:
            return None
        network = None if self.teacher is None else self.teacher.network
        cache = None if folder is None else LessonCache(folder / _LESSONS)
        return Teaching(by=by, teacher=network, cache=cache)

    def try_teaching(self) -> None:
        """Raise ValueError where teacher and student do not fit, before there is a run."""
        teaching = self.teaching(None)
        if teaching is None:
            return
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            student = self.workload.make_model(self.dataset)
        try:
            teaching.distilled(student, self.workload.task, self.dataset)
        except ValueError as error:
            named = f"teacher {self.config.teacher}: " if self.config.teacher else ""
            raise ValueError(f"{named}{error}") from error

    def loss(self, result: TrainResult, batch: Batch) -> Tensor:
        """The loss by which a result was trained, of one more batch."""
        task, model, distilled = self.workload.task, result.model, result.distilled
        if distilled is None:
            return task.loss(model, batch)

        def reading(answer: Any) -> tuple[Tensor, int]:
            return task.class_scores(answer, batch), task.size(batch)

        if distilled.teacher is not None:
            distilled.teacher.cpu()
        distilled.cpu()
        lesson = distilled.lesson(lambda network: task.answer(network, batch), reading)
        with distilled.listening() as said:
            labels = task.loss(model, batch)
        return distilled.total(labels, said, lesson, reading)

    def train(
        self,
        spec: str,
        seed: int,
        folder: Path,
        ranks: Ranks,
        progress: Progress | None = None,
    ) -> TrainResult:
        """Train a recipe at a seed, or what is left of it; the first seed is recorded."""
        first = seed == self.config.seed
        plan = RunPlan(
            seed=seed,
            record_epochs=self.config.recorded_epochs() if first else (),
            record_samples=self.config.samples,
        )
        place = recipe_folder(folder, spec)
        try:
            return train(
                self.workload,
                self.method(spec),
                self.dataset,
                plan,
                execution=self.config.execution(),
                ranks=ranks,
                folder=place if first else place / f"seed-{seed}",
                progress=progress,
                teaching=self.teaching(folder),
                log=self.log_to(spec, seed, folder),
            )
        except TrainingDivergedError as error:
            if error.result is None:
                raise
            if progress is not None:
                total = self.workload.epochs * self.per_epoch
                progress(total, total, error.result.history[-1])
            return error.result

    def log_to(self, spec: str, seed: int, folder: Path) -> LogTo | None:
        """The loggers of a training; None without any."""
        if not self.log:
            return None
        settings = self.workload.to_dict() | self.config.execution().not_default()
        return LogTo(
            self.log,
            folder / _LOGS,
            (folder.resolve().name, file_name(spec), f"seed-{seed}"),
            {"recipe": spec, "seed": seed, **settings},
        )

    def log_outcome(self, outcome: RecipeOutcome, folder: Path) -> None:
        """Tell the loggers what the machines cost that a recipe came to."""
        log = self.log_to(outcome.spec, self.config.seed, folder)
        if log is None or not outcome.costs:
            return
        done = self.workload.epochs * self.per_epoch
        with log.resumed(done) as opened:
            opened.final(logged_values(outcome), done)

    def probe(
        self, probe: str, spec: str, result: TrainResult, folder: Path
    ) -> dict[str, Any]:
        """Findings of a probe; from its file if it has run before."""
        path = probe_file(folder, spec, probe)
        if path.is_file():
            return kept_findings(path)
        trained = Trained(
            copy.deepcopy(result.model).cpu().train(),
            self.method(spec),
            self.workload,
            self.dataset,
            self.config.seed,
        )
        with torch.random.fork_rng():
            found = build("probe", probe, PROBES).run(trained)
        write_json(path, versioned(found))
        return found


def _keep_recipe(recipe: Recipe, folder: Path) -> None:
    """Write the recipe as fitted to this run, unless it has transforms of a user's own."""
    try:
        text = recipe.to_toml()
    except ValueError:  # only the program that has those classes can name them
        return
    write_text(folder / _RECIPE, text)


def kept_recipe(folder: Path) -> Recipe:
    """The recipe as it was fitted to a run, which its folder of the run holds.

    Raises:
        ValueError: it is not there, or damaged.
    """
    path = folder / _RECIPE
    if not path.is_file():
        raise ValueError(
            f"{path}: no such file; the recipe has transforms of its own program, which "
            "a run folder cannot name"
        )
    with taken_apart(path, "not a recipe"):
        return recipe_from_toml(path.read_text(encoding="utf-8"))


def kept_findings(path: Path) -> dict[str, Any]:
    """What a probe found, from its file (:func:`probe_file`).

    Raises:
        ValueError: the file is damaged.
        OSError: it cannot be read.
    """
    mend = "delete it, and the probe runs again"
    return unversioned(read_json(path, "findings of a probe", mend))


def probe_file(folder: Path, spec: str, probe: str) -> Path:
    """The file of a run that holds what a probe found of a recipe."""
    return recipe_folder(folder, spec) / f"probe-{file_name(probe)}.json"


def outcome_of(
    spec: str,
    method: Recipe,
    results: dict[int, TrainResult],
    costing: Callable[[list[LayerProduct]], Iterable[CostRow]],
) -> RecipeOutcome:
    """What a recipe came to; all but the metrics are of the first seed.

    Args:
        spec: as given.
        method: the recipe.
        results: by seed.
        costing: costs of the recorded products.
    """
    first = next(iter(results.values()))
    products = list(first.trace.multiplied())
    work = first.meter.by_product()
    rows = [
        (layer, product.value, w.ratio, w.densities)
        for (layer, product), w in first.meter.by_layer.items()
    ]
    return RecipeOutcome(
        spec,
        method,
        {seed: result.history for seed, result in results.items()},
        first.meter.total().ratio,
        {p.value: work[p].ratio if p in work else 1.0 for p in Product},
        rows,
        list(count(products)),
        list(costing(products)),
        saved_bytes=first.saved_bytes,
        sent_ratio=first.sent_ratio,
        reasons={s: r.diverged for s, r in results.items() if r.diverged is not None},
        spent={seed: result.spent for seed, result in results.items()},
    )


def _write(outcome: StudyOutcome, folder: Path) -> None:
    """Write everything that follows from the outcome."""
    from elision.study.page.page import study_page

    lines = [
        json.dumps(without_nan(row), sort_keys=True)
        for o in outcome.outcomes
        for row in metric_rows(o, outcome.metric.name)
    ]
    write_text(folder / "metrics.jsonl", "\n".join(lines) + "\n")
    (folder / "tables").mkdir(exist_ok=True)
    for name, rows in tables(outcome).items():
        head = [column.name for column in columns_of(name, outcome.metric.name)]
        write_text(folder / "tables" / f"{name}.csv", to_csv(rows, head))
    write_text(folder / "report.html", study_page(outcome))
    write_text(folder / "workload.toml", command_line_toml(outcome.config))
    write_json(folder / ACCOUNT, account(outcome.outcomes, outcome.grid))
    write_json(folder / "summary.json", outcome.summary())
