"""A recipe: the table product x operand -> transform, for the layers of a model.

The table is the whole statement of an operand-level method. Each of the three products
reads two operands and sums, so its row has three cells: two transforms and an
:class:`~elision.operands.Accumulate`. A cell that is not named keeps its operand, or sums
as torch does.

A recipe goes to plain values, TOML and JSON and back; such a file names methods,
transforms and their parameters, and carries a version.
"""

import json
import textwrap
from collections.abc import Callable, Collection, Mapping
from dataclasses import KW_ONLY, dataclass, field
from fnmatch import fnmatchcase
from typing import Any, ClassVar, Literal, Self, TypeGuard

from torch import nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from elision.common.names import lookup
from elision.common.toml import from_toml, to_toml
from elision.layers.parts import Part
from elision.layers.table import Table

__all__ = [
    "SELECTORS",
    "VERSION",
    "Recipe",
    "Table",
    "as_recipe",
    "check_version",
    "names_in_order",
    "overrides_from_dict",
    "read_names_with",
    "selects",
]

#: Version of a recipe's plain form; raised when an older reader could not read it.
VERSION = 1


def _is_convolution(layer: nn.Module) -> TypeGuard[nn.modules.conv._ConvNd]:
    """Whether a layer is a convolution of any number of axes, transposed or not."""
    return isinstance(layer, nn.modules.conv._ConvNd)


def _is_depthwise(layer: nn.Module) -> bool:
    return _is_convolution(layer) and layer.groups == layer.in_channels > 1


def _is_embedding(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Embedding)


def _is_recurrent(layer: nn.Module) -> bool:
    kinds = nn.RNNBase | nn.RNNCellBase
    return isinstance(layer, Part) and isinstance(layer.whole, kinds)


def _is_attention(layer: nn.Module) -> bool:
    if isinstance(layer, Part):
        return isinstance(layer.whole, nn.MultiheadAttention)
    return isinstance(layer, NonDynamicallyQuantizableLinear)


#: Layer selectors that are not name patterns. ``:first`` and ``:last`` go by the order
#: in which the model registers its layers that multiply, embeddings apart. ``:conv`` is a
#: convolution of any kind, ``:depthwise`` one whose input channels each have filters of
#: their own. ``:recurrent`` is a weight of torch's recurrent layers and cells,
#: ``:attention`` one of ``nn.MultiheadAttention``'s projections, ``:embedding`` a table of
#: ``nn.Embedding``.
SELECTORS = (
    ":first",
    ":last",
    ":conv",
    ":linear",
    ":depthwise",
    ":recurrent",
    ":attention",
    ":embedding",
)


def names_in_order(layers: Mapping[str, nn.Module]) -> list[str]:
    """Names of the layers that multiply, by which ``:first`` and ``:last`` go.

    Example:
        >>> names_in_order({"emb": nn.Embedding(9, 4), "head": nn.Linear(4, 9)})
        ['head']
    """
    return [name for name, layer in layers.items() if not _is_embedding(layer)]


def words(key: str, values: Any) -> tuple[str, ...]:
    """The list of texts that a key of a recipe's plain form holds.

    Raises:
        ValueError: it is something else.
    """
    is_list = isinstance(values, (list, tuple))
    if not is_list or not all(isinstance(value, str) for value in values):
        raise ValueError(f"recipe: {key} must be a list of texts, got {values!r}")
    return tuple(values)


def selects(pattern: str, name: str, layer: nn.Module, names: list[str]) -> bool:
    """True if a pattern selects a layer.

    Args:
        pattern: one of :data:`SELECTORS`, or a shell-style pattern of layer names.
        name: the layer's name in the model.
        layer: the layer.
        names: those of :func:`names_in_order`.

    Raises:
        ValueError: the pattern starts with ``:`` and is no selector.
    """
    if not pattern.startswith(":"):
        return fnmatchcase(name, pattern)
    if pattern not in SELECTORS:
        raise ValueError(
            f"unknown layer selector {pattern!r}; known: {', '.join(SELECTORS)}, "
            "or a pattern of layer names such as 'layer1.*'"
        )
    return {
        ":first": name in names[:1],
        ":last": name in names[-1:],
        ":conv": _is_convolution(layer),
        ":linear": isinstance(layer, nn.Linear),
        ":depthwise": _is_depthwise(layer),
        ":recurrent": _is_recurrent(layer),
        ":attention": _is_attention(layer),
        ":embedding": _is_embedding(layer),
    }[pattern]


@dataclass(frozen=True)
class Recipe:
    """The transforms of the operands of a model's products, layer by layer.

    Attributes:
        name: short name for tables and files.
        table: the table of every layer that nothing below excepts.
        overrides: ``(pattern, table)`` pairs; the first that selects a layer replaces
            the table for it. Patterns are those of :func:`selects`.
        dense: patterns of the layers left dense; they win over the overrides.
        products: patterns of the products that the model's own calls compute, attention
            and ``matmul`` among them, which the recipe reaches, too (``"*.qk"``; names
            are in :mod:`elision.layers.between.called`); ``overrides`` and ``dense``
            select among these.

    Example:
        >>> from elision.operands import Cast
        >>> from elision.products import Product
        >>> half = {"weight": Cast("bf16"), "input": Cast("bf16")}
        >>> mine = Recipe("mine", Table({Product.FORWARD: half}), dense=(":first",))
        >>> Recipe.from_toml(mine.to_toml()) == mine
        True
    """

    name: str
    table: Table = field(default_factory=Table)
    _: KW_ONLY
    overrides: tuple[tuple[str, Table], ...] = ()
    dense: tuple[str, ...] = ()
    products: tuple[str, ...] = ()

    #: BibTeX of the publication; methods set it.
    bibtex: ClassVar[str] = ""

    @property
    def changes(self) -> bool:
        """Whether any operand or sum is changed, in a layer that the recipe reaches."""
        return bool(self.table) or any(table for _, table in self.overrides)

    @property
    def patterns(self) -> tuple[str, ...]:
        """The patterns of layer names that the recipe holds."""
        return (*self.dense, *(pattern for pattern, _ in self.overrides))

    @property
    def loss_scaling(self) -> float | Literal["dynamic"] | None:
        """What the loss is multiplied by, so that small gradients stay in their format.

        ``"dynamic"``: what ``torch.amp.GradScaler`` finds. None: nothing.
        """
        return None

    def table_for(self, name: str, layer: nn.Module, names: list[str]) -> Table:
        """The table of one layer; an empty one if the layer is left dense.

        Args:
            name: the layer's name in the model.
            layer: the layer.
            names: those of :func:`names_in_order`.
        """
        return self._of_selected(lambda pattern: selects(pattern, name, layer, names))

    def table_of_call(self, name: str) -> Table:
        """The table of a product that the model's own call computes.

        An empty one unless :attr:`products` names it. Selectors select layers alone.

        Args:
            name: the product's.
        """
        if not any(fnmatchcase(name, pattern) for pattern in self.products):
            return Table()
        return self._of_selected(lambda pattern: fnmatchcase(name, pattern))

    def _of_selected(self, selected: Callable[[str], bool]) -> Table:
        """The table of what some patterns select."""
        if any(map(selected, self.dense)):
            return Table()
        for pattern, table in self.overrides:
            if selected(pattern):
                return table
        return self.table

    @property
    def tables_of_calls(self) -> tuple[Table, ...]:
        """The tables that a product of a call may have."""
        return (self.table, *(table for _, table in self.overrides))

    def resolved(self, layers: Mapping[str, nn.Module]) -> "Recipe":
        """This recipe for one model, where its tables depend on the layers' shapes.

        Args:
            layers: the layers that a recipe can reach, by name, in order.
        """
        del layers
        return self

    def prepare(self, model: nn.Module) -> None:
        """Give the state of a model that was just elided its first values."""

    def fitted(self, steps: int, given: Collection[str] = ()) -> Self:
        """This recipe for a run of ``steps`` steps; an own one is the same for all.

        Args:
            steps: number of training steps of the run.
            given: names of the parameters that stay as they are.
        """
        del steps, given
        return self

    def to_dict(self) -> dict[str, Any]:
        """The recipe as plain values: strings, numbers, booleans, lists and tables.

        Raises:
            ValueError: a transform of a class that is not in
                :data:`elision.operands.TRANSFORMS`.
        """
        return {
            "version": VERSION,
            "name": self.name,
            "dense": list(self.dense),
            "table": self.table.to_dict(),
            **self._selected_to_dict(),
        }

    def _selected_to_dict(self) -> dict[str, Any]:
        """What a recipe and a method write alike, where there is any."""
        rows = [{"layers": p, "table": t.to_dict()} for p, t in self.overrides]
        overrides = {"overrides": rows} if rows else {}
        return (
            {"products": list(self.products)} | overrides
            if self.products
            else overrides
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The recipe that :meth:`to_dict` wrote.

        A method's is read by the method's class, and either by
        :func:`elision.methods.recipe_from_dict`.

        Raises:
            ValueError: another version, an unknown key, transform or parameter, or a
                value out of its range.
        """
        check_version(values)
        keys = ("version", "name", "dense", "products", "table", "overrides")
        for key in values:
            lookup("key of a recipe", key, dict.fromkeys(keys))
        name = values.get("name")
        if not isinstance(name, str):
            raise ValueError(f"recipe: name must be a string, got {name!r}")
        return cls(
            name,
            Table.from_dict(values.get("table", {})),
            overrides=overrides_from_dict(values),
            dense=words("dense", values.get("dense", ())),
            products=words("products", values.get("products", ())),
        )

    def to_toml(self) -> str:
        """:meth:`to_dict` as TOML text.

        Raises:
            ValueError: as :meth:`to_dict`, or a parameter that TOML cannot hold.
        """
        return to_toml(self.to_dict())

    @classmethod
    def from_toml(cls, text: str) -> Self:
        """The recipe that :meth:`to_toml` wrote.

        Raises:
            ValueError: not TOML, or as :meth:`from_dict`.
        """
        return cls.from_dict(from_toml(text))

    def to_json(self) -> str:
        """:meth:`to_dict` as JSON text; errors are those of it."""
        return json.dumps(self.to_dict(), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The recipe that :meth:`to_json` wrote.

        Raises:
            ValueError: not JSON, or as :meth:`from_dict`.
        """
        return cls.from_dict(json.loads(text))

    def citation(self) -> str:
        """BibTeX of what this recipe implements; empty for one of your own."""
        return textwrap.dedent(self.bibtex).strip()

    def __str__(self) -> str:
        """The table, its overrides and the layers left dense."""
        parts = [self.name, str(self.table)]
        for pattern, table in self.overrides:
            parts.append(f"layers {pattern}:\n{table}")
        if self.dense:
            parts.append(f"left dense: {', '.join(self.dense)}")
        if self.products:
            parts.append(f"products of calls: {', '.join(self.products)}")
        return "\n".join(parts)


def check_version(values: Mapping[str, Any]) -> None:
    """Raise ValueError unless plain values are a recipe of this version."""
    if not isinstance(values, Mapping) or "version" not in values:
        raise ValueError("not a recipe: it has no version")
    if values["version"] != VERSION:
        raise ValueError(
            f"a recipe of version {values['version']!r}; this version of elision reads "
            f"{VERSION}"
        )


def overrides_from_dict(values: Mapping[str, Any]) -> tuple[tuple[str, Table], ...]:
    """The overrides of a recipe's plain values.

    Raises:
        ValueError: an override without its ``layers`` and ``table``.
    """
    rows = values.get("overrides", ())
    for row in rows:
        if not isinstance(row, Mapping) or set(row) != {"layers", "table"}:
            raise ValueError(f"overrides: needs layers and table, got {row!r}")
    return tuple((row["layers"], Table.from_dict(row["table"])) for row in rows)


#: What reads a recipe's text; the room of methods, which knows their names, gives it.
_readers: list[Callable[[str], Recipe]] = []


def read_names_with(reader: Callable[[str], Recipe]) -> None:
    """Have :func:`as_recipe` read text by ``reader``."""
    _readers[:] = [reader]


def as_recipe(given: Any) -> Recipe:
    """The recipe, or the one that a text names as on the command line.

    Args:
        given: a recipe, or text such as ``"swat:sparsity=0.8"``.

    Raises:
        TypeError: neither a recipe nor text.
        ValueError: the text names no recipe.

    Example:
        >>> import elision.methods
        >>> as_recipe("swat:sparsity=0.8") == elision.methods.Swat(0.8)
        True
    """
    if isinstance(given, Recipe):
        return given
    if not isinstance(given, str):
        raise TypeError(f"recipe must be a Recipe or text, got {type(given).__name__}")
    if not _readers:
        raise ValueError(
            f"recipe {given!r}: import elision.methods, which knows its name"
        )
    return _readers[0](given)
