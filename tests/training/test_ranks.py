"""Two processes train as one would, and resume to the last bit."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import torchrun
from training_ranks import RUNS, run

from elision.training import Execution, Ranks, RunPlan, train
from elision.training.loop import _Run

SCRIPT = Path(__file__).with_name("training_ranks.py")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """Each run's results, by name: of both ranks, as a whole and resumed."""
    folder = tmp_path_factory.mktemp("ranks")
    torchrun(str(SCRIPT), str(folder))
    found = json.loads((folder / "found.json").read_text())
    return found | {"told": json.loads((folder / "told.json").read_text())}


@pytest.mark.parametrize("name", RUNS)
def test_killed_and_resumed_is_the_same_run_on_every_rank(
    found: dict[str, list[Any]], name: str
) -> None:
    (whole, resumed), (other, other_resumed) = found[name]
    assert whole == resumed
    assert other == other_resumed
    # Both ranks hold one network and report what both did.
    assert other == whole


def test_ranks_that_meet_rarely_send_as_much_less(found: dict[str, list[Any]]) -> None:
    (whole, _), _ = found["outer"]
    # Fifteen steps, of which every fourth meets, in eight bits: between 4 * 4 and that
    # times what scales take; a gather between two sends as much as a sum.
    assert 15 < whole["sent_ratio"] < 24
    assert whole["history"][-1]["loss"] < whole["history"][0]["loss"]


def test_every_rank_ends_with_the_name_of_an_ill_gradient(
    found: dict[str, list[Any]],
) -> None:
    ended = (
        r"step 2: gradients that are not finite: rank 1 in '[\w.]+'( and \d+ more .*)?$"
    )
    assert all(re.match(ended, told) for told in found["told"]), found["told"]


def test_two_ranks_take_the_steps_of_one_process(found: dict[str, list[Any]]) -> None:
    (shared, _), _ = found["dense"]
    alone = run("dense", Ranks())
    assert shared["weights"] == pytest.approx(alone["weights"], rel=1e-3, abs=1e-4)
    for mine, one in zip(shared["history"], alone["history"], strict=True):
        assert mine["loss"] == pytest.approx(one["loss"], rel=1e-4)
        assert mine["test_accuracy"] == pytest.approx(one["test_accuracy"], abs=0.011)
    # The work of a metered step is counted whole, whoever did it.
    assert [w["dense_macs"] for w in shared["work"]] == [
        w["dense_macs"] for w in alone["work"]
    ]


@pytest.mark.parametrize(("size", "count"), [(8, 2), (9, 2), (7, 3), (2, 3)])
def test_shares_and_their_factors_make_the_mean_of_the_batch(
    size: int, count: int
) -> None:
    batch = torch.arange(float(size)) ** 2, torch.arange(size)
    shares = [Ranks(rank, count).share(batch) for rank in range(count)]
    means = [factor * part[0].mean() for part, factor in shares]
    assert torch.stack(means).mean() == pytest.approx(batch[0].mean())
    if size >= count:
        together = torch.cat([part[1] for part, _ in shares])
        assert torch.equal(together, batch[1])


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    with pytest.raises(ValueError, match="a batch of 48 cannot be shared by 64 proc"):
        run("dense", Ranks(0, 64))


def test_the_command_writes_one_folder_that_only_as_many_processes_continue(
    tmp_path: Path,
) -> None:
    command = (
        *("-m", "elision", "train", "--workload", "digits-cnn", "--epochs", "1"),
        *("--recipe", "swat", "--engine", "native", "--memory", "bits(4)"),
        *("--compress", "int8", "--out", str(tmp_path / "run")),
    )
    torchrun(*command)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["execution"] == {
        "engine": "native",
        "memory": "bits(4)",
        "compress": "int8",
        "processes": 2,
    }
    # Eight bits a value; a scale of 32 for each parameter, most of which are small.
    assert 3 < summary["recipes"]["swat"]["gradients_dense_over_sent"] < 4
    saved = summary["recipes"]["swat"]["saved_bytes"]
    assert saved["stored"] < 0.5 * saved["logical"]
    config = tomllib.loads((tmp_path / "run" / "config.toml").read_text())
    assert config["study"]["processes"] == 2
    assert (
        '<td>processes</td><td class="word">2</td>'
        in (tmp_path / "run" / "report.html").read_text()
    )
    with pytest.raises(AssertionError, match="holds a run with another processes"):
        torchrun(*command, ranks=3)


@pytest.mark.parametrize(
    ("changes", "ranks", "message"),
    [
        ({}, Ranks(), "one process sends no gradients; start two or more by torchrun"),
        ({"precision": "fp16"}, Ranks(0, 2), "under a dynamic loss scale"),
        ({"precision": "fp16", "outer": "diloco"}, Ranks(0, 2), "be out of step"),
        ({"outer": "dilocco"}, Ranks(0, 2), "did you mean 'diloco'"),
        (
            {"compress": "dgc"},
            Ranks(0, 2),
            "momentum 0.9 to the gradients, and the opt",
        ),
        ({"compress": "topk"}, Ranks(0, 2), "did you mean 'top-k'"),
    ],
)
def test_what_does_not_go_with_compressed_gradients_is_refused(
    changes: dict[str, str],
    ranks: Ranks,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Ranks, "wrapped", lambda _, model: model)
    monkeypatch.setattr("elision.training.loop.check_agreement", lambda _: None)
    workload, dense, _ = RUNS["dense"]
    data = workload.load_dataset()

    def start() -> None:
        execution = Execution(**{"compress": "top-k", **changes})
        train(workload, dense, data, RunPlan(), execution=execution, ranks=ranks)

    with pytest.raises(ValueError, match=message):
        start()


def test_every_rank_draws_its_own_numbers_and_rank_0_those_of_one_process() -> None:
    workload, method, execution = RUNS["dense"]
    data, plan, device = workload.load_dataset(), RunPlan(seed=3), torch.device("cpu")
    drawn, weights = [], []
    for rank in range(3):
        with torch.random.fork_rng():
            made = _Run(
                workload, method, data, plan, execution, Ranks(rank), device
            ).model
            drawn.append(torch.rand(8).tolist())
            weights.append(torch.cat([p.flatten() for p in made.parameters()]).tolist())
    with torch.random.fork_rng():
        torch.manual_seed(3)
        workload.make_model(data)
        alone = torch.rand(8).tolist()
    assert drawn[0] == alone
    assert len(set(map(tuple, drawn))) == 3
    assert weights[0] == weights[1] == weights[2]
