"""A choice for each layer as a space that searches by training take."""

from collections.abc import Callable

from elision.study.search.choices import LayerSpace
from elision.study.search.space import Choice, Point, Space
from elision.study.search.trial import Trial

__all__ = ["chosen_at", "space_of", "trials_of"]


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
