"""elision reproduce: a command for each paper, its flags those of the paper's fields.

The flags are read from the table of :mod:`elision.cli.parameters`, so that help loads no
paper.
"""

import sys
from collections.abc import Callable
from inspect import Parameter as Argument
from inspect import Signature
from pathlib import Path
from typing import Annotated, Any, get_origin

from cyclopts import App, Parameter

from elision.cli.flags import Integer
from elision.cli.parameters import papers
from elision.cli.progress import Bar

__all__ = ["reproduce"]

reproduce = App(
    name="reproduce", help="Write a published table beside our own numbers."
)

#: Types of a paper's fields, by their text in the table.
_TYPES: dict[str, Any] = {
    "str": str,
    "int": Integer,
    "float": float,
    "tuple[str, ...]": tuple[str, ...],
    "tuple[float, ...]": tuple[float, ...],
    "pathlib.Path | None": Path | None,
    "float | None": float | None,
}


def _command(key: str, doc: str, flags: list[list[Any]]) -> Callable[..., None]:
    """The command of one paper: a flag for each of its fields, and ``--out``."""

    def command(*, out: Path | None = None, **parameters: Any) -> None:
        from elision.common.files import write_text
        from elision.study.folder import own
        from elision.study.page.paper import paper_page
        from elision.study.papers import PAPERS

        chosen = PAPERS[key](**parameters)
        folder = out or Path("runs") / f"reproduce-{key}"
        with own(folder):
            with Bar() as bar:
                tables = chosen.run(
                    folder,
                    progress=lambda done, of: bar.step(f"reproduce {key}", done, of),
                    report=lambda line: print(line, file=sys.stderr),
                )
            write_text(folder / "report.html", paper_page(chosen, tables))
        print(f"{chosen.text(tables).rstrip()}\n\ntables: {folder}")

    help = f"Folder for the tables; default: runs/reproduce-{key}."
    out = Annotated[Path | None, Parameter(help=help)]
    arguments = [
        *(_argument(*flag) for flag in flags),
        Argument("out", Argument.KEYWORD_ONLY, default=None, annotation=out),
    ]
    command.__signature__ = Signature(arguments)  # pyright: ignore[reportFunctionMemberAccess]
    command.__annotations__ = {a.name: a.annotation for a in arguments}
    command.__doc__ = doc
    return command


def _argument(name: str, type: str, default: Any, may_be_empty: bool) -> Argument:
    """A field of a paper as a keyword argument."""
    kind = _TYPES[type]
    if get_origin(kind) is tuple:
        negative = f"--no-{name}" if may_be_empty else ""
        kind = Annotated[kind, Parameter(consume_multiple=True, negative=negative)]
        default = tuple(default)
    return Argument(name, Argument.KEYWORD_ONLY, default=default, annotation=kind)


for key, paper in papers().items():
    reproduce.command(_command(key, **paper), name=key)
