"""Choices: for each layer, or each operand of a layer, what may be done to it.

A choice is written as a recipe is, ``"swat:sparsity=0.8"``, or as an arithmetic is,
``"4"`` (bits of the weight), ``"8a-4w"``, ``"input=int8,weight=mxfp4"``. Patterns of layer
names say where it may be made; ``"layer1.*/weight"`` takes of the choice what it does to the
weight. ``K`` choices at each of ``L`` places are ``K^L`` recipes: a space, whose recipes are
built when they are asked for.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce

from torch import nn

from elision.common.names import lookup
from elision.layers.reach import elidable_layers
from elision.layers.recipe import Recipe, names_in_order, selects
from elision.layers.table import Table
from elision.methods import METHODS, make_recipe, parts_of
from elision.methods.composed import Composed, chained
from elision.methods.low_precision import LowPrecision
from elision.methods.masked import Masked
from elision.operands import KEEP
from elision.precision.arithmetic import arithmetic
from elision.products import OPERANDS, Product

__all__ = ["DENSE", "LayerSpace", "Option", "Place", "layer_space", "read_choice"]

#: The choice that leaves a layer as it is.
DENSE = "dense"

#: Patterns of layers, and the choices that they have.
Choices = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Option:
    """One choice of one place.

    Attributes:
        spec: as it was written.
        table: what it does to the layer's operands.
        moving: the method whose masks move, where it has one: its sparsity is the layer's.

    Example:
        >>> Option("dense", Table()).is_dense
        True
    """

    spec: str
    table: Table
    moving: Masked | None = None

    @property
    def is_dense(self) -> bool:
        """Whether it leaves the layer as it is."""
        return not self.table and self.moving is None


@dataclass(frozen=True)
class Place:
    """A layer, or one operand of it, with its choices.

    Attributes:
        layer: its name.
        options: its choices.
        operand: ``"input"``, ``"weight"`` or ``"grad_output"``; None: all three.

    Example:
        >>> Place("fc", (Option("dense", Table()),), "weight").name
        'fc/weight'
    """

    layer: str
    options: tuple[Option, ...]
    operand: str | None = None

    @property
    def name(self) -> str:
        """The layer's name, and the operand's if it is one's."""
        return f"{self.layer}/{self.operand}" if self.operand else self.layer

    @property
    def specs(self) -> tuple[str, ...]:
        """The choices as they were written."""
        return tuple(option.spec for option in self.options)


@dataclass(frozen=True)
class LayerSpace:
    """The places of a network with their choices, and the recipe of each combination.

    Attributes:
        places: in the order of the layers.
        layers: names of all layers that a recipe can reach.

    Example:
        >>> model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> space = layer_space(model, {"*": ("dense", "8a-4w")})
        >>> space.size, space.recipe((1, 0)).overrides[0][0]
        (4, '0')
    """

    places: tuple[Place, ...]
    layers: tuple[str, ...] = field(default=())

    @property
    def size(self) -> int:
        """Number of recipes."""
        return reduce(int.__mul__, (len(p.options) for p in self.places), 1)

    @property
    def specs(self) -> tuple[str, ...]:
        """All choices, in the order in which they come first."""
        return tuple(dict.fromkeys(s for p in self.places for s in p.specs))

    def recipe(self, chosen: Sequence[int], name: str = "searched") -> Recipe:
        """The recipe of a choice for each place; layers without a place stay dense.

        Where masks move, it is the method's own recipe, which holds a sparsity for each
        layer; formats of the same layers follow behind a plus sign.

        Args:
            chosen: the index of a choice for each place.
            name: of the recipe, where no method's masks move.

        Raises:
            ValueError: not one choice for each place.
        """
        if len(chosen) != len(self.places):
            raise ValueError(
                f"a recipe of {len(self.places)} places needs a choice for each, got "
                f"{len(chosen)}"
            )
        tables: dict[str, Table] = {}
        moving: dict[str, Masked] = {}
        for place, index in zip(self.places, chosen, strict=True):
            option = place.options[index]
            if option.moving is not None:
                moving[place.layer] = option.moving
            if option.table:
                before = tables.get(place.layer, Table())
                tables[place.layer] = chained(before, option.table)
        still = Recipe(name, overrides=tuple(tables.items()))
        if not moving:
            return still
        masked = self._masked(moving)
        return Composed((masked, still)) if tables else masked

    def _masked(self, moving: Mapping[str, Masked]) -> Masked:
        """The method with the sparsity of each layer that has a mask."""
        shares = tuple((layer, method.sparsity) for layer, method in moving.items())
        first = next(iter(moving.values()))
        rest = tuple(name for name in self.layers if name not in moving)
        # Every layer's density is given, so ERK has nothing left to distribute.
        return replace(first, distribution="erk", layers=shares, dense=rest)

    def alone(self, place: int, option: int) -> Recipe:
        """The recipe of one choice at one place, all others left dense."""
        only = LayerSpace((self.places[place],), self.layers)
        return only.recipe((option,), name="one choice")

    def uniform(self, spec: str) -> tuple[int, ...]:
        """One choice for all places.

        Raises:
            ValueError: no place has it, or not all do.

        Example:
            >>> model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 2))
            >>> layer_space(model, {"*": ("dense", "4")}).uniform("4")
            (1, 1)
        """
        lookup("choice of this space", spec, dict.fromkeys(self.specs))
        without = [p.name for p in self.places if spec not in p.specs]
        if without:
            raise ValueError(f"choice {spec!r}: not offered at {', '.join(without)}")
        return tuple(p.specs.index(spec) for p in self.places)

    def digest(self, chosen: Sequence[int]) -> str:
        """A short name of a choice for each place, for files.

        Example:
            >>> len(LayerSpace(()).digest(()))
            16
        """
        text = "\n".join(f"{row['layer']} {row['choice']}" for row in self.rows(chosen))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def rows(self, chosen: Sequence[int]) -> list[dict[str, str]]:
        """A row for each place: its name and its choice."""
        return [
            {"layer": place.name, "choice": place.options[index].spec}
            for place, index in zip(self.places, chosen, strict=True)
        ]


def read_choice(spec: str, steps: int | None = None) -> Recipe:
    """The recipe of a choice.

    Args:
        spec: a recipe or an arithmetic. Bits alone are those of the weight. An arithmetic
            rounds an operand in every product that reads it, as quantisation-aware
            training does.
        steps: length of the run to which a method's schedule is fitted.

    Raises:
        ValueError: neither, or a recipe that is no table for a layer: it scales the loss,
            rounds the updates or has a rule that no layer can have alone.

    Example:
        >>> print(read_choice("4").table[Product.INPUT_GRAD, "weight"])
        4 bits by channel
    """
    words = parts_of(spec)
    if len(words) > 1:
        return Composed(tuple(read_choice(word, steps) for word in words))
    name = spec.partition(":")[0].partition("(")[0].strip()
    if name in METHODS:
        recipe = make_recipe(spec, steps=steps)
        _refuse_of_all_layers(spec, recipe)
        return recipe
    try:
        read = arithmetic(f"{spec}w" if spec.isdecimal() else spec)
    except ValueError as error:
        raise ValueError(
            f"choice {spec!r}: neither a recipe ({', '.join(METHODS)}) nor an arithmetic: "
            f"{error}"
        ) from error
    return Recipe(
        spec,
        Table(
            {
                product: {
                    operand: read.rounding(operand, product)
                    for operand in product.operands
                }
                for product in Product
            }
        ),
    )


def _refuse_of_all_layers(spec: str, recipe: Recipe) -> None:
    """Raise ValueError if a recipe does what one layer cannot have for itself."""
    has_rule = callable(getattr(recipe, "rule", None))
    whole = {
        "scales the loss": recipe.loss_scaling is not None,
        "rounds the updates": getattr(recipe, "updates", None) is not None,
        "has a rule for the weights of all layers": has_rule
        and not isinstance(recipe, Masked | LowPrecision),
    }
    for what, is_so in whole.items():
        if is_so:
            raise ValueError(
                f"choice {spec!r}: {what}, which one layer cannot do alone; choose among "
                "masks of one method (rigl, set, static, ...), tables (swat, meprop, "
                "resprop, fp8, int8, mx, ...) and bits"
            )


def layer_space(
    model: nn.Module, choices: Choices, *, steps: int | None = None
) -> LayerSpace:
    """The space of a network's recipes.

    Args:
        model: not elided.
        choices: patterns of layer names (see :func:`elision.recipe.selects`), each with an
            operand behind a slash or without, and their choices; the first pattern that
            selects a layer or operand is its own.
        steps: length of the runs that the recipes are for; a method's schedule is fitted
            to it, as ``elision train`` fits it.

    Raises:
        ValueError: no choices, a pattern that selects nothing, an unknown choice or
            operand, masks of two methods, or a method's masks for one operand.
    """
    layers = elidable_layers(model)
    if not choices:
        raise ValueError("choices: give at least one pattern with its choices")
    options = {
        pattern: _options(pattern, specs, steps) for pattern, specs in choices.items()
    }
    names = names_in_order(layers)
    used: set[str] = set()
    places = []
    for name, layer in layers.items():
        taken: set[str | None] = set()
        for pattern in choices:
            where, operand = _split(pattern)
            if not selects(where, name, layer, names):
                continue
            used.add(pattern)
            if operand in taken or None in taken or (operand is None and taken):
                continue
            taken.add(operand)
            made = tuple(
                _at(spec, recipe, name, layer, names, operand)
                for spec, recipe in options[pattern].items()
            )
            places.append(Place(name, made, operand))
    for pattern in choices:
        if pattern not in used:
            raise ValueError(
                f"choices: pattern {pattern!r} selects no layer; layers: "
                f"{', '.join(layers)}"
            )
    space = LayerSpace(tuple(places), tuple(layers))
    _refuse_two_methods(space)
    return space


def _options(
    pattern: str, specs: Sequence[str], steps: int | None
) -> dict[str, Recipe]:
    if isinstance(specs, str) or not specs:
        raise ValueError(f"choices of {pattern!r}: give a sequence of one or more")
    return {spec: read_choice(spec, steps) for spec in specs}


def _split(pattern: str) -> tuple[str, str | None]:
    """Pattern of layers, and the operand behind the slash."""
    where, slash, operand = pattern.rpartition("/")
    if not slash:
        return pattern, None
    lookup(f"operand of pattern {pattern!r}:", operand, dict.fromkeys(OPERANDS))
    return where, operand


def _at(
    spec: str,
    recipe: Recipe,
    name: str,
    layer: nn.Module,
    names: list[str],
    operand: str | None,
) -> Option:
    """A choice as it is at one layer."""
    parts = recipe.parts if isinstance(recipe, Composed) else (recipe,)
    moving = [
        part
        for part in parts
        if isinstance(part, Masked)
        and not any(selects(pattern, name, layer, names) for pattern in part.dense)
    ]
    if operand and any(isinstance(part, Masked) for part in parts):
        raise ValueError(
            f"choice {spec!r}: masks are of a layer, not of its {operand}; leave "
            f"/{operand} out of the pattern"
        )
    # Masks do not know the layer's place among others: what is searched has one.
    tables = [
        part.resolved({name: layer}).table_for(name, layer, names)
        for part in parts
        if not isinstance(part, Masked)
    ]
    table = reduce(chained, tables, Table())
    return Option(spec, _of_operand(table, operand), moving[0] if moving else None)


def _of_operand(table: Table, operand: str | None) -> Table:
    """The cells of one operand; of None, all."""
    if operand is None:
        return table
    cells: dict[Product, dict[str, object]] = {product: {} for product in Product}
    for product, reads, transform in table:
        if reads == operand and transform != KEEP:
            cells[product][reads] = transform
    return Table(cells)  # pyright: ignore[reportArgumentType]


def _refuse_two_methods(space: LayerSpace) -> None:
    """Raise ValueError if masks of two methods, or of two settings of one, meet."""
    found: dict[Masked, str] = {}
    for place in space.places:
        for option in place.options:
            if option.moving is not None:
                plain = replace(
                    option.moving,
                    sparsity=0.5,
                    distribution="erk",
                    layers=(),
                    dense=(),
                )
                found.setdefault(plain, option.spec)
    if len(found) > 1:
        raise ValueError(
            f"choices {' and '.join(found.values())}: masks of one recipe are moved by one "
            "method with one setting; let their sparsities alone differ"
        )
