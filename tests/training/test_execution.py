"""Runs under each engine, policy and precision: they learn, and resume to the last bit."""

import json
from pathlib import Path

import pytest
import torch

from elision.methods import ReSprop, Swat
from elision.training import Execution, RunPlan, TrainResult, checkpoint, train
from elision.workloads import Workload

SMALL = Workload(
    name="small",
    dataset="digits",
    model="cnn",
    epochs=3,
    train_images=200,
    test_images=100,
    batch_size=48,
)
PLAN = RunPlan(seed=3, meter_every=2, record_epochs=(1,))

EXECUTIONS = {
    "torch": Execution(),
    "native in few bytes": Execution(engine="native", memory="bits(4)"),
    "a policy that learns": Execution(engine="auto", memory="guaranteed(0.1)"),
    "bf16": Execution(precision="bf16"),
    "fp16": Execution(precision="fp16", memory="exact"),
}


def run(execution: Execution, folder: Path | None = None) -> TrainResult:
    method = ReSprop(0.5) if execution.precision == "bf16" else Swat(0.8)
    return train(
        SMALL, method, SMALL.load_dataset(), PLAN, execution=execution, folder=folder
    )


def state(result: TrainResult) -> dict[str, torch.Tensor]:
    return dict(result.model.state_dict())


@pytest.mark.parametrize("execution", EXECUTIONS.values(), ids=EXECUTIONS)
def test_killed_after_any_epoch_and_resumed_is_the_same_run(
    execution: Execution, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, original = run(execution), checkpoint.save

    def killed(*args: object) -> None:
        original(*args)  # pyright: ignore[reportArgumentType]
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "save", killed)
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                run(execution, tmp_path)
    resumed = run(execution, tmp_path)
    assert resumed.history == whole.history
    assert resumed.saved_bytes == whole.saved_bytes
    assert resumed.meter.to_json() == whole.meter.to_json()
    values = state(resumed)
    assert all(torch.equal(v, values[name]) for name, v in state(whole).items())
    assert whole.history[-1].loss < whole.history[0].loss


def test_a_policy_keeps_fewer_bytes_and_changes_the_gradients() -> None:
    plain, packed = run(Execution()), run(Execution(memory="bits(4)"))
    assert plain.saved_bytes is None
    assert packed.saved_bytes is not None
    logical, stored = packed.saved_bytes
    assert stored < 0.5 * logical
    assert packed.history != plain.history


def test_precision_reaches_the_products() -> None:
    losses = {p: run(Execution(precision=p)).history[0].loss for p in ("fp32", "fp16")}
    assert losses["fp32"] != losses["fp16"]


def test_a_lossless_policy_changes_nothing() -> None:
    exact = run(Execution(memory="exact"))
    assert exact.history == run(Execution()).history


def test_the_scaler_of_fp16_is_in_the_checkpoint(tmp_path: Path) -> None:
    run(Execution(precision="fp16"), tmp_path)
    header = (tmp_path / checkpoint.CHECKPOINT).read_bytes()
    size = int.from_bytes(header[:8], "little")
    facts = json.loads(json.loads(header[8 : 8 + size])["__metadata__"]["elision"])
    # Five steps an epoch, none of them skipped.
    assert facts["scaler"]["_growth_tracker"] == 15


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"engine": "nativ"}, "unknown engine 'nativ' .did you mean 'native'"),
        ({"precision": "int3"}, r"Execution\(precision='int3'\): must be 'fp32' or"),
        ({"memory": "bit(4)"}, "unknown memory policy 'bit'"),
        ({"engine": "native", "device": "cuda"}, "engine native computes on the CPU"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Execution(**settings)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("cuda:77", "device 'cuda:77': this machine has"),
        ("gpu", "device 'gpu': not a device; give cpu, cuda"),
        ("meta", "device 'meta': not supported"),
    ],
)
def test_a_device_that_is_not_there(device: str, message: str) -> None:
    execution = Execution(device=device)
    with pytest.raises(ValueError, match=message):
        execution.torch_device()
