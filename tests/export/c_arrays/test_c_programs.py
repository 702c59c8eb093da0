"""C programs, compiled by the system's compiler, against the integer reference."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from elision.export import quantised
from elision.export.c_arrays import STRICT, c_compiler, c_program, run_c
from elision.export.graph import QuantisedGraph
from elision.workloads import make_model
from elision.workloads.models.mobilenet import InvertedResidual

pytestmark = pytest.mark.skipif(
    not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="no C compiler"
)

SANITIZED = ("-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


class Everything(nn.Module):
    """One of each operation that a graph may have, in odd sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.depth = nn.Conv2d(8, 8, (3, 1), padding=(2, 0), dilation=(2, 1), groups=8)
        self.grouped = nn.Conv2d(8, 4, 1, groups=2)
        self.squeeze = nn.Conv2d(12, 12, 1)
        self.last = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, 3, 11, 9) to (N, 5)."""
        x = torch.relu(self.first(x))
        y = nn.functional.relu6(self.depth(x)) + x
        y = torch.cat((y, nn.functional.hardswish(self.grouped(x))), 1)
        gate = torch.sigmoid(self.squeeze(y.mean((2, 3), keepdim=True)))
        y = y * gate
        z = nn.functional.pad(y[:, :8, ::2, ::2], (0, 0, 0, 0, 2, 2))
        y = nn.functional.max_pool2d(y, 3, 2, 1) + z
        y = nn.functional.avg_pool2d(y, 2, 1)
        return self.last(y.mean((2, 3)).flatten(1))


class Plane(nn.Module):
    """Reshapes, linear layers and a table between them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(30, 20), nn.Linear(20, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 5, 6) to (N, 3)."""
        return self.second(torch.tanh(self.first(x.flatten(1))))


def _graph(model: nn.Module, *shape: int, bits: int = 8) -> QuantisedGraph:
    return quantised(model, torch.randn(16, *shape), bits=bits)


GRAPHS: dict[str, Callable[[], QuantisedGraph]] = {
    "everything": lambda: _graph(Everything(), 3, 11, 9),
    "everything, 4 bits": lambda: _graph(Everything(), 3, 11, 9, bits=4),
    "plane": lambda: _graph(Plane(), 5, 6),
    "resnet8": lambda: _graph(make_model("resnet8", classes=10), 3, 16, 16),
    "inverted residuals": lambda: _graph(
        nn.Sequential(InvertedResidual(3, 8, 2, 1), InvertedResidual(8, 8, 1, 6)),
        *(3, 12, 12),
    ),
}


@pytest.mark.parametrize(
    ("name", "in_place"), [*((name, True) for name in GRAPHS), ("everything", False)]
)
def test_program_equals_the_integer_reference(name: str, in_place: bool) -> None:
    """Bit for bit, on codes of the whole range, under the sanitizers."""
    torch.manual_seed(0)
    graph = GRAPHS[name]()
    shape = graph.values[graph.input].shape
    codes = torch.randint(-128, 128, (4, *shape), dtype=torch.int8)
    program = c_program(graph, "net", in_place=in_place)
    found = run_c(program, codes, flags=SANITIZED)
    assert torch.equal(found, graph.run(codes).flatten(1))
    assert len(found.unique()) > 1


def test_arena_is_the_plan(tmp_path: Path) -> None:
    """The object file's data are the arena, its constants are the plan's flash."""
    graph = GRAPHS["everything"]()
    program = c_program(graph, "net")
    header, source = program.write(tmp_path)
    assert (
        f"#define NET_ARENA_BYTES {program.arena.arena_bytes}\n" in header.read_text()
    )
    made = tmp_path / "net.o"
    subprocess.run([c_compiler(), *STRICT, "-c", source, "-o", made], check=True)
    listed = subprocess.run(
        ["nm", "-S", made], capture_output=True, text=True, check=True
    ).stdout
    sizes: dict[str, int] = {}
    for line in listed.splitlines():
        if len(fields := line.split()) == 4:
            sizes[fields[3]] = int(fields[1], 16)
    assert sizes["arena"] == program.arena.arena_bytes
    arrays = ("weight_", "bias_", "mantissa_", "shift_", "table_")
    stored = sum(size for name, size in sizes.items() if name.startswith(arrays))
    assert stored == program.arena.flash_bytes
    assert program.arena.macs > 0


def test_in_place_needs_less() -> None:
    graph = GRAPHS["everything"]()
    saved, plain = (c_program(graph, in_place=way).arena for way in (True, False))
    assert saved.arena_bytes <= plain.arena_bytes
    assert saved.flash_bytes == plain.flash_bytes


def test_null_pointers_are_answered(tmp_path: Path) -> None:
    program = c_program(GRAPHS["plane"](), "net")
    _, source = program.write(tmp_path)
    main = tmp_path / "main.c"
    main.write_text(
        '#include <stddef.h>\n#include "net.h"\n'
        "int main(void) { int8_t x[NET_INPUT_BYTES] = {0}, y[NET_OUTPUT_BYTES];\n"
        "return net_run(NULL, y) == 1 && net_run(x, NULL) == 1 && net_run(x, y) == 0 "
        "? 0 : 1; }\n"
    )
    built = tmp_path / "main"
    subprocess.run([c_compiler(), *STRICT, source, main, "-o", built], check=True)
    assert subprocess.run([built], check=False).returncode == 0


@pytest.mark.parametrize("name", ["", "9net", "a-b", "int", "é"])
def test_names_that_are_no_identifiers(name: str) -> None:
    with pytest.raises(ValueError, match=r"must be a C identifier"):
        c_program(GRAPHS["plane"](), name)


def test_errors_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = GRAPHS["plane"]()
    program = c_program(graph)
    codes = torch.zeros(1, 5, 6, dtype=torch.int8)
    with pytest.raises(ValueError, match=r"codes must be int8, got torch\.float32"):
        run_c(program, codes.float())
    with pytest.raises(RuntimeError, match=r"failed \(1\)"):
        run_c(program, codes, flags=("-no-such-flag",))
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(FileNotFoundError, match=r"no C compiler \(no-such-compiler\)"):
        run_c(program, codes)
