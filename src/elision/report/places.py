"""Places of a Markdown page that a program fills, from code or from records.

A place begins with a line ``<!-- begin NAME -->`` and ends with ``<!-- end NAME -->``; the
rest of the page is written by hand.
"""

import argparse
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from elision.common.files import write_text

__all__ = ["filled", "write_or_check"]

_PLACE = re.compile(
    r"(?P<begin><!-- begin (?P<name>.+?) -->\n).*?(?P<end><!-- end (?P=name) -->)",
    re.DOTALL,
)


def filled(page: str, contents: Mapping[str, str]) -> str:
    r"""A page with all its places filled in.

    Args:
        page: Markdown.
        contents: what each place holds, by its name.

    Raises:
        ValueError: a place without a content or an end, or a content without a place.

    Example:
        >>> page = "Two:\n<!-- begin rows -->\n<!-- end rows -->\n"
        >>> filled(page, {"rows": "| 2 |"})
        'Two:\n<!-- begin rows -->\n| 2 |\n<!-- end rows -->\n'
        >>> filled(page, {"row": "| 2 |"})
        Traceback (most recent call last):
        ValueError: the page has the places ['rows'], the contents are of ['row']
    """
    places = {match["name"] for match in _PLACE.finditer(page)}
    begun = page.count("<!-- begin ")
    if places != contents.keys() or begun != len(places):
        raise ValueError(
            f"the page has the places {sorted(places)}, the contents are of "
            f"{sorted(contents)}"
        )

    def place(match: re.Match[str]) -> str:
        return f"{match['begin']}{contents[match['name']].strip()}\n{match['end']}"

    return _PLACE.sub(place, page)


def write_or_check(files: Mapping[Path, str]) -> None:
    """Write files that a program makes: the command line of such a program.

    Args:
        files: the text of each. With ``--check`` as its argument the program writes none.

    Raises:
        SystemExit: with ``--check``, a file has another text, and is named; or there are
            other arguments.
    """
    parser = argparse.ArgumentParser(description="Write anew what is made from others.")
    parser.add_argument("--check", action="store_true", help="write nothing; compare")
    check = parser.parse_args().check
    for path, text in files.items():
        if not check:
            write_text(path, text)
        elif not path.exists() or path.read_text("utf-8") != text:
            sys.exit(
                f"{path.name} is not what it is made from; run {Path(sys.argv[0]).name}"
            )
