"""Configuration of a study: plain values that a run folder keeps."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from elision.accelerators import ACCELERATORS
from elision.accelerators.design.grid import check_prices
from elision.common.checks import count, random_seed
from elision.common.names import lookup
from elision.common.specs import build, resolve
from elision.common.toml import to_toml
from elision.distill import Distillation, make_distillations
from elision.layers.recipe import Recipe
from elision.methods import METHODS, check_recipe, is_external, make_recipe, parts_of
from elision.study.probes import PROBES
from elision.study.teacher import check_named, place_of
from elision.training import Execution
from elision.workloads import (
    DEFAULT_WORKLOAD,
    WORKLOADS,
    Metric,
    Workload,
    find_workload,
)

__all__ = [
    "DEFAULT_ACCELERATORS",
    "DEFAULT_RECIPES",
    "StudyConfig",
    "command_line_toml",
    "file_name",
    "recipe_folder",
    "told_once",
]

#: Recipes and accelerators of a study that names none.
DEFAULT_RECIPES = (
    "dense",
    "swat:sparsity=0.9",
    "w-resprop:reuse=0.9",
    "meprop-unified:keep=0.1",
)
DEFAULT_ACCELERATORS = (
    "dense",
    "scnn",
    "ant",
    "scnn:startup_cycles=5",
    "ant:startup_cycles=5",
)

#: Most recorded steps, examples of one, processes and seeds: each is kept or made one by
#: one (own choice).
_MOST_RUNS = 10**5


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """Configuration of a study.

    Attributes:
        workload: name of a workload preset, a TOML file with a table ``[workload]``, or
            a :class:`~elision.workloads.Workload`, such as one with a network and data
            of your own. It is kept as a preset's name, or whole.
        recipes: specs (:mod:`elision.common.specs`); the first is the baseline that the
            others are compared with.
        accelerators: specs of the machines; none leaves out the simulation.
        probes: specs of the probes of every trained recipe.
        seed: of initial weights, batches and augmentation; the first of ``seeds``.
        seeds: number of runs of each recipe, at consecutive seeds, or the seeds. The
            first is recorded, simulated and probed; all give the metric its mean and
            spread.
        epochs: passes over the data; None for the workload's own number.
        data: folder of the data set, for those that need one.
        record: number of epochs whose last steps are recorded, spread over the run.
        samples: examples kept of each recorded step.
        engine, memory, device, precision, compress, outer: see
            :class:`elision.training.Execution`.
        processes: number of ``torchrun`` processes that share every batch.
        teacher: folder of a finished run whose network teaches every recipe, or
            ``RUN:RECIPE`` for another than its first recipe; None: nobody.
        distill: spec of what is learnt from it (:mod:`elision.distill`), such as
            ``"hinton:temperature=4,weight=0.9"``.

    Raises:
        ValueError: an unknown workload, recipe, accelerator, probe, engine, policy,
            precision, distillation or parameter, a number out of range, or a teacher
            without a distillation or the reverse.

    Example:
        >>> config = StudyConfig(workload="digits-cnn", seeds=3, engine="auto")
        >>> config.resolved_workload().epochs, config.all_seeds(), config.seeds_text()
        (3, (0, 1, 2), 'seeds 0 to 2 (3 seeds)')
    """

    workload: str | Workload = DEFAULT_WORKLOAD
    recipes: tuple[str, ...] = DEFAULT_RECIPES
    accelerators: tuple[str, ...] = DEFAULT_ACCELERATORS
    probes: tuple[str, ...] = ()
    seed: int = 0
    seeds: int | tuple[int, ...] = 1
    epochs: int | None = None
    data: str | None = None
    record: int = 2
    samples: int = 2
    engine: str = "torch"
    memory: str | None = None
    device: str = "cpu"
    precision: str = "fp32"
    compress: str | None = None
    outer: str | None = None
    processes: int = 1
    teacher: str | None = None
    distill: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "workload", _kept(self.workload))
        self._settle_seeds()
        for name in ("record", "samples", "processes"):
            count("study", name, getattr(self, name), most=_MOST_RUNS)
        if self.epochs is not None:
            self.resolved_workload()  # which refuses what it cannot be
        self.execution().check_ranks(self.processes)
        check_named(self.teacher, self.distill, self.distillations())
        if not self.recipes:
            raise ValueError("recipes: give at least one")
        checks: dict[str, Callable[[str], object]] = {
            "recipe": check_recipe,
            "accelerator": lambda spec: build("accelerator", spec, ACCELERATORS),
            "probe": lambda spec: build("probe", spec, PROBES),
        }
        for kind, check in checks.items():
            specs = getattr(self, f"{kind}s")
            for spec in specs:
                check(spec)
            if len(told_once(kind, specs)) != len(specs):
                raise ValueError(f"{kind}s: one is given twice in {', '.join(specs)}")
        check_prices(build("accelerator", s, ACCELERATORS) for s in self.accelerators)

    def _settle_seeds(self) -> None:
        """One way to write the same seeds: a number where they are consecutive."""
        if not isinstance(self.seeds, int | np.integer):
            found = tuple(random_seed("study", "seeds", s) for s in self.seeds)
            if not found or len(set(found)) < len(found):
                raise ValueError(f"study(seeds={found}): must be different seeds")
            if self.seed not in (0, found[0]):
                raise ValueError(
                    f"study(seed={self.seed}): is not the first of seeds {found}"
                )
            object.__setattr__(self, "seed", found[0])
            consecutive = found == tuple(range(found[0], found[0] + len(found)))
            object.__setattr__(self, "seeds", len(found) if consecutive else found)
        else:
            count("study", "seeds", self.seeds, most=_MOST_RUNS)
        random_seed("study", "seed", self.seed)

    @classmethod
    def from_toml(cls, values: dict[str, Any]) -> "StudyConfig":
        """The configuration of :meth:`to_dict`, as a run folder holds it.

        Raises:
            ValueError: an unknown setting, or a value that is refused.
        """
        known = {f.name: None for f in fields(cls)}
        for name in values:
            lookup("setting of a study", name, known)
        found = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        try:
            if isinstance(found.get("workload"), dict):
                found["workload"] = Workload.from_dict(values["workload"])
            return cls(**found)  # pyright: ignore[reportArgumentType]
        except (TypeError, AttributeError) as error:  # text where a list is, and so on
            raise ValueError(f"a setting is of the wrong kind ({error})") from error

    def to_dict(self) -> dict[str, Any]:
        """Plain values; settings that came after the first layout only where they are set.

        So a run that sets none of them is the same run as before.
        """
        default = {
            "seeds": 1,
            "processes": 1,
            "teacher": None,
            "distill": None,
            **asdict(Execution()),
        }
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        if isinstance(self.workload, Workload):
            values["workload"] = self.workload.to_dict()
        return {k: v for k, v in values.items() if k not in default or v != default[k]}

    def execution(self) -> Execution:
        """Engine, saved activations, device, precision, compressor and outer rule."""
        return Execution(
            engine=self.engine,
            memory=self.memory,
            device=self.device,
            precision=self.precision,
            compress=self.compress,
            outer=self.outer,
        )

    def distillations(self) -> tuple[Distillation, ...]:
        """What every recipe learns from the teacher; empty: nothing."""
        return () if self.distill is None else make_distillations(self.distill)

    @property
    def metric(self) -> Metric:
        """The task's metric."""
        return self.resolved_workload().task.metric

    @property
    def workload_name(self) -> str:
        """The workload's name."""
        return self.resolved_workload().name

    def all_seeds(self) -> tuple[int, ...]:
        """The seeds of each recipe's runs."""
        if isinstance(self.seeds, tuple):
            return self.seeds
        return tuple(range(self.seed, self.seed + self.seeds))

    def seeds_text(self) -> str:
        """The seeds in words."""
        seeds = self.all_seeds()
        if len(seeds) == 1:
            return f"seed {self.seed} (1 seed)"
        if isinstance(self.seeds, tuple):
            return f"seeds {', '.join(map(str, seeds))} ({len(seeds)} seeds)"
        return f"seeds {self.seed} to {seeds[-1]} ({len(seeds)} seeds)"

    def ran(self) -> dict[str, str]:
        """Execution of the training in words, for the report."""
        return {
            "engine": self.engine,
            "saved activations": self.memory or "plain autograd",
            "device": self.device,
            "precision": self.precision,
            "processes": str(self.processes),
            **({"gradients sent": self.compress} if self.compress else {}),
            **({"ranks meet": self.outer} if self.outer else {}),
            **({"teacher": self.teacher} if self.teacher else {}),
            **({"distillation": self.distill} if self.distill else {}),
            "seeds": self.seeds_text(),
        }

    def resolved_workload(self) -> Workload:
        """The workload, with this study's number of epochs."""
        found = self.workload
        workload = found if isinstance(found, Workload) else find_workload(found)
        return (
            workload if self.epochs is None else replace(workload, epochs=self.epochs)
        )

    def recorded_epochs(self) -> tuple[int, ...]:
        """Epochs whose last step is recorded: the last one, and evenly before it."""
        epochs = self.resolved_workload().epochs
        count = min(self.record, epochs)
        return tuple(epochs * (i + 1) // count - 1 for i in range(count))

    def recipe(self, spec: str, steps: int) -> Recipe:
        """The recipe; schedule parameters not given are scaled to ``steps``."""
        return make_recipe(spec, steps=steps)


def told_once(kind: str, specs: Iterable[str]) -> tuple[str, ...]:
    """The specs without those that say in another notation what an earlier one says.

    Args:
        kind: "recipe", "accelerator" or "probe".
        specs: of that kind.

    Raises:
        ValueError: an unknown name or parameter.

    Example:
        >>> told_once("recipe", ["swat:sparsity=0.9", "swat(0.9)", "swat"])
        ('swat:sparsity=0.9', 'swat')
    """
    tables: dict[str, Mapping[str, Callable[..., object]]] = {
        "recipe": METHODS,
        "accelerator": ACCELERATORS,
        "probe": PROBES,
    }
    found: dict[object, str] = {}
    for spec in specs:
        said: object = spec
        if kind != "recipe" or not is_external(spec):
            parts = parts_of(spec) if kind == "recipe" else [spec]
            read = (resolve(kind, part, tables[kind]) for part in parts)
            said = tuple((make, frozenset(given.items())) for make, given in read)
        found.setdefault(said, spec)
    return tuple(found.values())


def _kept(workload: str | Workload) -> str | Workload:
    """A preset's name, or the workload itself."""
    found = workload if isinstance(workload, Workload) else find_workload(workload)
    return found.name if WORKLOADS.get(found.name) == found else found


def command_line_toml(config: StudyConfig) -> str:
    """A study as a configuration file of the command line, which runs it once more.

    The workload is written whole, in the table ``[workload]``; the table of the command
    has the rest.

    Example:
        >>> written = command_line_toml(StudyConfig(workload="digits-cnn", seeds=3))
        >>> [line for line in written.splitlines() if line[:1] in ("#", "[")]
        ['# elision study --config workload.toml runs this once more.', '[workload]', '[study]']
    """
    workload = config.resolved_workload()
    data = config.data or workload.data
    if data is not None:
        workload = replace(workload, data=str(Path(data).expanduser().resolve()))
    if config.teacher is not None:
        folder, recipe = place_of(config.teacher)
        place = str(folder.resolve()) + (f":{recipe}" if recipe else "")
        config = replace(config, teacher=place)
    singular = {"recipes": "recipe", "accelerators": "accelerator", "probes": "probe"}
    told = ("workload", "epochs", "data", "processes")
    flags = {
        singular.get(name, name): value
        for name, value in config.to_dict().items()
        if value not in (None, ()) and name not in told
    }
    command = "study"
    if not config.accelerators and len(config.recipes) == 1 and not config.probes:
        command, flags["recipe"] = "train", config.recipes[0]
    elif not config.accelerators:
        flags["accelerator"] = ("none",)
    tables = {"workload": workload.to_dict(), command: flags}
    head = f"# elision {command} --config workload.toml runs this once more.\n"
    return head + to_toml(tables)


def file_name(spec: str) -> str:
    """A spec as a file name: ``swat:sparsity=0.9`` becomes ``swat-sparsity-0.9``."""
    return "".join(c if c.isalnum() or c in ".-" else "-" for c in spec)


def recipe_folder(folder: Path, spec: str) -> Path:
    """The folder of a run that a recipe at the first seed has.

    Example:
        >>> recipe_folder(Path("run"), "swat:sparsity=0.9").as_posix()
        'run/recipes/swat-sparsity-0.9'
    """
    return folder / "recipes" / file_name(spec)
