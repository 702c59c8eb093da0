"""JSON files of a run folder: what they hold, as types, and their JSON Schemas."""

from typing import Any, NotRequired, TypedDict

from elision.common.names import lookup
from elision.common.versioned import SCHEMA, VERSION_KEY
from elision.energy import Energy, Grid
from elision.study.folder import Environment
from elision.study.kept_costs import KeptCosts
from elision.study.schemas.described import schema_of
from elision.training.spent import EpochEnergy

__all__ = ["FILES", "schema"]

_DRAFT = "https://json-schema.org/draft/2020-12/schema"


class SummedCost(TypedDict):
    """Cost of one product, or of all, summed over layers and recorded steps.

    Attributes:
        cycles: clock cycles.
        multiplies: products issued to the multipliers.
        valid_multiplies: of these, those that belong to an output.
        redundant_multiplies: of these, non-zero products that belong to no output.
        energy_pj: in all; of the DRAM, where the machine models it, as well.
        energy_on_chip_pj: without the DRAM.
        energy_dram_pj: of the DRAM; null for a machine that does not model it.
    """

    cycles: int
    multiplies: int
    valid_multiplies: int
    redundant_multiplies: int
    energy_pj: float
    energy_on_chip_pj: float
    energy_dram_pj: float | None


class SummedProduct(TypedDict):
    """One product of training over all recorded layers.

    Attributes:
        macs_ratio: work done over dense work in the metered steps.
        rcp_fraction: redundant Cartesian products over non-zero ones.
        input_density: share of values that are not zero, weighted by size; of the two
            operands that the product has.
        weight_density: likewise.
        grad_output_density: likewise.
    """

    macs_ratio: float
    rcp_fraction: float
    input_density: NotRequired[float]
    weight_density: NotRequired[float]
    grad_output_density: NotRequired[float]


class SavedBytes(TypedDict):
    """Saved activations in the largest training step of one process.

    Attributes:
        logical: bytes that plain autograd would keep.
        stored: bytes that were kept.
    """

    logical: int
    stored: int


class RecipeResult(TypedDict):
    """What a recipe came to.

    Attributes:
        training_macs_ratio: work done over dense work in the metered steps of the first
            seed; null if it diverged.
        products: of the first seed, by product; null if it diverged.
        diverged: seeds without a score, and why.
        saved_bytes: with a policy of saved activations.
        gradients_dense_over_sent: bits of the gradients over those that a rank sent.
        others: the metric (mean of the seeds), under its name such as test_accuracy, its
            standard deviation NAME_spread, and its value by seed NAME_by_seed.
    """

    training_macs_ratio: float | None
    products: dict[str, SummedProduct] | None
    diverged: NotRequired[dict[str, str]]
    saved_bytes: NotRequired[SavedBytes]
    gradients_dense_over_sent: NotRequired[float]
    others: NotRequired[float | list[float | None] | None]


class TeacherFacts(TypedDict):
    """Teacher of a study.

    Attributes:
        digest: of its weights.
        recipe: it was trained under.
        workload: it was trained on.
        others: its metric, under its name.
    """

    digest: str
    recipe: str
    workload: str
    others: NotRequired[float | None]


class Distillation(TypedDict):
    """What every recipe learnt from a teacher.

    Attributes:
        spec: of the distillations.
        teacher: who taught; absent where the student's average did.
    """

    spec: str
    teacher: NotRequired[TeacherFacts]


class Summary(TypedDict):
    """Results of a study.

    Attributes:
        workload: name.
        seed: the first.
        recipes: results by recipe.
        accelerators: costs by machine, recipe and product, and their total.
        execution: settings that differ from those of a plain run.
        distillation: with a teacher.
        seeds: their number, where it is not one.
        all_seeds: where they are not consecutive.
        metric: its name, where it is not test_accuracy.
    """

    workload: str
    seed: int
    recipes: dict[str, RecipeResult]
    accelerators: dict[str, dict[str, dict[str, SummedCost]]]
    execution: NotRequired[dict[str, str | int]]
    distillation: NotRequired[Distillation]
    seeds: NotRequired[int]
    all_seeds: NotRequired[list[int]]
    metric: NotRequired[str]


class Timing(TypedDict):
    """Seconds that were measured while training.

    Attributes:
        step_seconds: median wall-clock seconds of a step, by recipe.
    """

    step_seconds: dict[str, float]


class Priced(TypedDict):
    """Energy, and what it is with the grid: lowest and highest.

    Attributes:
        energy: of the machine, before PUE.
        kwh: from the wall, in kWh.
        co2e_g: in grams of CO2e.
    """

    energy: Energy
    kwh: list[float]
    co2e_g: list[float]


class PricedRun(Priced):
    """Energy of one training.

    Attributes:
        energy: of the machine, before PUE.
        kwh: from the wall, in kWh.
        co2e_g: in grams of CO2e.
        epochs: of the training.
        epochs_known: of these, those with an account.
        step_cpu_seconds: median processor seconds of a step; null if unknown.
    """

    epochs: int
    epochs_known: int
    step_cpu_seconds: float | None


class Account(TypedDict):
    """Energy of a study's trainings.

    Attributes:
        grid: by which energy becomes kWh from the wall and CO2e.
        recipes: by recipe and seed.
        total: of all; absent where nothing is known.
    """

    grid: Grid
    recipes: dict[str, dict[str, PricedRun]]
    total: NotRequired[Priced]


class AccountByEpoch(TypedDict):
    """Energy of one training by epoch, counted from 0.

    Attributes:
        epochs: by epoch, what earlier processes spent on it included.
    """

    epochs: dict[str, EpochEnergy]


class Sources(TypedDict):
    """Digests (SHA-256) of what a run is made of.

    Attributes:
        data: of all examples.
        network: of a network of the user's own.
        teacher: of a teacher's weights.
    """

    data: str
    network: NotRequired[str]
    teacher: NotRequired[str]


class Findings(TypedDict):
    """Findings of a probe, as its class documents them.

    Attributes:
        others: by name.
    """

    others: NotRequired[Any]


#: Files by their place in the run folder (``*``: any recipe, seed or probe), and their types.
FILES: dict[str, type] = {
    "summary.json": Summary,
    "env.json": Environment,
    "timing.json": Timing,
    "energy.json": Account,
    "sources.json": Sources,
    "recipes/**/energy-by-epoch.json": AccountByEpoch,
    "recipes/*/costs.json": KeptCosts,
    "recipes/*/probe-*.json": Findings,
}


def schema(file: str) -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a file.

    Args:
        file: one of :data:`FILES`.

    Raises:
        ValueError: no such file has a schema.

    Example:
        >>> schema("timing.json")["required"]
        ['schema', 'step_seconds']
    """
    found = schema_of(lookup("file of a run", file, FILES))
    version = {"const": SCHEMA, "description": "Version of the form of the file."}
    found["properties"] = {VERSION_KEY: version, **found["properties"]}
    found["required"] = [VERSION_KEY, *found["required"]]
    return {"$schema": _DRAFT, "title": file, **found}
