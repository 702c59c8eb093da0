"""Knapsack with one choice of each class: the least loss that a budget pays for.

With choice ``k`` of class ``l`` come a loss ``Ω_l(k)`` and a cost ``c_l(k)``::

    minimise  sum_l Ω_l(k_l)   so that   sum_l c_l(k_l) <= budget

Classes are taken one after another. Of the partial choices made so far only those are
kept that no other one beats in both sums, and that can still end below the best complete
choice known: the rest of the classes costs at least what the linear relaxation says, where
a class may be split between two neighbours on its lower convex hull (Sinha and Zoltners,
The Multiple-Choice Knapsack Problem, Operations Research 27, 1979). So ``K^L`` choices of
``L`` classes come down to a few thousand. Where losses are almost a line over the costs the
bounds tell nothing apart; then, after a million partial choices, those of the lowest
bounds go on. Several budgets at once go to HiGHS (``scipy.optimize.milp``), the gap closed.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from elision.common.checks import number

__all__ = ["knapsack"]

#: A budget that is met but for rounding is met.
_ROOM = 1 + 1e-9

#: What a bound may be off by rounding, relative to the sum of all losses' magnitudes.
_ROUNDING = 1e-12

#: Partial choices looked at before a layer keeps but those of the lowest bounds, and
#: how many these are (own choices: some tenths of a second).
_WORK, _FEW = 1_000_000, 1_000

Classes = Sequence[Sequence[float]]


def knapsack(
    costs: Classes | Mapping[str, Classes],
    losses: Classes,
    budget: float | Mapping[str, float],
) -> list[int]:
    """The choice of each layer of least summed loss whose summed cost is in the budget.

    Of equal losses the one of least cost is taken, of equal costs the one with the first
    choices, layer after layer; sums are taken in the order of the layers. Several budgets:
    exact to a millionth of the largest loss, ties as HiGHS breaks them, at every call alike.

    Args:
        costs: of each layer, that of each choice, finite and not negative; or several
            kinds of cost by name.
        losses: of each layer, that of each choice, in the same order; finite.
        budget: most that the costs may sum to, up to one part in 10⁹; of each kind where
            there are several.

    Returns:
        The index of a choice for each layer.

    Raises:
        ValueError: costs and losses of different shapes, a layer without a choice, a value
            that is not finite, or a budget that nothing meets (says the least possible).

    Example:
        >>> losses = [(0, 1, 6), (0, 2, 3), (0, 0.5, 4)]
        >>> knapsack([(8, 4, 2), (16, 8, 4), (8, 4, 2)], losses, budget=24)
        [1, 0, 1]
    """
    kinds = costs if isinstance(costs, Mapping) else {"cost": costs}
    budgets = budget if isinstance(budget, Mapping) else {"cost": budget}
    if isinstance(costs, Mapping) != isinstance(budget, Mapping) or kinds.keys() != (
        budgets.keys()
    ):
        raise ValueError(
            f"knapsack: costs of {', '.join(kinds)} need a budget each, got "
            f"{', '.join(budgets)}"
        )
    lost = _arrays("losses", losses)
    paid = {name: _arrays(f"costs ({name})", c) for name, c in kinds.items()}
    limits = {}
    for name, given in budgets.items():
        found = paid[name]
        _check_costs(name, found, lost)
        least = sum(float(c.min()) for c in found)
        limits[name] = number("knapsack", "budget", given, "[0, inf]") * _ROOM
        if least > limits[name]:
            what = "" if name == "cost" else f" of {name}"
            raise ValueError(
                f"knapsack(budget={given:g}): nothing meets it; the least possible"
                f"{what} is {least:.6g}"
            )
    if not lost:
        return []
    if len(limits) == 1:
        [name] = limits
        return _one_budget(paid[name], lost, limits[name])
    return _several_budgets(paid, lost, limits)


def _arrays(what: str, classes: Classes) -> list[np.ndarray]:
    found = [np.asarray(c, float) for c in classes]
    for index, values in enumerate(found):
        if values.ndim != 1 or not len(values):
            raise ValueError(f"knapsack: {what} of layer {index} has no choice")
        if not np.isfinite(values).all():
            raise ValueError(f"knapsack: {what} of layer {index} is not finite")
    return found


def _check_costs(
    name: str, costs: Sequence[np.ndarray], losses: Sequence[np.ndarray]
) -> None:
    if len(costs) != len(losses):
        raise ValueError(
            f"knapsack: costs of {len(costs)} layers, losses of {len(losses)}"
        )
    for index, (c, lost) in enumerate(zip(costs, losses, strict=True)):
        if len(c) != len(lost):
            raise ValueError(
                f"knapsack: layer {index} has {len(c)} costs and {len(lost)} losses"
            )
        if c.min() < 0:
            raise ValueError(f"knapsack: a {name} of layer {index} is negative")


def _one_budget(
    costs: list[np.ndarray], losses: list[np.ndarray], limit: float
) -> list[int]:
    """Dynamic programming over partial choices that nothing beats, with bounds."""
    kept = [_undominated(c, lost) for c, lost in zip(costs, losses, strict=True)]
    costs = [c[k] for c, k in zip(costs, kept, strict=True)]
    losses = [lost[k] for lost, k in zip(losses, kept, strict=True)]
    rest = _relaxations(costs, losses)
    slack = _ROUNDING * sum(float(np.abs(lost).max()) for lost in losses)
    best = rest[0].complete(limit) + slack
    cost, loss, rank = np.zeros(1), np.zeros(1), np.zeros(1, int)
    steps: list[tuple[np.ndarray, np.ndarray]] = []
    looked_at = 0
    for layer, (c, lost) in enumerate(zip(costs, losses, strict=True)):
        looked_at += len(cost) * len(c)
        parent, choice = np.divmod(np.arange(len(cost) * len(c)), len(c))
        cost, loss = cost[parent] + c[choice], loss[parent] + lost[choice]
        left = limit - cost
        bound = loss + rest[layer + 1].bound(left)
        hopeful = np.flatnonzero(np.isfinite(bound) & (bound <= best))
        order = kept[layer][choice] + rank[parent] * (1 + int(kept[layer].max()))
        hopeful = hopeful[np.lexsort((order[hopeful], loss[hopeful], cost[hopeful]))]
        falling = loss[hopeful]
        lowest = np.minimum.accumulate(falling)
        hopeful = hopeful[np.append(True, falling[1:] < lowest[:-1])]
        is_cut = looked_at > _WORK
        if is_cut and len(hopeful) > _FEW:
            near = np.argsort(bound[hopeful], kind="stable")[:_FEW]
            hopeful = hopeful[np.sort(near)]
        cost, loss, left = cost[hopeful], loss[hopeful], left[hopeful]
        rank = np.argsort(np.argsort(order[hopeful]))
        steps.append((parent[hopeful], kept[layer][choice[hopeful]]))
        if is_cut:  # what the best complete choice goes on from may be left out
            best = np.inf
            continue
        near = int(np.argmin(bound[hopeful]))
        best = min(best, loss[near] + rest[layer + 1].complete(left[near]) + slack)
    at = int(np.argmin(loss))
    found = []
    for parent, choice in reversed(steps):
        found.append(int(choice[at]))
        at = int(parent[at])
    return found[::-1]


def _undominated(cost: np.ndarray, loss: np.ndarray) -> np.ndarray:
    """Choices that no other one beats, by rising cost and falling loss."""
    order = np.lexsort((np.arange(len(cost)), loss, cost))
    lowest = np.minimum.accumulate(loss[order])
    return order[np.append(True, loss[order][1:] < lowest[:-1])]


class _Relaxation:
    """Least losses of some layers that may be split between two choices.

    Args:
        base: cost and loss of the cheapest choices.
        layers: of each step along the layers' lower convex hulls, its layer.
        cost: that each step adds.
        loss: that each step takes away (negative); steps are sorted by loss over cost.
    """

    def __init__(
        self,
        base: tuple[float, float],
        layers: np.ndarray,
        cost: np.ndarray,
        loss: np.ndarray,
    ) -> None:
        self.base, self._layers, self._cost, self._loss = base, layers, cost, loss
        self._costs = base[0] + np.append(0.0, np.cumsum(cost))
        self._losses = base[1] + np.append(0.0, np.cumsum(loss))

    def bound(self, budget: np.ndarray) -> np.ndarray:
        """A loss that no choice within the budgets goes below; infinity if none is."""
        found = np.interp(budget, self._costs, self._losses)
        # The sums that lead to a budget are rounded: what is short by that is met.
        near = self._costs[0] - 1e-9 * (abs(self._costs[0]) + np.abs(budget))
        return np.where(budget >= near, found, np.inf)

    def complete(self, budget: float) -> float:
        """The loss of whole choices within a budget, by the steepest steps that fit."""
        cost, loss = self.base
        if cost > budget:
            return np.inf
        stopped: set[int] = set()
        for layer, more, less in zip(
            self._layers.tolist(), self._cost.tolist(), self._loss.tolist(), strict=True
        ):
            if layer in stopped:
                continue
            if cost + more > budget:
                stopped.add(layer)
                continue
            cost, loss = cost + more, loss + less
        return loss


def _relaxations(
    costs: Sequence[np.ndarray], losses: Sequence[np.ndarray]
) -> list[_Relaxation]:
    """The relaxation of the layers from each on; the last is of none."""
    found = [_Relaxation((0.0, 0.0), *(np.zeros(0) for _ in range(3)))]
    layers, more, less = np.zeros(0, int), np.zeros(0), np.zeros(0)
    base = (0.0, 0.0)
    for layer in reversed(range(len(costs))):
        hull = _hull(costs[layer], losses[layer])
        c, lost = costs[layer][hull], losses[layer][hull]
        base = base[0] + float(c[0]), base[1] + float(lost[0])
        layers = np.append(layers, np.full(len(hull) - 1, layer))
        more, less = np.append(more, np.diff(c)), np.append(less, np.diff(lost))
        steep = np.argsort(less / more, kind="stable")
        layers, more, less = layers[steep], more[steep], less[steep]
        found.append(_Relaxation(base, layers, more, less))
    return found[::-1]


def _hull(cost: np.ndarray, loss: np.ndarray) -> list[int]:
    """Indices on the lower convex hull of points by rising cost and falling loss."""
    found: list[int] = []
    for index in range(len(cost)):
        while len(found) > 1:
            first, second = found[-2:]
            turn = (cost[second] - cost[first]) * (loss[index] - loss[first]) - (
                cost[index] - cost[first]
            ) * (loss[second] - loss[first])
            if turn > 0:
                break
            found.pop()
        found.append(index)
    return found


def _several_budgets(
    costs: Mapping[str, list[np.ndarray]],
    losses: list[np.ndarray],
    limits: Mapping[str, float],
) -> list[int]:
    """An integer program by HiGHS; costs and losses are scaled to its tolerances."""
    from scipy.optimize import Bounds, LinearConstraint, milp

    counts = [len(lost) for lost in losses]
    member = np.repeat(np.eye(len(counts)), counts, axis=1)
    # A loss counts from the least of its layer: what is common to all choices would hide
    # their differences from the solver's tolerance.
    objective = np.concatenate([lost - lost.min() for lost in losses])
    rules = [LinearConstraint(member, 1, 1)]
    for name, limit in limits.items():
        row = np.concatenate(costs[name])
        if np.isfinite(limit):
            size = limit or 1.0
            rules.append(LinearConstraint(row / size, -np.inf, limit / size))
    found = milp(
        objective / (objective.max() or 1.0),
        integrality=np.ones(len(objective)),
        bounds=Bounds(0, 1),
        constraints=rules,
        options={"mip_rel_gap": 0.0},
    )
    if found.x is None:
        wanted = ", ".join(f"{name} {limit:g}" for name, limit in limits.items())
        least = {name: sum(float(c.min()) for c in of) for name, of in costs.items()}
        alone = ", ".join(f"{name} {value:.6g}" for name, value in least.items())
        raise ValueError(
            f"knapsack: nothing meets {wanted} together; the least possible of each "
            f"alone: {alone}"
        )
    ends = np.cumsum(counts)[:-1]
    return [int(np.argmax(part)) for part in np.split(found.x, ends)]
