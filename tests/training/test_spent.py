"""Energy of a run: every process adds to it, no result depends on it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from elision.energy import Energy
from elision.methods import Dense
from elision.training import Ranks, RunPlan, TrainingDivergedError, TrainResult, train
from elision.training.checkpoint import CHECKPOINT, EpochMetrics
from elision.training.spent import (
    SPENT,
    EpochEnergy,
    Spent,
    read_spent,
    spent_under,
    together,
)
from elision.workloads import Workload

SMALL = Workload(
    name="small",
    dataset="digits",
    model="mlp",
    epochs=2,
    batch_size=16,
    train_images=160,
    test_images=20,
)


def run(
    folder: Path | None = None,
    progress: Callable[[int, int, EpochMetrics | None], None] | None = None,
    workload: Workload = SMALL,
) -> TrainResult:
    return train(
        workload,
        Dense(),
        SMALL.load_dataset(),
        RunPlan(),
        folder=folder,
        progress=progress,
    )


class Killed(Exception):
    """Raised by a test in the middle of an epoch."""


def killer(at: int) -> Callable[[int, int, EpochMetrics | None], None]:
    def progress(done: int, total: int, metrics: EpochMetrics | None) -> None:
        if done == at and metrics is None:
            raise Killed

    return progress


def test_every_epoch_has_its_energy_and_its_plain_steps() -> None:
    spent = run().spent
    assert list(spent) == [0, 1]
    for epoch in spent.values():
        assert epoch.energy.cpu_seconds > 0
        assert epoch.energy.methods
        assert epoch.step_cpu_seconds is not None
        assert 0 < epoch.step_cpu_seconds < epoch.energy.cpu_seconds
    assert [e.plain_steps for e in spent.values()] == [8, 9]  # steps 0, 8, 16 metered


def test_processes_add_up_and_results_stay(tmp_path: Path) -> None:
    """An epoch that is begun again costs both beginnings."""
    whole = run(tmp_path / "whole")
    with pytest.raises(Killed):
        run(tmp_path / "part", killer(15))
    first = read_spent(tmp_path / "part")
    assert list(first) == [0, 1]
    with pytest.raises(Killed):
        run(tmp_path / "part", killer(17))
    second = read_spent(tmp_path / "part")
    part = run(tmp_path / "part")
    assert second[0] == first[0] == part.spent[0]
    seconds = [s[1].energy.cpu_seconds for s in (first, second, part.spent)]
    assert 0 < seconds[0] < seconds[1] < seconds[2]
    assert part.history == whole.history
    one, other = (tmp_path / name / CHECKPOINT for name in ("whole", "part"))
    assert one.read_bytes() == other.read_bytes()
    # Asked for once more, the run is finished: nothing is spent, all is known.
    assert run(tmp_path / "part").spent == part.spent == read_spent(tmp_path / "part")


def test_a_run_that_diverges_has_cost_what_it_cost(tmp_path: Path) -> None:
    with pytest.raises(TrainingDivergedError) as caught:
        run(tmp_path, workload=replace(SMALL, learning_rate=1e30))
    assert caught.value.result is not None
    assert caught.value.result.spent == read_spent(tmp_path)
    assert read_spent(tmp_path)[0].energy.cpu_seconds > 0


def test_a_folder_of_an_older_run_goes_on_without_its_energy(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        run(tmp_path, killer(15))
    (tmp_path / SPENT).unlink()
    assert list(run(tmp_path).spent) == [1]


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", '{"epochs": {"0": {}}}', '{"epochs": {"a": {}}}', '{"epochs": 3}'),
        "[" * 100_000,
    ],
)
def test_a_damaged_account_is_told_in_a_line_and_stops_nothing(
    tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(Killed):
        run(tmp_path, killer(15))
    (tmp_path / SPENT).write_text(text)
    assert list(run(tmp_path).spent) == [1]
    (line,) = caplog.messages
    assert "is no account of a run's energy" in line
    assert "\n" not in line
    assert list(read_spent(tmp_path)) == [1]  # written anew


def test_runs_below_a_folder_are_added(tmp_path: Path) -> None:
    assert spent_under(tmp_path) is None
    runs = [run(tmp_path / name) for name in ("a", "b/deep")]
    found = spent_under(tmp_path)
    assert found is not None
    expected = sum(e.energy.cpu_seconds for r in runs for e in r.spent.values())
    assert found.cpu_seconds == pytest.approx(expected)


def counter(joules: float, scope: str = "machine") -> Energy:
    return Energy(joules, joules, ("counter",), scope, joules, joules)


def test_ranks_of_a_machine_share_its_counter_and_machines_add() -> None:
    ranks = [(0, counter(5)), (1, counter(6)), (0, counter(7)), (1, counter(8))]
    both = together(ranks)
    assert both.low_joules == both.high_joules == 5 + 7
    assert both.cpu_seconds == 5 + 6 + 7 + 8
    assert both.wall_seconds == 8
    processes = together([(0, counter(5, "process")), (1, counter(6, "process"))])
    assert processes.low_joules == 11


def test_the_account_of_an_epoch_gathers_the_ranks(tmp_path: Path) -> None:
    class Two(Ranks):
        def gather(self, value: Any) -> list[Any]:
            return [value, (1, counter(1000, "process"))]

    spent = Spent(tmp_path, Two(count=2), torch.device("cpu"))
    with spent.epoch(0):
        pass
    assert spent.epochs[0].energy.cpu_seconds >= 1000
    assert read_spent(tmp_path) == spent.epochs
    assert EpochEnergy.from_dict(spent.epochs[0].to_dict()) == spent.epochs[0]
