"""The doctor says what is wrong with a machine, and how to mend it."""

import json
import os
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import run

from elision.common.extras import Extra
from elision.energy.meters.rapl import Rapl
from elision.engines.native import library
from elision.native import builder, shared_object
from elision.study import doctor


def test_the_command_prints_every_finding_in_both_forms(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("doctor") == 0
    text = capsys.readouterr().out
    assert run("doctor --json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in found][:3] == ["elision", "torch", "cores"]
    for row in found:
        assert row["name"] in text
        assert row["state"] in ("works", "slow", "absent")
    (kernels,) = (row for row in found if row["name"] == "kernels")
    assert "a step agrees with torch's" in kernels["found"]


def test_what_is_promised_and_broken_ends_with_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = doctor.Finding("cache", "broken", "others can write", "chmod go-w")
    monkeypatch.setattr(doctor, "examined", lambda: [broken])
    assert run("doctor") == 1
    printed = capsys.readouterr()
    assert "-> chmod go-w" in printed.out
    assert "what is promised does not work here: cache" in printed.err


def test_a_cache_that_others_can_write_to_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.chmod(tmp_path, 0o777)
    monkeypatch.setenv("ELISION_CACHE", str(tmp_path))
    found = doctor._cache()
    assert (found.state, "others can write" in found.found) == ("broken", True)
    assert "ELISION_CACHE" in found.mend


def test_the_cache_s_size_counts_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "build").mkdir(mode=0o700)
    (tmp_path / "build" / "kernels.so").write_bytes(bytes(3 * 2**20))
    (tmp_path / "gone").symlink_to("nowhere")
    monkeypatch.setenv("ELISION_CACHE", str(tmp_path))
    tmp_path.chmod(0o700)
    found = doctor._cache()
    assert found.state == "works"
    assert "holds 3.0 MiB" in found.found


def test_without_a_compiler_everything_works_and_is_slow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert [doctor._compiler().state, doctor._kernels().state] == ["slow", "slow"]


def test_a_variant_beyond_the_cpu_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ELISION_VARIANT", "abacus")
    found = doctor._kernels()
    assert (found.state, found.mend) == ("broken", "unset ELISION_VARIANT")


def test_kernels_that_cannot_be_built_are_broken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shared_object, "unavailable", lambda: "no space")
    assert doctor._kernels().state == "broken"


@pytest.mark.parametrize("difference", [0.1, float("nan")])
def test_kernels_that_compute_something_else_are_broken(
    difference: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_kernel_difference", lambda: difference)
    assert doctor._kernels().state == "broken"


def test_kernels_of_an_older_compiler_are_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder, "variant", lambda: "another")
    assert doctor._kernels().state == "slow"


@pytest.mark.parametrize(
    ("owner", "product"),
    [
        (library.Weights, "forward"),
        (library.Weights, "input_grad"),
        (library, "weight_grad"),
    ],
)
def test_a_wrong_product_of_the_kernels_shows_in_the_step(
    owner: Any, product: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = getattr(owner, product)

    def wrong(*given: Any, **named: Any) -> Any:
        found = right(*given, **named)
        if isinstance(found, tuple):
            return found[0] * 1.01, *found[1:]
        return found * 1.01

    monkeypatch.setattr(owner, product, wrong)
    assert doctor._kernel_difference() > doctor._AGREES


def test_fewer_threads_than_cores_are_slow() -> None:
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(len(os.sched_getaffinity(0)) + 1)
        assert doctor._cores().state == "slow"
    finally:
        torch.set_num_threads(threads)


def test_numba_that_does_not_compile_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(function: object) -> object:
        raise ImportError("Numba needs another NumPy\nand more")

    monkeypatch.setattr("numba.njit", fails)
    assert doctor._numba().found == "Numba needs another NumPy"
    assert doctor._numba().state == "broken"


def test_flushed_denormals_are_said() -> None:
    if not torch.set_flush_denormal(True):
        pytest.skip("this CPU cannot flush denormals")
    try:
        assert "count as zero" in doctor._denormals().found
    finally:
        torch.set_flush_denormal(False)


def test_counters_that_are_there_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Rapl, "found", lambda: None)
    assert doctor._energy().state == "absent"
    monkeypatch.setattr(Rapl, "found", lambda: Rapl([]))
    assert doctor._energy().state == "works"


def test_extras_that_are_absent_or_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = Extra("timm", "networks", (), ("timm>=1",), ())
    differs = Extra("onnx", "graphs", (), (), ("onnx 1, where onnx>=2 is needed",))
    monkeypatch.setattr(doctor, "found_extras", lambda: [absent, differs])
    assert [f.state for f in doctor._extras()] == ["absent", "broken"]


def test_a_library_that_is_only_on_the_path_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails() -> list[Extra]:
        raise metadata.PackageNotFoundError("elision")

    monkeypatch.setattr(doctor, "found_extras", fails)
    (found,) = doctor._extras()
    assert "only on" in found.found or "not installed" in found.found


@pytest.mark.parametrize(
    ("reason", "state", "told"),
    [
        (None, "works", "Triton's kernels pack"),
        ("wrong results of masks", "slow", "torch packs saved activations"),
    ],
)
def test_a_gpu_is_judged_by_the_trial_of_its_kernels(
    reason: str | None, state: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    monkeypatch.setattr(doctor.on_gpu, "unavailable", lambda device: reason)
    found = doctor._gpu()
    assert found.state == state
    assert told in found.found
    assert reason is None or reason in found.found
