"""Specs of recipes, machines, policies and probes: one rule for the types of values."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from elision.accelerators import ACCELERATORS
from elision.common.specs import resolve
from elision.memory.policies.presets import PRESETS
from elision.methods import METHODS
from elision.study import StudyConfig, added_to
from elision.study.folder import claimed
from elision.study.probes import PROBES

TABLES: dict[str, Mapping[str, Callable[..., Any]]] = {
    "accelerator": ACCELERATORS,
    "recipe": METHODS,
    "memory policy": PRESETS,
    "probe": PROBES,
}


@pytest.mark.parametrize(
    ("kind", "spec", "said"),
    [
        ("accelerator", "systolic:rows=2.5", "systolic(rows=2.5): must be an integer"),
        ("accelerator", "scnn:grid=8", "scnn(grid=8): must be 2 integers"),
        ("recipe", "rigl:every=2.5", "rigl(every=2.5): must be an integer"),
        ("recipe", "meprop(0.1, unified=2)", "meprop(unified=2): must be yes or no"),
        ("recipe", "swat:threshold=8", "must be 'exact' or 'sampled'"),
        ("recipe", "gradual:sparsity=yes", "gradual(sparsity='yes'): must be a number"),
        ("memory policy", "bits(true)", "bits(average=True): must be a number"),
        ("memory policy", "expected(0.1, batch_norm=1)", "batch_norm=1): must be text"),
        ("probe", "memory:batches=1.5", "memory(batches=1.5): must be an integer"),
        ("probe", "stationarity:curvature=3", "(curvature=3): must be yes or no"),
    ],
)
def test_a_value_of_another_type_is_refused_everywhere(
    kind: str, spec: str, said: str
) -> None:
    with pytest.raises(ValueError, match=f"^{kind} ") as error:
        resolve(kind, spec, TABLES[kind], given=("model",))
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("kind", "spec", "expected"),
    [
        ("accelerator", "systolic:zero_gating=no", {"zero_gating": False}),
        ("recipe", "rigl:replaces_step=off", {"replaces_step": False}),
        ("probe", "stationarity:curvature=yes", {"curvature": True}),
        ("recipe", "meprop(3)", {"keep": 3}),
        ("memory policy", "bits(4)", {"average": 4.0}),
        ("accelerator", "ant:group=none", {"group": None}),
        ("accelerator", "systolic:buffers=512/256/64@8", {"buffers": "512/256/64@8"}),
    ],
)
def test_a_value_means_what_its_parameter_declares(
    kind: str, spec: str, expected: dict[str, Any]
) -> None:
    _, found = resolve(kind, spec, TABLES[kind], given=("model",))
    assert found == expected
    assert [type(v) for v in found.values()] == [type(v) for v in expected.values()]


def test_what_a_run_has_may_be_named_again_in_the_other_notation(
    tmp_path: Path,
) -> None:
    config = StudyConfig(recipes=("swat:sparsity=0.9",), accelerators=("ant",))
    plain = {k: v for k, v in config.to_dict().items() if v is not None}
    with claimed(tmp_path, plain):
        pass
    again = added_to(tmp_path, recipes=["swat(0.9)", "dense"], accelerators=["ant()"])
    assert again.recipes == ("swat:sparsity=0.9", "dense")
    assert again.accelerators == ("ant",)
