"""What masks did so far and will do: a report, and what a run left undone."""

from dataclasses import dataclass
from typing import Any

from elision.report.table import rows_as_html, rows_as_text
from elision.topology.rule import Rule
from elision.topology.weights import SparseWeight

__all__ = ["Outcome", "next_move", "shortcoming"]

#: Steps looked ahead for the next move.
_AHEAD = 100_000

#: A sparsity further from the one aimed at is far.
_FAR = 0.05


def next_move(rule: Rule, step: int) -> int | None:
    """The first step from ``step`` on in which masks may move; None if there is none."""
    last = rule.until()
    end = step + _AHEAD if last is None else min(last, step + _AHEAD)
    return next((t for t in range(step, end + 1) if rule.moves(t)), None)


def shortcoming(
    rule: Rule,
    name: str,
    weights: list[SparseWeight],
    dense: dict[str, tuple[int, ...]],
    steps: int,
    moves: int,
) -> str | None:
    """What a run of so many steps and moves did not do, in a sentence; None if all.

    Args:
        rule: what moves the masks.
        name: of the method.
        weights: those with masks.
        dense: shapes of those left dense, by layer name.
        steps: steps taken.
        moves: steps in which a mask moved.
    """
    if steps == 0:
        return None
    fit = f"attach(model, optimizer, steps={steps}) fits its schedule to this run"
    if rule.is_scheduled and moves == 0:
        due = next_move(rule, 1)
        first = f"; the first move is due in step {due:,}" if due else ""
        return f"the masks of {name} never moved in {steps:,} steps{first}: {fit}"
    goal = rule.goal(weights, dense)
    total = sum(weight.weight.numel() for weight in weights)
    reached = 1 - sum(weight.nnz for weight in weights) / total
    if goal is None or abs(goal - reached) <= _FAR:
        return None
    until = rule.until()
    how = f", whose last move is due in step {until:,}: {fit}" if until else ""
    return (
        f"{name} ends at sparsity {reached:.3f} after {steps:,} steps, its target is "
        f"{goal:.3f}{how}"
    )


@dataclass(frozen=True)
class Outcome:
    """Layers, counts and schedule of a model's masks, to be read.

    Attributes:
        name: of the method.
        rule: what moves the masks.
        weights: those with masks.
        left_dense: names of the layers within reach that have none.
        out_of_reach: names of the other weights.
        step: the coming step.
        moves: steps in which masks moved.

    Example:
        >>> import torch, elision
        >>> model = elision.elide(torch.nn.Linear(8, 4), elision.methods.RigL(0.5, dense=()))
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> topology = elision.topology.attach(model, optimizer)
        >>> Outcome("rigl", topology.rule, topology.weights, [], [], 1, 0).schedule()
        '0 steps, 0 with moves, next in step 100, until step 25,000'
    """

    name: str
    rule: Rule
    weights: list[SparseWeight]
    left_dense: list[str]
    out_of_reach: list[str]
    step: int
    moves: int

    def rows(self) -> list[dict[str, Any]]:
        """A row a layer, and one for all."""
        rows = [
            {
                "layer": w.name,
                "shape": "x".join(map(str, w.shape)),
                "active": f"{w.nnz:,}",
                "density": f"{w.density:.4f}",
            }
            for w in self.weights
        ]
        total = sum(w.weight.numel() for w in self.weights)
        nnz = sum(w.nnz for w in self.weights)
        everything = {"layer": "all of these", "shape": f"{total:,}"}
        return [
            *rows,
            {**everything, "active": f"{nnz:,}", "density": f"{nnz / total:.4f}"},
        ]

    def schedule(self) -> str:
        """Moves so far, the next one and the last."""
        taken = f"{self.step - 1:,} steps"
        if not self.rule.is_scheduled:
            return f"{taken}, no schedule of moves"
        due, last = next_move(self.rule, self.step), self.rule.until()
        coming = f"next in step {due:,}" if due else "none to come"
        until = f", until step {last:,}" if last else ""
        return f"{taken}, {self.moves:,} with moves, {coming}{until}"

    def line(self) -> str:
        """All in a line."""
        total = sum(w.weight.numel() for w in self.weights)
        nnz = sum(w.nnz for w in self.weights)
        return (
            f"{self.name}: {nnz:,} of {total:,} weights active in {len(self.weights)} "
            f"layers; {self.schedule()}"
        )

    def text(self) -> str:
        """The table and what is beside it."""
        return "\n".join([rows_as_text(self.rows()).rstrip(), *self._beside()])

    def html(self) -> str:
        """The same for a notebook."""
        beside = "".join(f"<div>{line}</div>" for line in self._beside())
        return f"{rows_as_html(self.rows())}{beside}"

    def _beside(self) -> list[str]:
        return [
            f"{self.name}: {self.schedule()}",
            f"layers left dense: {', '.join(self.left_dense) or 'none'}",
            f"weights out of reach, dense: {', '.join(self.out_of_reach) or 'none'}",
        ]
