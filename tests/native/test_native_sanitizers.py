"""The kernels by drivers in C++ under AddressSanitizer and UndefinedBehaviorSanitizer.

In the variant of this CPU, with halves emulated where it does not multiply them. Drawn
shapes from Python's side, threads and the other variants are of
``campaigns/sanitizers.py``, which uses the same libraries.
"""

import subprocess
from pathlib import Path

import pytest

from elision.native import builder

#: For a machine that does much else (an own choice).
BUILD_SECONDS = 1800


def test_kernels_under_sanitizers(tmp_path):
    variant = builder.variant()
    sanitizer = builder.SANITIZERS["address,undefined"]
    try:
        compiler, _ = builder._compiler()
        library = builder.Build(variant, sanitizer, BUILD_SECONDS).library()
    except builder.BuildError as error:
        if "cannot find" in str(error) or "no C++ compiler" in str(error):
            pytest.skip(str(error))
        raise
    drivers = sorted(map(str, Path(__file__).parent.glob("*_driver.cpp")))
    made = tmp_path / "driver"
    build = subprocess.run(
        [
            compiler,
            *("-std=c++17", "-pthread", "-w", *builder.VARIANTS[variant], *sanitizer),
            f"-I{Path(builder.__file__).parent / 'kernels'}",
            *(*drivers, str(library), f"-Wl,-rpath,{library.parent}", "-o", str(made)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert build.returncode == 0, build.stderr
    run = subprocess.run([made], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
