"""Texts in the cells of CSV files, in which a spreadsheet must find no formula."""

__all__ = ["cell", "in_cell"]

#: Characters that begin a formula in spreadsheets (OWASP, "CSV Injection"), and the one
#: that is put before them.
_FORMULAS, _MARK = ("=", "+", "-", "@", "\t", "\r"), "'"


def cell(text: str) -> str:
    """A text for a cell: of a name such as ``=1+1`` a spreadsheet computes nothing.

    Example:
        >>> cell("=1+1"), cell("conv1")
        ("'=1+1", 'conv1')
    """
    return f"{_MARK}{text}" if text.startswith(_FORMULAS) else text


def in_cell(text: str) -> str:
    """The text that :func:`cell` put into a cell.

    Example:
        >>> in_cell(cell("=1+1")), in_cell("'quoted'")
        ('=1+1', "'quoted'")
    """
    inner = text.removeprefix(_MARK)
    return inner if inner.startswith(_FORMULAS) else text
