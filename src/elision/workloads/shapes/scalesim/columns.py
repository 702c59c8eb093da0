"""The columns of topology files, by the titles that files give them."""

from collections.abc import Sequence
from typing import NamedTuple

__all__ = [
    "CONVOLUTION",
    "DEPTHWISE",
    "PRODUCT",
    "Columns",
    "by_count",
    "by_title",
    "field_of",
]

#: Titles of the columns that a file must have, in SCALE-Sim's order.
CONVOLUTION = (
    "Layer name",
    "IFMAP Height",
    "IFMAP Width",
    "Filter Height",
    "Filter Width",
    "Channels",
    "Num Filter",
    "Strides",
)
PRODUCT = ("Layer", "M", "N", "K")

#: What marks the name of a depthwise layer.
DEPTHWISE = "DP"

#: What the columns hold, by their titles as :func:`field_of` spells them.
_FIELDS = {
    "layer name": "name",
    "layer": "name",
    "name": "name",
    "l": "name",
    "ifmap height": "height",
    "ifmap width": "width",
    "filter height": "kernel height",
    "filter width": "kernel width",
    "channel": "channels",
    "filter": "filters",
    "stride": "stride",
    "stride height": "stride",
    "stride width": "stride width",
    "batch": "batch",
    "batch size": "batch",
    "sparsity": "sparsity",
    "m": "rows",
    "n": "columns",
    "k": "inner",
}


class Columns(NamedTuple):
    """What the cells of a line are.

    Attributes:
        fields: name of what each cell holds; None: nothing that is read.
        titles: of the cells, for messages.
    """

    fields: tuple[str | None, ...]
    titles: tuple[str, ...]

    @property
    def is_product(self) -> bool:
        """Whether the lines are matrix products."""
        return "rows" in self.fields

    @property
    def needed(self) -> list[str]:
        """Titles of the columns that every line must fill."""
        return list(PRODUCT if self.is_product else CONVOLUTION)

    def title(self, field: str) -> str:
        """Title of the column that holds a field; of the strides for a second one."""
        known = field if field in self.fields else "stride"
        return self.titles[self.fields.index(known)]

    @property
    def unread(self) -> list[str]:
        """Titles of columns that are not read."""
        pairs = zip(self.fields, self.titles, strict=True)
        return [title for field, title in pairs if field is None and title]


def field_of(title: str) -> str | None:
    """What a column of this title holds; None: nothing that is read.

    Case, underscores, a plural, ``num`` and ``H`` or ``W`` for height or width make no
    difference.
    """
    words = title.lower().replace("_", " ").split()
    words = [word for word in words if word not in ("num", "number", "of")]
    words = [word.removesuffix("s") for word in words]
    words[-1:] = [{"h": "height", "w": "width"}.get(w, w) for w in words[-1:]]
    return _FIELDS.get(" ".join(words))


def by_title(titles: Sequence[str]) -> Columns | None:
    """The columns that a header names; None: it lacks one that is needed."""
    fields: list[str | None] = []
    for title in titles:
        field = field_of(title)
        if field == "width" and "width" in fields and "height" not in fields:
            fields[fields.index("width")] = "height"
        elif field == "stride" and "stride" in fields:
            field = "stride width"
        elif field in fields:
            field = None
        fields.append(field)
    for needed in (PRODUCT, CONVOLUTION):
        if all(field_of(title) in fields for title in needed):
            return Columns(tuple(fields), tuple(titles))
    return None


def by_count(cells: int) -> Columns:
    """The columns of a file without a header, by the number of cells of its first line."""
    titles = PRODUCT if cells == len(PRODUCT) else CONVOLUTION
    return Columns(tuple(map(field_of, titles)), titles)
