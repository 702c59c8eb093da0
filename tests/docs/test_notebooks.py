"""The notebooks of the documentation run from top to bottom, and keep no outputs."""

import json
from pathlib import Path
from typing import Any

import pytest
from pages import ROOT

import elision

NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))

#: Seconds for one cell on a machine that does much else.
LONGEST_CELL_S = 300


def cells(notebook: Path) -> list[dict[str, Any]]:
    """The cells of a notebook's file."""
    return json.loads(notebook.read_text(encoding="utf-8"))["cells"]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_outputs_are_kept(notebook: Path) -> None:
    code = [cell for cell in cells(notebook) if cell["cell_type"] == "code"]
    assert len(code) > 3
    for cell in code:
        assert cell["outputs"] == []
        assert cell["execution_count"] is None


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
@pytest.mark.filterwarnings("ignore")  # of the kernel's sockets and event loop
def test_a_notebook_runs_from_top_to_bottom(
    notebook: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    # Its process, which is elsewhere, imports this copy of the library.
    monkeypatch.setenv("PYTHONPATH", str(Path(elision.__file__).parents[1]))
    read = nbformat.read(notebook, as_version=4)
    client = nbclient.NotebookClient(
        read,
        timeout=LONGEST_CELL_S,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    )
    done = client.execute()
    shown = [output for cell in done.cells for output in cell.get("outputs", ())]
    assert any("image/png" in output.get("data", {}) for output in shown)


def test_there_is_a_notebook() -> None:
    assert [notebook.stem for notebook in NOTEBOOKS] == ["first-study"]
