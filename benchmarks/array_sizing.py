"""Buffers without stalls, and the best array shape, for six networks; nothing is timed.

python benchmarks/array_sizing.py records/2026-11-21-intergrad
"""

import sys
from dataclasses import asdict
from pathlib import Path

from elision.accelerators import InterGrad, Systolic
from elision.accelerators.sizing import array_shapes, smallest_buffers
from elision.files import write_json
from elision.report.array_shapes import save_array_shapes
from elision.shapes.networks import NETWORKS, network

SIDE, BATCH, WORDS_PER_CYCLE, TOLERANCE = 64, 4, 64.0, 0.01


def main(folder: Path) -> None:
    """Print both tables, write ``array_sizing.json`` and a figure per network."""
    folder.mkdir(parents=True, exist_ok=True)
    machines = {
        "WS": Systolic(SIDE, SIDE, "ws"),
        "OS": Systolic(SIDE, SIDE, "os"),
        "InterGrad": InterGrad(SIDE, SIDE),
    }
    sizings, shapes = [], []
    print(f"{SIDE}x{SIDE} PEs, batch {BATCH}, {WORDS_PER_CYCLE:g} DRAM words a cycle")
    print("network       machine    input  weight  output KiB   stalls   best shape")
    for name in NETWORKS:
        layers = network(name, BATCH)
        for label, machine in machines.items():
            found = smallest_buffers(machine, layers, WORDS_PER_CYCLE, TOLERANCE)
            drawn = array_shapes(machine, layers)
            best = min(drawn, key=lambda shape: shape.cycles)
            sizes = [f"{kib:7g}" for kib in found.buffers.sizes_kib.values()]
            stalled = found.stall_cycles / found.cycles
            print(
                f"{name:13s} {label:10s} {' '.join(sizes)}      {stalled:8.1%}"
                f"      {best.rows}x{best.columns}"
            )
            where = {"network": name, "machine": label}
            sizings.append({**where, **asdict(found)})
            shapes += [{**where, **asdict(shape)} for shape in drawn]
        title = f"{name}, InterGrad, {SIDE * SIDE:,} PEs, one step of batch {BATCH}"
        save_array_shapes(drawn, folder / f"array-shapes-{name}.svg", title)
    write_json(folder / "array_sizing.json", {"sizings": sizings, "shapes": shapes})


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
