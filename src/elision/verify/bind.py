"""Sizes of a program put in as numbers."""

from collections.abc import Mapping
from dataclasses import replace

from elision.verify.program import (
    Assign,
    Binary,
    Call,
    Element,
    Expression,
    Loop,
    Name,
    Node,
    Number,
    Program,
)

__all__ = ["bound"]


def bound(program: Program, sizes: Mapping[str, int]) -> Program:
    """The program with some of its sizes put in as numbers."""

    def of(e: Expression) -> Expression:
        if isinstance(e, Name):
            return Number(sizes[e.name]) if e.name in sizes else e
        if isinstance(e, Binary):
            return replace(e, left=of(e.left), right=of(e.right))
        if isinstance(e, Call):
            return replace(e, arguments=tuple(map(of, e.arguments)))
        if isinstance(e, Element):
            return replace(e, indices=tuple(map(of, e.indices)))
        return e

    def node(n: Node) -> Node:
        if isinstance(n, Assign):
            target = of(n.target)
            assert isinstance(target, Element)
            return replace(n, target=target, value=of(n.value))
        body = tuple(map(node, n.body))
        if isinstance(n, Loop):
            return replace(n, start=of(n.start), stop=of(n.stop), body=body)
        return replace(n, condition=of(n.condition), body=body)

    if not sizes:
        return program
    return Program(
        tuple(map(node, program.body)),
        tuple(map(of, program.assumptions)),
        tuple((a, tuple(map(of, extents))) for a, extents in program.extents),
    )
