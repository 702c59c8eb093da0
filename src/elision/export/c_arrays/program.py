"""A quantised graph as one C file and its header, with a static arena."""

import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from textwrap import wrap

from torch import Tensor

from elision.common.files import write_text
from elision.export.c_arrays.calls import call_of
from elision.export.graph import QuantisedGraph
from elision.export.operations import Reshape
from elision.export.planning.arena import Arena
from elision.export.planning.quantised import holder, plan_quantised

__all__ = ["CProgram", "c_program"]

_KEYWORDS = frozenset(
    (
        "auto", "break", "case", "char", "const", "continue", "default", "do", "double",
        "else", "enum", "extern", "float", "for", "goto", "if", "inline", "int", "long",
        "register", "restrict", "return", "short", "signed", "sizeof", "static", "struct",
        "switch", "typedef", "union", "unsigned", "void", "volatile", "while",
    )
)  # fmt: skip

#: Kernels that copy codes; the others rescale.
_COPIES = frozenset(("concatenate", "lookup", "maximum", "pad", "slice"))


@dataclass(frozen=True)
class CProgram:
    """A network in portable C99: weights as constant arrays, activations in one array.

    ``int NAME_run(const int8_t *input, int8_t *output)`` copies the input into the arena,
    computes every operation there and copies the output out; it returns 0, or 1 for a
    null pointer. It allocates nothing, calls nothing but ``memcpy`` and ``memset``, and is
    not reentrant, for the arena is static. Inputs and outputs are codes of int8 in torch's
    order, channels before rows; ``q`` stands for ``SCALE·(q − ZERO)``.

    Attributes:
        name: prefix of everything public.
        stem: name of the files without their ends.
        header: text of ``STEM.h``: sizes, scales, the function.
        source: text of ``STEM.c``.
        arena: the memory plan, whose offsets the program uses.

    Example:
        >>> import torch
        >>> from elision.export.quantise import quantised
        >>> graph = quantised(torch.nn.Linear(4, 2), torch.randn(8, 4))
        >>> program = c_program(graph, "tiny")
        >>> program.arena.arena_bytes, "int tiny_run(" in program.header
        (6, True)
    """

    name: str
    stem: str
    header: str
    source: str
    arena: Arena

    def write(self, folder: str | Path) -> tuple[Path, Path]:
        """Write ``STEM.h`` and ``STEM.c`` into a folder, which is made if missing.

        Returns:
            The two paths, header first.

        Raises:
            OSError: a file cannot be written; it is not there half.
        """
        where = Path(folder)
        where.mkdir(parents=True, exist_ok=True)
        header, source = where / f"{self.stem}.h", where / f"{self.stem}.c"
        write_text(header, self.header)
        write_text(source, self.source)
        return header, source


def c_program(
    graph: QuantisedGraph,
    name: str = "network",
    *,
    stem: str | None = None,
    in_place: bool = True,
) -> CProgram:
    """The C program of a quantised graph.

    Args:
        graph: int8 weights and activations.
        name: a C identifier, the prefix of all that is public.
        stem: name of the files without their ends; None: ``name``.
        in_place: additions, products and lookups may write over what they read.

    Raises:
        ValueError: the name is no C identifier, or a value has more than three axes.
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name) or name in _KEYWORDS:
        raise ValueError(
            f"target c: the name {name!r} must be a C identifier: letters, digits and _"
        )
    stem = name if stem is None else stem
    arena = plan_quantised(graph, in_place=in_place)
    offsets = {tensor.name: tensor.offset for tensor in arena.tensors}
    places = {value: f"arena + {offsets[at]}" for value, at in holder(graph).items()}
    position = {operation: i for i, operation in enumerate(arena.order)}
    steps = sorted(
        (o for o in graph.operations if not isinstance(o, Reshape)),
        key=lambda operation: position[operation.name],
    )
    body, arrays = [], []
    for index, operation in enumerate(steps):
        made = call_of(operation, index, graph, places)
        title = f"{operation.kind} {_comment(operation.name)}"
        body += [f"/* {title} */", *made.lines]
        arrays += [f"/* {title} */"] if made.arrays else []
        arrays += [_array(key, *value) for key, value in made.arrays.items()]
    kinds = sorted({operation.kind for operation in steps})
    source = [
        f"/* {_comment(graph.name)} in int8: see {stem}.h */",
        "#include <string.h>",
        "",
        f'#include "{stem}.h"',
        "",
        f"static int8_t arena[{name.upper()}_ARENA_BYTES];",
        "",
        *([_kernel("rescale")] if set(kinds) - _COPIES else []),
        *map(_kernel, kinds),
        *arrays,
        "",
        f"int {name}_run(const int8_t *input, int8_t *output)",
        "{",
        "    if (input == NULL || output == NULL)",
        "        return 1;",
        f"    memcpy({places[graph.input]}, input, {name.upper()}_INPUT_BYTES);",
        *(f"    {line}" for line in body),
        f"    memcpy(output, {places[graph.output]}, {name.upper()}_OUTPUT_BYTES);",
        "    return 0;",
        "}",
        "",
    ]
    header = _header(graph, name, arena)
    return CProgram(name, stem, header, "\n".join(source), arena)


def _header(graph: QuantisedGraph, name: str, arena: Arena) -> str:
    read, written = graph.values[graph.input], graph.values[graph.output]
    big = name.upper()
    sizes = {
        "INPUT_BYTES": read.bytes,
        "OUTPUT_BYTES": written.bytes,
        "ARENA_BYTES": max(arena.arena_bytes, 1),
        "CONSTANT_BYTES": arena.flash_bytes,
        "MACS": arena.macs,
        "INPUT_ZERO": read.zero,
        "OUTPUT_ZERO": written.zero,
    }
    shapes = " to ".join("x".join(map(str, v.shape)) for v in (read, written))
    return "\n".join(
        [
            f"/* {_comment(graph.name)} in int8, {shapes}.",
            "   A code q stands for SCALE * (q - ZERO); the order is torch's, channels",
            "   before rows. The arena is static: one call at a time. */",
            f"#ifndef {big}_H",
            f"#define {big}_H",
            "",
            "#include <stdint.h>",
            "",
            *(f"#define {big}_{key} {_number(value)}" for key, value in sizes.items()),
            f"#define {big}_INPUT_SCALE {read.scale:.9g}",
            f"#define {big}_OUTPUT_SCALE {written.scale:.9g}",
            "",
            "#ifdef __cplusplus",
            'extern "C" {',
            "#endif",
            "",
            "/* Codes of one input to codes of its output. Returns 0, or 1 for NULL. */",
            f"int {name}_run(const int8_t *input, int8_t *output);",
            "",
            "#ifdef __cplusplus",
            "}",
            "#endif",
            "",
            "#endif",
            "",
        ]
    )


def _number(value: int) -> str:
    return f"({value})" if value < 0 else str(value)


def _kernel(kind: str) -> str:
    return (
        resources.files("elision.export.c_arrays") / "kernels" / f"{kind}.c"
    ).read_text("utf-8")


def _array(name: str, kind: str, values: Tensor) -> str:
    numbers = values.reshape(-1).tolist()
    # INT32_MIN has no literal in C: it would be a long, negated.
    text = ", ".join("INT32_MIN" if n == -(2**31) else str(n) for n in numbers)
    lines = "\n".join(f"    {line}" for line in wrap(text, 92))
    return f"static const {kind} {name}[{len(numbers)}] = {{\n{lines}\n}};"


def _comment(text: str) -> str:
    """Text that cannot end a comment."""
    return text.replace("*/", "* /").replace("/*", "/ *").replace("\n", " ")
