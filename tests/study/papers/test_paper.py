"""Every paper has one shape: published figures with sources, flags with documentation."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from elision.cli.main import app
from elision.products import Conv2dGeometry
from elision.study.page.paper import paper_page
from elision.study.papers import PAPERS, Paper, Table, scnn
from elision.study.papers.scnn import ScnnPoints


@pytest.mark.parametrize("paper", PAPERS.values(), ids=PAPERS)
def test_published_figures_have_a_value_and_a_source(paper: type[Paper]) -> None:
    assert paper.title
    assert paper.published
    assert all(f.quantity and f.value and f.source for f in paper.published)


@pytest.mark.parametrize("paper", PAPERS.values(), ids=PAPERS)
def test_every_field_is_a_documented_flag(
    paper: type[Paper], capsys: pytest.CaptureFixture[str]
) -> None:
    _, _, attributes = (paper.__doc__ or "").partition("Attributes:\n")
    listed, _, _ = attributes.partition("\n\n")
    documented = re.findall(r"^        (\w+): ", listed, re.MULTILINE)
    names = [field.name for field in fields(paper)]
    assert documented == names
    app(["reproduce", paper.key, "--help"], result_action="return_value")
    shown = capsys.readouterr().out
    assert all(f"--{name.replace('_', '-')}" in shown for name in (*names, "out"))


def test_a_default_of_several_can_be_emptied_only_where_that_means_something(
    capsys: pytest.CaptureFixture[str],
) -> None:
    app(["reproduce", "ant", "--help"], result_action="return_value")
    shown = capsys.readouterr().out
    assert "--no-recorded" in shown
    assert "--no-network" not in shown


def test_the_page_keeps_published_and_own_figures_apart() -> None:
    own = [{"density": "0.1", "over dense": "12x"}]
    page = paper_page(ScnnPoints(density=(0.1,)), [Table("## Ours\n\nA <note>", own)])
    published, ours = page.split('<h2 id="ours">Ours</h2>')
    assert '<span class="tag">published</span>' in published
    assert "24x" in published
    assert "12x" not in published
    assert "A &lt;note&gt;" in ours
    assert "<td>12x</td>" in ours
    assert "Unstated by the sources" in ours
    assert "horowitz-45nm" in ours


def test_papers_are_listed_with_the_other_names(
    capsys: pytest.CaptureFixture[str],
) -> None:
    app(["data"], result_action="return_value")
    *_, listed = capsys.readouterr().out.splitlines()
    assert listed == f"papers (for reproduce): {', '.join(PAPERS)}"


def test_without_a_folder_the_files_go_to_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    geometry = Conv2dGeometry(1, 4, 16, 16, 8, 3, 1, 1)
    monkeypatch.setattr(scnn, "googlenet_layers", lambda: [("conv", geometry)])
    monkeypatch.chdir(tmp_path)
    app(["reproduce", "scnn", "--density", "0.4"], result_action="return_value")
    folder = Path("runs") / "reproduce-scnn"
    names = {path.name for path in folder.iterdir()}
    assert names == {"scnn.csv", "scnn.json", "report.html"}
    assert capsys.readouterr().out.endswith(f"\n\ntables: {folder}\n")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("ant --network VGG-17", "did you mean 'VGG-16'"),
        ("scnn --density 1.2", r"density=1.2\): must be a number in \(0, 1\]"),
        ("sparse-training --method rigl", "unknown method 'rigl'"),
        ("memory --batch 0", r"batch=0\): must be an integer >= 1"),
    ],
)
def test_wrong_parameters_are_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        app(["reproduce", *flags.split()], result_action="return_value")
    assert not any(tmp_path.iterdir())
