"""The kernels under AddressSanitizer and UndefinedBehaviorSanitizer.

In the variant of this CPU, with halves emulated where it does not multiply them, and in
the portable one; the one between shares their code.
"""

import subprocess
from pathlib import Path

import pytest

from elision.native import builder


@pytest.mark.parametrize("variant", ["best", "portable"])
def test_kernels_under_sanitizers(variant, tmp_path):
    if variant == "best":
        variant = builder.variant()
    try:
        compiler, _ = builder._compiler()
    except builder.BuildError as error:
        pytest.skip(str(error))
    drivers = sorted(map(str, Path(__file__).parent.glob("*_driver.cpp")))
    units = [str(p) for p in builder._sources() if p.suffix == ".cpp"]
    made = tmp_path / "driver"
    build = subprocess.run(
        [
            compiler,
            *("-std=c++17", "-O1", "-g", "-pthread", "-w"),
            *("-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
            *builder.VARIANTS[variant],
            "-DELISION_EMULATE_HALF",
            f"-I{Path(builder.__file__).parent / 'kernels'}",
            *(*drivers, *units, "-o", str(made)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if "cannot find" in build.stderr and "san" in build.stderr:
        pytest.skip("the compiler has no sanitizer libraries")
    assert build.returncode == 0, build.stderr
    run = subprocess.run([made], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
