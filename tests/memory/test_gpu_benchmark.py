"""The benchmark of a GPU: one line where there is none, and rows where there is a device."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


@pytest.fixture(scope="module")
def gpu() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_benchmark", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["gpu_benchmark"] = module
    spec.loader.exec_module(module)
    return module


def test_without_a_gpu_it_says_what_it_needs():
    done = subprocess.run(
        [sys.executable, str(SCRIPT)],
        env={"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "needs an NVIDIA GPU of compute capability 8.0" in line


def test_every_section_measures_on_any_device(gpu, monkeypatch):
    bench = gpu.Bench(
        torch.device("cpu"), 2, "cnn", batch=2, image=16, elements=2**16, width=512
    )
    monkeypatch.setattr(gpu, "_ROUND", 0.0)
    monkeypatch.setattr(gpu, "RECIPES", ("swat",))
    monkeypatch.setattr(gpu, "POLICIES", ("bits(4)",))
    names = {"group 4-bit", "two-valued", "jpeg"}
    kept = {name: codec for name, codec in gpu.CODECS.items() if name in names}
    monkeypatch.setattr(gpu, "CODECS", kept)
    found = gpu.measured(bench, None, minutes=60)
    assert found["cut_short"] == []
    assert [row["of"] for row in found["steps"]] == [
        "cnn, dense",
        "cnn, swat",
    ]
    assert all(row["pack"]["GB_per_s"] > 0 for row in found["codecs"])
    assert [row["of"] for row in found["savers"]] == ["save_on_cpu", "bits(4)"]
    assert found["savers"][-1]["peak_ratio"] > 0
    assert len(found["sparse"]) == 8
    for row in found["sparse"]:  # the CPU has few of these products
        assert "refused" in row or row["relative_difference"] < 0.01
    assert gpu.measured(bench, "sparse", 0.0)["cut_short"] == ["sparse"]
