"""C arrays: a quantised network as portable C99 with a static, planned arena."""

from elision.export.c_arrays.program import CProgram, c_program
from elision.export.c_arrays.running import STRICT, c_compiler, run_c, run_source

__all__ = ["STRICT", "CProgram", "c_compiler", "c_program", "run_c", "run_source"]
