"""elision reproduce: a command for each paper, its flags taken from the paper's fields."""

import sys
from collections.abc import Callable
from dataclasses import fields
from inspect import Parameter as Argument
from inspect import Signature
from pathlib import Path
from typing import Annotated, Any, get_origin, get_type_hints

from cyclopts import App, Parameter

from elision.cli.progress import Bar
from elision.common.files import write_text
from elision.study.page.paper import paper_page
from elision.study.papers import PAPERS, Paper

__all__ = ["reproduce"]

reproduce = App(name="reproduce")


def _command(paper: type[Paper]) -> Callable[..., None]:
    """The command of one paper: a flag for each of its fields, and ``--out``."""

    def command(*, out: Path | None = None, **parameters: Any) -> None:
        chosen = paper(**parameters)
        folder = out or Path("runs") / f"reproduce-{paper.key}"
        folder.mkdir(parents=True, exist_ok=True)
        with Bar() as bar:
            tables = chosen.run(
                folder,
                progress=lambda done, of: bar.step(f"reproduce {paper.key}", done, of),
                report=lambda line: print(line, file=sys.stderr),
            )
        write_text(folder / "report.html", paper_page(chosen, tables))
        print(f"{chosen.text(tables).rstrip()}\n\ntables: {folder}")

    help = f"Folder for the tables; default: runs/reproduce-{paper.key}."
    out = Annotated[Path | None, Parameter(help=help)]
    flags = [
        *_flags(paper),
        Argument("out", Argument.KEYWORD_ONLY, default=None, annotation=out),
    ]
    command.__signature__ = Signature(flags)  # pyright: ignore[reportFunctionMemberAccess]
    command.__annotations__ = {flag.name: flag.annotation for flag in flags}
    command.__doc__ = paper.__doc__
    return command


def _flags(paper: type[Paper]) -> list[Argument]:
    """A keyword argument for each field of the paper."""
    types, flags = get_type_hints(paper), []
    for field in fields(paper):  # pyright: ignore[reportArgumentType]
        kind = types[field.name]
        if get_origin(kind) is tuple:
            negative = f"--no-{field.name}" if field.metadata else ""
            kind = Annotated[kind, Parameter(consume_multiple=True, negative=negative)]
        flags.append(
            Argument(
                field.name,
                Argument.KEYWORD_ONLY,
                default=field.default,
                annotation=kind,
            )
        )
    return flags


for name, paper in PAPERS.items():
    reproduce.command(_command(paper), name=name)
