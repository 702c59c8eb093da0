"""Code made from listings beside torch, on this machine.

Every listing of the library is run in C++ at square matrix products, one of them ragged,
and at layers of ResNet-18; code and torch take turns in one process, on one thread unless
given. Rates are ratios of torch's seconds to the code's.

    python benchmarks/generated_code.py [--threads 1] [--calls 9] [--out FOLDER]
"""

import argparse
from pathlib import Path

from elision.accelerators.spatial.schedule import layer_sizes, read, sizes_in
from elision.common.files import write_json
from elision.engines.bench import machine
from elision.products import Conv2dGeometry
from elision.report.table import rows_as_text
from elision.study.schedules import compare_with_torch

PRODUCTS = {
    "256 x 256 x 256": {"M": 256, "N": 256, "K": 256},
    "512 x 512 x 512": {"M": 512, "N": 512, "K": 512},
    "1024 x 1024 x 1024": {"M": 1024, "N": 1024, "K": 1024},
    "1000 x 700 x 513": {"M": 1000, "N": 700, "K": 513},
}

#: The stride-1 layers of a ResNet-18 on 224x224 images, and one of stride 2.
LAYERS = {
    "64 @ 56x56": Conv2dGeometry(1, 64, 56, 56, 64, kernel=3, padding=1),
    "128 @ 28x28": Conv2dGeometry(1, 128, 28, 28, 128, kernel=3, padding=1),
    "256 @ 14x14": Conv2dGeometry(1, 256, 14, 14, 256, kernel=3, padding=1),
    "512 @ 7x7": Conv2dGeometry(1, 512, 7, 7, 512, kernel=3, padding=1),
    "128-256 /2 @ 28x28": Conv2dGeometry(
        1, 128, 28, 28, 256, kernel=3, stride=2, padding=1
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--calls", type=int, default=9)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    rows = []
    for listing in ("gemm.t2s", "gemm-two-level.t2s", "conv.t2s"):
        cases = PRODUCTS
        if listing == "conv.t2s":
            names = sizes_in(listing)
            cases = {n: layer_sizes(g, names).sizes for n, g in LAYERS.items()}
        for name, sizes in cases.items():
            found = compare_with_torch(
                read(listing, sizes), "cpp", given.threads, given.calls
            )
            rows.append({"listing": listing, "product": name, **found.row()})
            ratios = sorted(found.ratios)
            rows[-1]["spread"] = f"{ratios[0]:.2f} to {ratios[-1]:.2f}"
    print(rows_as_text(rows))
    if given.out is not None:
        given.out.mkdir(parents=True, exist_ok=True)
        facts = {"machine": machine(), "threads": given.threads, "calls": given.calls}
        write_json(given.out / "generated-code.json", facts | {"rows": rows})


if __name__ == "__main__":
    main()
