"""The code and the commands of the documentation, as printed."""

import re
import shlex
import textwrap
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from own_workload import write_own_workload

from elision.cli.main import app
from elision.methods import METHODS, Swat
from elision.native.builder import cache_folder

ROOT = Path(__file__).parents[2]
PAGES = (*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md")
#: Packages of extras that pages use.
EXTRAS = ("pandas", "timm", "torchvision")
BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path, *languages: str) -> list[str]:
    text = page.read_text(encoding="utf-8")
    return [
        textwrap.dedent(b) for _, kind, b in BLOCK.findall(text) if kind in languages
    ]


@pytest.fixture
def own_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files that the pages take for a user's own."""
    monkeypatch.chdir(tmp_path)
    # The kernels that are built already; a page of its own would build them again.
    monkeypatch.setenv("ELISION_CACHE", str(cache_folder()))
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.csv").write_text(
        "Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, "
        "Channels, Num Filter, Strides,\nconv, 10, 10, 3, 3, 4, 8, 1,\n"
    )
    write_own_workload(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    cifar = tmp_path / "data" / "cifar-10-batches-bin"
    cifar.mkdir(parents=True)
    records = np.zeros((20, 3073), dtype=np.uint8)
    records[:, 0] = np.arange(20) % 10
    for name in (*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"):
        records.tofile(cifar / f"{name}.bin")


@pytest.mark.parametrize(
    "page", [p for p in PAGES if blocks(p, "python")], ids=lambda page: page.stem
)
@pytest.mark.usefixtures("own_files")
@pytest.mark.filterwarnings("ignore")  # of the compiler
def test_the_code_of_a_page_runs_from_top_to_bottom(
    page: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Generated code takes a minute to build and changes nothing that a page shows.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    names: dict[str, Any] = {"__name__": "page"}
    known, random = dict(METHODS), torch.get_rng_state()
    try:
        for block in blocks(page, "python"):
            exec(compile(block, page.name, "exec"), names)
    except ModuleNotFoundError as missing:
        if missing.name not in EXTRAS:
            raise
        pytest.skip(f"{missing.name}, which an extra installs, is not there")
    finally:  # a page may add a method
        METHODS.clear()
        METHODS.update(known)
        torch.set_rng_state(random)


def commands() -> list[str]:
    """Commands in blocks and in backticks, those with an ellipsis or a placeholder not."""
    found: list[str] = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for block in blocks(page, "sh", "console", ""):
            lines = block.replace("\\\n", " ").splitlines()
            found += [line.removeprefix("$ ").partition("  #")[0] for line in lines]
        found += re.findall(r"`(elision [^`]+)`", text)
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


def test_the_table_is_the_one_that_is_printed() -> None:
    page = ROOT / "docs" / "the-one-idea.md"
    assert blocks(page, "text") == [f"{Swat(sparsity=0.9)}\n"]
