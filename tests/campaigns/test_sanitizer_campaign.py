"""The short form of the sanitizers' campaign, and that no kernel is left out of it."""

import re
from pathlib import Path

import pytest
from campaigns.sanitized import KERNELS
from campaigns.sanitizers import SANITIZERS, why_not

from elision.native import builder


@pytest.fixture(autouse=True)
def best(monkeypatch: pytest.MonkeyPatch) -> None:
    """One variant: the best that this CPU runs."""
    monkeypatch.setenv("ELISION_VARIANT", builder.runnable_variants()[0])


def exported() -> set[str]:
    """Names of the C functions in the sources of the kernels."""
    found: set[str] = set()
    for source in Path(builder.__file__).with_name("kernels").glob("*.cpp"):
        text = source.read_text("utf-8")
        found.update(re.findall(r'^extern "C" [^(;{]*?(\w+)\(', text, re.M))
        for block in re.findall(
            r'^extern "C" \{(.*?)^\}  // extern', text, re.M | re.S
        ):
            found.update(re.findall(r"^\w[^(;{]*?(\w+)\(", block, re.M))
    return found


def test_every_function_of_the_kernels_is_tried() -> None:
    tried = {f"elision_{entry}" for each in KERNELS.values() for entry in each.entries}
    assert tried == exported()


@pytest.mark.parametrize("sanitizer", builder.SANITIZERS)
def test_planted_faults_are_seen(sanitizer: str) -> None:
    if reason := why_not(sanitizer):
        pytest.skip(reason)
    kind = f"planted under {sanitizer.partition(',')[0]}"
    row = SANITIZERS.kinds[kind](6, 0)
    assert row.bad == []
    assert row.counts == {"clean": 6}


@pytest.mark.parametrize(
    "name", ["accumulated", "sparse convolution", "recurrent", "between layers"]
)
def test_kernels_stay_in_their_memory(name: str) -> None:
    if reason := why_not("address,undefined"):
        pytest.skip(reason)
    row = SANITIZERS.kinds[f"{name} under address"](12, 0)
    assert row.bad == []
    assert row.counts == {"clean": 12}
    assert set(row.facts["calls"]) == set(KERNELS[name].entries)
