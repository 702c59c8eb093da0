"""Verified loop programs: a proof that two compute the same, or an input on which not."""

from elision.verify.equivalence import equivalent
from elision.verify.program import Program, ProgramError
from elision.verify.read import read
from elision.verify.run import run
from elision.verify.verdict import Verdict, Witness

__all__ = [
    "Program",
    "ProgramError",
    "Verdict",
    "Witness",
    "equivalent",
    "read",
    "run",
]
