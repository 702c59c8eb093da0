"""A step of two real ranks beside its model: order of events, and who waits for whom."""

import json
from pathlib import Path
from typing import Any

import pytest
from overlap_ranks import LATE, net
from processes import torchrun

from elision.accelerators.design.schedule import Slice
from elision.report.scaling_figure import Step, steps_svg
from elision.report.timeline import chrome_trace

SCRIPT = Path(__file__).with_name("overlap_ranks.py")
SIZE = 4 * sum(p.numel() for p in net().parameters())


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each rank found."""
    folder = tmp_path_factory.mktemp("overlap")
    torchrun(str(SCRIPT), str(folder))
    return json.loads((folder / "found.json").read_text())


@pytest.mark.parametrize("name", ["plain", "bf16"])
def test_events_are_in_order_and_of_the_whole_model(
    found: list[dict[str, Any]], name: str
) -> None:
    for rank, step in enumerate(found[0][name]["steps"]):
        assert step["rank"] == rank
        times = [step[n] for n in ("start", "forward", "computed", "backward", "end")]
        assert times == sorted(times)
        layers, buckets = step["layers"], step["buckets"]
        assert [layer[0] for layer in layers] == ["2", "0"]
        ends = [time for layer in layers for time in layer[1:]]
        assert ends == sorted(ends)
        assert step["forward"] <= ends[0]
        assert ends[-1] == pytest.approx(step["computed"])
        assert sum(bucket[0] for bucket in buckets) == SIZE
        names = [name for bucket in buckets for name in bucket[4]]
        assert sorted(names) == ["0.bias", "0.weight", "2.bias", "2.weight"]
        for _, ready, sent, done, _ in buckets:
            assert ready <= sent <= done <= step["backward"]
        # A bucket is sent after those before it, and after its last gradient.
        assert [b[2] for b in buckets] == sorted(b[2] for b in buckets)
        assert max(b[1] for b in buckets) == pytest.approx(step["computed"])


def test_ranks_agree_on_the_report(found: list[dict[str, Any]]) -> None:
    one, other = found
    assert one["plain"] == other["plain"]
    assert one["link"] == other["link"]


def test_a_late_rank_is_waited_for(found: list[dict[str, Any]]) -> None:
    early, late = (each["late"] for each in found)
    by = late["begin"] - early["begin"]  # of one clock: both ranks are on one machine
    for before, after in zip(early["buckets"], late["buckets"], strict=True):
        sent_late = after[2] + by
        assert sent_late - before[2] > 0.9 * LATE
        assert before[3] >= sent_late
    assert early["backward"] - early["computed"] > 0.9 * LATE


@pytest.mark.parametrize("name", ["plain", "bf16"])
def test_the_model_is_of_the_same_buckets(
    found: list[dict[str, Any]], name: str
) -> None:
    each = found[0][name]
    for row, bucket in zip(each["table"], each["steps"][0]["buckets"], strict=True):
        assert row["size"] == bucket[0]
        assert row["joined"] >= row["sent"] >= row["ready"]
        assert row["took"] == pytest.approx(row["done"] - row["joined"])
        assert row["model_done"] - row["model_sent"] == pytest.approx(row["model_took"])
        assert row["model_took"] > 0
    assert all(x >= 0 for x in [*each["exposed_seconds"], *each["waited_seconds"]])
    shown = each["seconds"].index(sorted(each["seconds"])[1])
    waits = [
        max(bucket[3] for bucket in step["buckets"]) - step["computed"]
        for step in each["steps"]
    ]
    assert each["exposed_seconds"][shown] == pytest.approx(min(waits))
    assert each["waited_seconds"][shown] == pytest.approx(max(waits) - min(waits))
    middle = sorted(each["seconds"])[1]
    assert each["step_error"] == pytest.approx(each["model"]["step"] / middle - 1)
    assert each["model"]["compute"] == pytest.approx(
        sorted(each["silent_seconds"])[1] + sum(each["copies"])
    )
    assert len(each["model_timeline"]) == len(each["table"])


def test_the_trace_and_the_figure_hold_every_bucket(
    found: list[dict[str, Any]],
) -> None:
    each = found[0]["plain"]
    slices = {k: [Slice(*piece) for piece in own] for k, own in each["slices"].items()}
    assert list(slices) == ["rank 0, measured", "rank 1, measured", "model"]
    names = [event["name"] for event in chrome_trace(slices, "us")["traceEvents"]]
    count = len(each["table"])
    assert names.count("on the link") == 2 * count
    assert names.count("2: both gradients") == 2
    assert [f"bucket {n}" in names for n in range(count)] == [True] * count
    assert each["panels"] == ["Rank 0, measured", "Rank 1, measured", "Model"]
    drawn = steps_svg([Step(2, 1.0, [(0.0, 1.0, 2.0)], "One", [(0.0, 0.5)])])
    assert "gradients of a layer" in drawn
    assert "bucket 0" in drawn
    with pytest.raises(ValueError, match="at least one step"):
        steps_svg([])


def test_the_command_writes_what_it_measured(tmp_path: Path) -> None:
    words = "-m elision scale --measure --workload digits-mlp --rounds 2"
    words += " --compress powersgd:rank=2 --out"
    shown = torchrun(*words.split(), str(tmp_path)).stdout
    facts = json.loads((tmp_path / "overlap.json").read_text())
    assert facts["ranks"] == len(facts["steps"]) == 2
    assert "step: " in shown
    assert f"{facts['step_error']:+.1%}" in shown
    assert "exposed communication: " in shown
    lines = (tmp_path / "overlap.csv").read_text().splitlines()
    assert len(lines) == 1 + len(facts["steps"][0]["buckets"])
    trace = json.loads((tmp_path / "overlap.trace.json").read_text())
    assert trace["otherData"]["time_unit"] == "times in us"
    assert "Rank 1, measured" in (tmp_path / "overlap.svg").read_text()
