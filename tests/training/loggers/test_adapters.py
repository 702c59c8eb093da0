"""The adapters of loggers, by what their libraries read back from this machine's disk."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from elision.training import RunLog

MACHINE = "simulated/scnn:startup_cycles=5/total/cycles"


@pytest.fixture(autouse=True)
def _own_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_PROJECT", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))


def _log(spec: str, folder: Path) -> None:
    """A run of four steps, interrupted after the third."""
    for steps, ends in (((1, 2, 3), False), ((3, 4), True)):
        with RunLog(
            [spec],
            folder,
            name=("study", "swat-sparsity-0.9", "seed-0"),
            config={"recipe": "swat:sparsity=0.9", "seed": 0},
            first_step=1,
            resume=True,
        ) as log:
            for step in steps:
                log.scalars({"step/loss": 1 / step, "epoch": 0}, step)
            if ends:
                log.final({MACHINE: 1234.0}, 4)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_reads_every_step_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import (  # pyright: ignore[reportMissingImports]
        EventAccumulator,
    )

    _log(f"tensorboard:{tmp_path / 'board'}", tmp_path / "logs")
    assert not [r for r in caplog.records if r.name == "elision"]
    folder = tmp_path / "board" / "study" / "swat-sparsity-0.9" / "seed-0"
    events = EventAccumulator(str(folder)).Reload()
    values = {e.step: e.value for e in events.Scalars("step/loss")}
    assert len(events.Scalars("step/loss")) == 4
    assert values == {step: pytest.approx(1 / step) for step in (1, 2, 3, 4)}
    assert [e.value for e in events.Scalars(MACHINE)] == [1234.0]
    assert events.Tags()["tensors"] == ["configuration/text_summary"]


@pytest.mark.filterwarnings("ignore")
def test_mlflow_reads_every_step_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient  # pyright: ignore[reportMissingImports]

    _log("mlflow", tmp_path)
    assert not [r for r in caplog.records if r.name == "elision"]
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment: Any = client.get_experiment_by_name("elision")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.params == {"recipe": "swat:sparsity=0.9", "seed": "0"}
    assert run.info.status == "FINISHED"
    history = client.get_metric_history(run.info.run_id, "step/loss")
    assert {m.step: m.value for m in history} == {s: 1 / s for s in (1, 2, 3, 4)}
    assert len(history) == 4
    assert run.data.metrics[MACHINE.replace("=", "-")] == 1234.0


@pytest.mark.filterwarnings("ignore")
def test_wandb_stays_offline_without_a_key_and_keeps_every_step_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("wandb")
    _log("wandb:pruning", tmp_path)
    assert not [r for r in caplog.records if r.name == "elision"]
    files = sorted(tmp_path.glob("wandb/offline-run-*/*.wandb"))
    assert len(files) == 2
    assert len({file.name for file in files}) == 1, "both processes are one run"
    steps = [step for file in files for step in _steps(file)]
    assert steps == [1, 2, 3, 4]


def _steps(file: Path) -> list[int]:
    """Steps of the history in a file of wandb's."""
    from wandb.proto.wandb_internal_pb2 import (  # pyright: ignore[reportMissingImports]
        Record,
    )

    found = []
    for data in _records(file.read_bytes()):
        record = Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") == "history":
            found.append(record.history.step.num)
    return found


def _records(data: bytes) -> Iterator[bytes]:
    """Records of a file in LevelDB's log format, a header of 7 bytes before them.

    Blocks of 32 KiB hold parts of records: checksum (4 bytes), length (2), and type (1),
    which is whole, first, middle or last; a block's end too small for a part is padded
    (github.com/google/leveldb, doc/log_format.md).
    """
    block, head, place, parts = 32768, 7, 7, b""
    while place + head <= len(data):
        if block - place % block < head:
            place += block - place % block
            continue
        length, kind = struct.unpack_from("<HB", data, place + 4)
        parts += data[place + head : place + head + length]
        place += head + length
        if kind in (1, 4):
            yield parts
            parts = b""
