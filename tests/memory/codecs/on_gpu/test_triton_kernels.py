"""Triton's kernels: interpreted, they are their torch versions; and they compile."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from elision.memory.codecs.cosine import cosine_transform

triton = pytest.importorskip("triton")


def test_interpreted_they_are_their_torch_versions():
    # Triton reads the variable when it is first imported.
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
            str(Path(__file__).with_name("interpreted_kernels.py")),
        ],
        env=os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


TYPES = {
    torch.float32: "fp32",
    torch.bfloat16: "bf16",
    torch.uint8: "u8",
    torch.int8: "i8",
    torch.int32: "i32",
    torch.int64: "i64",
}


def launched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, dict[str, Any]]]:
    """Kernels and arguments of every launch by the wrappers, none of which runs."""
    from elision.memory.codecs.on_gpu import compaction, group, jpeg, masks

    found: list[tuple[Any, dict[str, Any]]] = []

    def run(kernel: Any, *args: Any, grid: Any, warmup: bool, **named: Any) -> None:
        found.append((kernel, dict(zip(kernel.arg_names, args, strict=False)) | named))

    monkeypatch.setattr(triton.runtime.JITFunction, "run", run)
    monkeypatch.setattr(torch.Tensor, "new_empty", torch.Tensor.new_zeros)
    x = torch.randn(2, 3, 16, 16)
    flat, codes = x.view(-1), torch.zeros(2000, dtype=torch.uint8)
    low, step = torch.zeros(2, 24)
    for bits, support in ((4, False), (7, True)):
        group.quantise(flat, 64, bits, 1, True, support, codes, low, step)
        group.dequantise(codes, 64, bits, 1, True, support, low, step, flat)
    group.mask(codes, 64, 4, flat.bfloat16())
    masks.unpack(masks.pack(flat > 0), 9)
    ends = compaction.ends(compaction.compact(flat)[0], 9)
    compaction.spread(codes, ends, flat, 9)
    given = step[:3], cosine_transform(), torch.ones(8, 8)
    jpeg.restored(jpeg.transformed(x, *given), *given, x)
    return found


# Triton 3.7 compiles with what Python 3.14 deprecates.
@pytest.mark.filterwarnings("ignore:AnnAssign:DeprecationWarning")
@pytest.mark.parametrize("capability", [80, 90])
def test_every_kernel_compiles_ahead_of_time(capability, monkeypatch, tmp_path):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    launches = launched(monkeypatch)
    names = set()
    for kernel, given_ in launches:
        constants = {p.name: given_[p.name] for p in kernel.params if p.is_constexpr}
        signature = {
            name: "constexpr"
            if name in constants
            else f"*{TYPES[given_[name].dtype]}"
            if isinstance(given_[name], torch.Tensor)
            else "i32"
            for name in kernel.arg_names
        }
        source = triton.compiler.ASTSource(kernel, signature, constants)
        compiled = triton.compile(
            source,
            target=triton.backends.compiler.GPUTarget("cuda", capability, 32),
            options={"enable_fp_fusion": given_.get("enable_fp_fusion", True)},
        )
        assert len(compiled.asm["cubin"]) > 0
        names.add(kernel.__name__)
        if "enable_fp_fusion" in given_:
            assert "fma.rn" not in compiled.asm["ptx"]
        # Approximate division would not be torch's, nor would numbers that are cut off.
        assert not re.search(r"div\.(full|approx)|cvt\.rz\.bf16", compiled.asm["ptx"])
    assert names == {
        *("_quantise", "_dequantise", "_mask", "_pack", "_unpack"),
        *("_masked", "_counted", "_gathered", "_scattered", "_transform", "_restore"),
    }
