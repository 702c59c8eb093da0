"""The figures on the documentation page are the ones that the code gives."""

import json
import re
from pathlib import Path

import pytest
import torch
from own_workload import write_own_workload

from elision.cli import main as cli
from elision.common.specs import parse
from elision.workloads import DATASETS, MODELS, layer_shapes, make_model

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "workloads.md"
RECORDS = ROOT / "records" / "2026-11-21-default-workload"
ROW = re.compile(
    r"^\| `(\S+)` \| (\d+) \| (\d+) \| ([\d,]+) \| (\d+) \| ([\d,.]+) \|$", re.MULTILINE
)
ROWS = {row[0]: row[1:] for row in ROW.findall(PAGE.read_text(encoding="utf-8"))}


def test_the_page_lists_every_network_and_data_set():
    assert list(ROWS) == list(MODELS)
    page = PAGE.read_text(encoding="utf-8")
    assert all(f"`{name}`" in page for name in DATASETS)


@pytest.mark.parametrize("name", MODELS)
def test_a_row_of_the_page_is_what_the_network_has(name):
    side, classes = (int(v) for v in ROWS[name][:2])
    with torch.device("meta"):
        model = make_model(name, classes=classes, image_size=side)
    shapes = layer_shapes(model, (1, 3, side, side))
    parameters = sum(p.numel() for p in model.parameters())
    macs = sum(geometry.dense_macs for _, geometry in shapes)
    assert ROWS[name][2:] == (
        f"{parameters:,}",
        str(len(shapes)),
        f"{macs / 1e6:,.1f}",
    )


def test_the_accuracies_on_the_page_are_the_recorded_ones():
    rows = [
        f"| `{run['workload']}` | {run['recipe']} | {run['seed']} "
        f"| {' '.join(f'{100 * a:.1f}' for a in run['test_accuracy'])} "
        f"| {run['ratio_to_dense']:.2f} |"
        for file in RECORDS.glob("*.json")
        for run in json.loads(file.read_text(encoding="utf-8"))["runs"]
    ]
    on_page = re.findall(
        r"^\| `.* \| \d \| .* \| [\d.]+ \|$", PAGE.read_text(encoding="utf-8"), re.M
    )
    assert sorted(on_page) == sorted(rows)


def test_the_speeds_of_batches_on_the_page_are_the_recorded_ones():
    record = ROOT / "records" / "2026-11-29-recurrent" / "buckets.json"
    cells: dict[str, list[str]] = {}
    for run in json.loads(record.read_text(encoding="utf-8"))["runs"]:
        cell = f"{run['ratio']:.2f} ({run['ratio_by_tokens']:.2f})"
        cells.setdefault(run["scheme"], []).append(cell)
    page = PAGE.read_text(encoding="utf-8")
    assert set(cells.pop("random")) == {"1.00 (1.00)"}
    for scheme, row in cells.items():
        assert f"\n| {scheme} | {' | '.join(row)} |\n" in page


def test_your_own_data_and_network_as_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = PAGE.read_text(encoding="utf-8").partition("## Your own data and network")[2]
    page = page.partition("\n## ")[0]
    (file,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    (block,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli.app, "config", cli.app.config)
    monkeypatch.syspath_prepend(tmp_path)
    write_own_workload(tmp_path)
    Path("mine.toml").write_text(file)
    for file, out in (("mine.toml", "first"), ("first/workload.toml", "second")):
        with pytest.raises(SystemExit, match=r"^0$"):
            cli.main(["study", "--config", file, "--out", out])
    first, second = (Path(n, "summary.json").read_bytes() for n in ("first", "second"))
    assert first == second
    capsys.readouterr()
    exec(compile(block, "workloads.md", "exec"), {})
    assert re.search(r"^swat [\d.]+ ± [\d.]+ %$", capsys.readouterr().out, re.MULTILINE)


def test_the_table_of_networks_that_translate_is_what_they_have():
    rows = re.findall(
        r"^\| `gnmt\b.*?\| (\d+) \| (\d+) \| ([\d,]+) \| ([\d,]+) \|$",
        PAGE.read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    assert len(rows) == 4
    for layers, width, vocabulary, parameters in rows:
        with torch.device("meta"):
            model = make_model(
                "gnmt",
                layers=int(layers),
                width=int(width),
                vocabulary=int(vocabulary.replace(",", "")),
            )
        assert f"{sum(p.numel() for p in model.parameters()):,}" == parameters


def test_the_table_of_mlperf_tiny_is_what_its_networks_have() -> None:
    rows = re.findall(
        r"^\| .*? \| .*? \| `(.*?)` \| (\d)x(\d+)x(\d+) "
        r"\| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \|",
        PAGE.read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    assert len(rows) == 4
    for spec, *image, parameters, averages, thousand in rows:
        network = parse(spec)
        channels, height, width = map(int, image)
        with torch.device("meta"):
            model = make_model(
                network.name,
                in_channels=channels,
                image_size=(height, width),
                **network.named,
            )
        counted = sum(p.numel() for p in model.parameters())
        kept = sum(b.numel() for b in model.buffers() if b.dim())
        shapes = layer_shapes(model, (1, channels, height, width))
        macs = sum(geometry.dense_macs for _, geometry in shapes)
        assert parameters == f"{counted:,}"
        assert averages == f"{counted + kept:,}"
        assert thousand == f"{macs / 1e3:,.0f}"


def test_the_accuracies_of_small_networks_are_the_recorded_ones() -> None:
    record = ROOT / "records" / "2026-11-30-small-networks" / "presets.json"
    page = PAGE.read_text(encoding="utf-8")
    for run in json.loads(record.read_text(encoding="utf-8"))["runs"]:
        curve = " ".join(f"{100 * a:.1f}" for a in run["test_accuracy"])
        seconds = f"{run['processor_seconds']:.0f} s"
        assert f"\n| `{run['workload']}` | {curve} | {seconds} |\n" in page
