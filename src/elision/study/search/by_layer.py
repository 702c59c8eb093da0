"""A choice for each layer as a space that searches by training take."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from elision.study.search.choices import LayerSpace, layer_space
from elision.study.search.space import Choice, Point, Space
from elision.study.search.trial import Trial
from elision.training import Execution
from elision.workloads import Workload

__all__ = ["LayerTemplate", "chosen_at", "space_of", "trials_of"]


def space_of(layers: LayerSpace) -> Space:
    """One choice for each place of a network, by the place's name.

    Example:
        >>> from torch import nn
        >>> from elision.study.search.choices import layer_space
        >>> model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> space_of(layer_space(model, {"*": ("dense", "8a-4w")})).points(4)[1]
        {'0': 'dense', '2': '8a-4w'}
    """
    return Space(tuple(Choice(place.name, place.specs) for place in layers.places))


def chosen_at(layers: LayerSpace, point: Point) -> tuple[int, ...]:
    """The index of a choice for each place, as a knapsack and its costs take them.

    Example:
        >>> from torch import nn
        >>> from elision.study.search.choices import layer_space
        >>> layers = layer_space(nn.Sequential(nn.Linear(8, 2)), {"*": ("dense", "8a-4w")})
        >>> chosen_at(layers, {"0": "8a-4w"})
        (1,)
    """
    return tuple(place.specs.index(point[place.name]) for place in layers.places)


def trials_of(layers: LayerSpace, like: Trial) -> Callable[[Point], Trial]:
    """What makes the trial of a point: that of ``like`` under the point's recipe.

    Args:
        layers: the network's places.
        like: workload, seed, share held out and execution of all trials.

    Example:
        >>> from elision.study.search.choices import layer_space
        >>> from elision.workloads import find_workload
        >>> workload = find_workload("digits-mlp")
        >>> model = workload.make_model(workload.load_dataset())
        >>> layers = layer_space(model, {"*": ("dense", "swat:sparsity=0.5,dense=()")})
        >>> make = trials_of(layers, Trial(workload=workload))
        >>> make(space_of(layers).points(1)[0]).label
        'searched'
    """

    def make(point: Point) -> Trial:
        recipe = layers.recipe(chosen_at(layers, point))
        return Trial(
            workload=like.workload,
            recipe=recipe,
            seed=like.seed,
            held_out=like.held_out,
            execution=like.execution,
        )

    return make


@dataclass(frozen=True, kw_only=True)
class LayerTemplate:
    """Trials that differ in the choice of each layer, as a run folder keeps them.

    It stands where a :class:`~elision.study.search.template.Template` does.

    Attributes:
        workload: of all trials.
        choices: patterns of layers, and the choices of each (:mod:`.choices`).
        seed, held_out, execution: of every trial.
        layers: the network's places, found from the choices.

    Raises:
        ValueError: choices that do not fit the network.

    Example:
        >>> from elision.workloads import find_workload
        >>> template = LayerTemplate(
        ...     workload=find_workload("digits-mlp"), choices={"*": ("dense", "8a-4w")}
        ... )
        >>> template.space.size == template.layers.size
        True
    """

    workload: Workload
    choices: Mapping[str, tuple[str, ...]]
    seed: int = 0
    held_out: float = 0.2
    execution: Execution = field(default_factory=Execution)
    layers: LayerSpace = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        workload = self.workload
        data = workload.load_dataset()
        model = workload.make_model(data.held_out(self.held_out))
        # Schedules are those of the training on all examples, as of the chosen recipe.
        steps = workload.epochs * workload.steps_per_epoch(data)
        object.__setattr__(
            self, "layers", layer_space(model, self.choices, steps=steps)
        )

    @property
    def space(self) -> Space:
        """A dimension for each place."""
        return space_of(self.layers)

    def __call__(self, point: Point) -> Trial:
        """The trial of a point of the space."""
        like = Trial(
            workload=self.workload,
            seed=self.seed,
            held_out=self.held_out,
            execution=self.execution,
        )
        return trials_of(self.layers, like)(point)

    def check(self, space: Space) -> None:
        """Refuse another space than :attr:`space`.

        Raises:
            ValueError: it is another one.
        """
        if space != self.space:
            raise ValueError(
                "search: the space of a choice for each layer is the template's own"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        values: dict[str, Any] = {
            "workload": self.workload.to_dict(),
            "choices": [
                {"layers": pattern, "specs": list(specs)}
                for pattern, specs in self.choices.items()
            ],
            "seed": self.seed,
            "held_out": self.held_out,
        }
        execution = self.execution.not_default()
        return values | ({"execution": execution} if execution else {})
