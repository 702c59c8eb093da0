"""Text of a file or a user as a terminal, a table or a figure can show it."""

from html import escape

__all__ = ["escaped", "printable"]


def printable(text: str, keep: str = "") -> str:
    r"""The text, with what no character stands for written as in Python's literals.

    So no name of a layer moves a cursor, changes a colour or turns the line around.

    Args:
        text: any.
        keep: characters that stay, such as ``"\n"``.

    Example:
        >>> print(printable("layer\x1b[31m1 €"))
        layer\x1b[31m1 €
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else ascii(c)[1:-1] for c in text)


def escaped(text: str) -> str:
    r"""The text as HTML and SVG hold it: no markup, and no character that XML forbids.

    Args:
        text: any; its lines stay.

    Example:
        >>> print(escaped("<b>\x07</b>"))
        &lt;b&gt;\x07&lt;/b&gt;
    """
    return escape(printable(text, keep="\n\t"))
