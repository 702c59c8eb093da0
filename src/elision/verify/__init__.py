"""Verified loop programs: a proof that two compute the same, or an input on which not."""

from elision.verify.checks import (
    Instance,
    Pair,
    initialised,
    keeps_dependences,
    within_bounds,
)
from elision.verify.equivalence import equivalent
from elision.verify.nests import Nest, program_of
from elision.verify.program import Program, ProgramError
from elision.verify.read import read
from elision.verify.run import run
from elision.verify.verdict import Verdict, Witness

__all__ = [
    "Instance",
    "Nest",
    "Pair",
    "Program",
    "ProgramError",
    "Verdict",
    "Witness",
    "equivalent",
    "initialised",
    "keeps_dependences",
    "program_of",
    "read",
    "run",
    "within_bounds",
]
