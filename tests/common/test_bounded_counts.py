"""Numbers of 400 digits in a configuration: one line says what is allowed."""

from typing import Any

import pytest

from elision.methods import Fp8
from elision.products import Conv2dGeometry, MatmulGeometry
from elision.study import StudyConfig
from elision.training import RunPlan
from elision.workloads import Workload, make_model

HUGE = int("9" * 400)


@pytest.mark.parametrize(
    "field",
    ["batch_size", "epochs", "warmup", "train_images", "test_images", "milestones"],
)
@pytest.mark.parametrize("value", [HUGE, 10**12])
def test_a_count_of_a_workload_is_bounded(field: str, value: int) -> None:
    given: Any = {field: (value,) if field == "milestones" else value}
    with pytest.raises(ValueError, match=rf"{field}=\d+\): must be an integer in \["):
        Workload(name="mine", dataset="digits", model="mlp", **given)


def test_a_size_of_a_network_is_bounded() -> None:
    with pytest.raises(ValueError, match=r"width=\d+\): must be an integer in"):
        Workload(
            name="mine", dataset="digits", model="mlp", model_options={"width": HUGE}
        )
    with pytest.raises(ValueError, match=r"width=\d+\): must be an integer in"):
        make_model("mlp", width=10**12)


@pytest.mark.parametrize("field", ["seed", "seeds", "record", "samples", "epochs"])
def test_a_setting_of_a_study_is_bounded(field: str) -> None:
    given: Any = {field: HUGE}
    with pytest.raises(ValueError, match=rf"{field}=\d+\): must be an integer in \["):
        StudyConfig(workload="digits-mlp", **given)


def test_a_seed_fits_the_generators_of_torch() -> None:
    assert RunPlan(seed=2**62).seed == 2**62
    with pytest.raises(ValueError, match="seed=9"):
        RunPlan(seed=HUGE)


def test_a_size_of_a_product_is_bounded() -> None:
    with pytest.raises(ValueError, match="rows=9"):
        MatmulGeometry(HUGE, 1, 1)
    with pytest.raises(ValueError, match="batch=9"):
        Conv2dGeometry(HUGE, 1, 5, 5, 1, kernel=3)
    with pytest.raises(ValueError, match="stride must be an integer >= 1 and <= 2147"):
        Conv2dGeometry(1, 1, 5, 5, 1, kernel=3, stride=10**12)


def test_the_memory_of_a_delayed_scale_is_bounded() -> None:
    with pytest.raises(ValueError, match=r"history=\d+\): must be an integer in"):
        Fp8(history=10**12)
