"""The code and the commands of the documentation, as printed."""

import re
import shlex
from functools import partial
from pathlib import Path

import pytest
import torch
from page_commands import NOT_RUN, NOT_RUN_BLOCKS, run
from pages import PAGES, commands_of, examples_of, printed_as

from elision.cli.main import app
from elision.methods import METHODS

#: Packages of extras that pages use.
EXTRAS = ("pandas", "tensorboard", "timm", "torchvision")


@pytest.mark.parametrize(
    "page",
    # The gallery's blocks run in its own test, which looks for what they write.
    [page for page in PAGES if examples_of(page, run) and page.stem != "gallery"],
    ids=lambda page: page.stem,
)
@pytest.mark.usefixtures("own_files")
@pytest.mark.filterwarnings("ignore")  # of the compiler
def test_a_page_runs_from_top_to_bottom(
    page: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Generated code takes a minute to build and changes nothing that a page shows.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    known, random = dict(METHODS), torch.get_rng_state()
    try:
        for example in examples_of(page, run):
            example.namespace.setdefault("__name__", "page")
            example.evaluate()
    except ModuleNotFoundError as missing:
        if missing.name not in EXTRAS:
            raise
        pytest.skip(f"{missing.name}, which an extra installs, is not there")
    finally:  # a page may add a method
        METHODS.clear()
        METHODS.update(known)
        torch.set_rng_state(random)


def blocks_of_commands() -> list[str]:
    """The commands in blocks, page by page."""
    return [command for page in PAGES for command in commands_of(page)]


def test_what_is_not_run_is_somewhere() -> None:
    for start in NOT_RUN:
        assert any(command.startswith(start) for command in blocks_of_commands()), start


def commands() -> list[str]:
    """Commands in blocks and in backticks, those with an ellipsis or a placeholder not."""
    found = blocks_of_commands()
    for page in PAGES:
        found += re.findall(r"`(elision [^`]+)`", page.read_text(encoding="utf-8"))
    found = [" ".join(c.split()) for c in found if c.startswith("elision ")]
    placeholder = re.compile(r"\.\.\.|\b[A-Z]{3,}(_[A-Z]+)*\b")
    return sorted({c for c in found if not placeholder.search(c)})


@pytest.mark.parametrize("command", commands())
def test_a_command_takes_its_arguments(command: str) -> None:
    # A shell takes the output's file, and the files of settings are not there.
    words = shlex.split(re.sub(r" (--config|>) \S+", "", command))[1:]
    if words[-1:] == ["--help"] or words[0] == "--help":
        return
    app.parse_args(words, exit_on_error=False, print_error=False)


#: Languages of blocks that are run, compared or written, and those that are data.
LANGUAGES = (
    "python",
    "sh",
    "bash",
    "console",
    "text",
    "toml",
    "{toctree}",
    "{eval-rst}",
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_says_what_it_is(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    fences = re.findall(r"^ *```+(.*)$", text, re.MULTILINE)
    assert set(fences[::2]) <= {*LANGUAGES, *NOT_RUN_BLOCKS.get(page.stem, ())}


def test_a_table_ends_where_its_rows_end() -> None:
    swallowed = re.compile(r"^\|.*\n(?!\||\n|<!-- end )(.+)", re.MULTILINE)
    for page in PAGES:
        found = swallowed.search(page.read_text(encoding="utf-8") + "\n")
        assert found is None, f"{page.name}: a row is made of {found[1]!r}"


def test_what_a_page_shows_is_compared_but_for_what_varies() -> None:
    shown = "works  torch  ‹2.13›\n‹›\ntook ‹3.1› s, 5 layers\n"
    printed = "works  torch  2.15\nslow  cores\n -> more\ntook 0.2 s, 5 layers"
    assert printed_as(shown, printed)
    assert not printed_as(shown, printed.replace("5 layers", "6 layers"))
    assert not printed_as(shown, printed + "\nmore")
    assert not printed_as("a.c", "abc")
