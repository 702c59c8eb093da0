"""One stage on its processor: its passes, its gradients and its updates."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from elision.common.restoring import restored
from elision.training.pipeline.chain import halves, weight_gradients
from elision.training.pipeline.emulator import add, backward
from elision.training.pipeline.weights import StageWeights

__all__ = ["Gradients", "InTwo", "Stage", "products_of"]

#: Of a stage's parameters, in their order; None where a pass did not use one.
Gradients = list[Tensor | None]

#: Input gradient of a product from its input and its output's gradient, where another
#: processor computes a share of it.
InTwo = Callable[[nn.Module, Tensor, Tensor], Tensor]


def products_of(stage: nn.Module) -> list[nn.Module | None]:
    """The product of each of a stage's layers, where it can be computed apart."""
    return [found and found[0] for found in map(halves, _children(stage))]


def _children(stage: nn.Module) -> list[nn.Module]:
    return list(stage) if isinstance(stage, nn.Sequential) else [stage]


@dataclass
class _Passed:
    """A layer's pass: its input and output, and what lies between its halves."""

    x: Tensor
    y: Tensor
    #: The product's output, and the same as the beginning of another graph.
    z: Tensor | None = None
    cut: Tensor | None = None
    #: Gradient of the product's output, or of ``y`` for a layer in one piece.
    g: Tensor | None = None
    #: Gradients of the parameters of what follows the product.
    rest: list[Tensor | None] = field(default_factory=list)
    #: Weight gradient, where it is known already.
    done: Gradients | None = None


class _Layer:
    """A layer of a stage whose two gradients are computed one after the other."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.product, self.rest = halves(module) or (None, module)
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self.of_rest = [p for p in self.rest.parameters() if p.requires_grad]

    def forward(self, x: Tensor) -> _Passed:
        if self.product is None:
            return _Passed(x, self.module(x))
        z = self.product(x)
        cut = z.detach().requires_grad_()
        return _Passed(x, self.rest(cut), z, cut)

    def input_gradient(
        self, passed: _Passed, incoming: Tensor | None, in_two: InTwo | None = None
    ) -> Tensor | None:
        """Input gradient, and on the way the gradient that the weight gradient needs."""
        if passed.z is None or passed.cut is None:
            passed.g = incoming
            if not passed.x.requires_grad:
                return None
            [dx] = torch.autograd.grad(
                passed.y, [passed.x], incoming, retain_graph=True, allow_unused=True
            )
            return dx
        passed.g, passed.rest = backward(passed.y, passed.cut, self.of_rest, incoming)
        if not passed.x.requires_grad:
            return None
        if in_two is not None:
            assert self.product is not None
            assert passed.g is not None
            return in_two(self.product, passed.x, passed.g)
        [dx] = torch.autograd.grad(passed.z, [passed.x], passed.g)
        return dx

    def weight_gradient(
        self, passed: _Passed, own: Sequence[Tensor] | None
    ) -> Gradients:
        """Weight gradient; ``own`` is the product's, where another processor computed it."""
        if passed.done is not None:
            return passed.done
        if self.product is None:
            if not self.parameters:
                return []
            return list(
                torch.autograd.grad(
                    passed.y, self.parameters, passed.g, allow_unused=True
                )
            )
        assert passed.g is not None
        if own is None:
            own = weight_gradients(self.product, passed.x.detach(), passed.g)
        its = [p for p in self.product.parameters() if p.requires_grad]
        known: dict[int, Tensor | None] = {
            **{id(p): g for p, g in zip(its, own, strict=True)},
            **{id(p): g for p, g in zip(self.of_rest, passed.rest, strict=True)},
        }
        return [known[id(p)] for p in self.parameters]


class Stage:
    """A stage's passes in flight, its gradients and its weights.

    Args:
        module: the stage; a ``Sequential`` of layers where the gradients are apart.
        weights: its versions.
        loss: of its output and a target, on the last stage.
        splits: whether input and weight gradient are two operations.
        per_update: micro-batches whose gradients one update averages.
    """

    def __init__(
        self,
        module: nn.Module,
        weights: StageWeights,
        loss: Callable[[Tensor, Tensor], Tensor] | None,
        splits: bool,
        per_update: int,
    ) -> None:
        self.module, self.weights, self.loss = module, weights, loss
        self.per_update = per_update
        self.layers = [_Layer(m) for m in _children(module)] if splits else []
        self._again = weights.backward.recompute and weights.delay > 0
        #: Input, target and random state of each micro-batch under way.
        self._began: dict[int, tuple[Tensor, Tensor | None, Tensor | None]] = {}
        self._whole: dict[int, tuple[Tensor, Tensor]] = {}
        self._passed: dict[int, list[_Passed]] = {}
        self._sums: dict[int, Gradients] = {}
        self._counts: dict[int, int] = {}

    def forward(self, i: int, x: Tensor, target: Tensor | None) -> Tensor:
        """The output for micro-batch ``i``; the last stage's is the loss."""
        self._began[i] = x, target, torch.get_rng_state() if self._again else None
        with self.weights.during_forward(i // self.per_update):
            return self._pass(i, x, target)

    def _pass(self, i: int, x: Tensor, target: Tensor | None) -> Tensor:
        if not self.layers:
            y = self._out(self.module(x), target)
            self._whole[i] = x, y
            return y.detach()
        passes: list[_Passed] = []
        for layer in self.layers:
            if passes:
                x = passes[-1].y.detach().requires_grad_()
            passes.append(layer.forward(x))
        passes[-1].y = self._out(passes[-1].y, target)
        self._passed[i] = passes
        return passes[-1].y.detach()

    @contextmanager
    def _going_back(self, i: int) -> Iterator[None]:
        """The module holds what the backward pass reads, computed again if it is so."""
        x, target, random = self._began.pop(i)
        with self.weights.during_backward(i // self.per_update):
            if random is None:
                yield
                return
            with restored(self.module, random_state=True):
                torch.set_rng_state(random)
                self._pass(i, x, target)
                yield

    def _out(self, y: Tensor, target: Tensor | None) -> Tensor:
        if self.loss is None:
            return y
        assert target is not None
        return self.loss(y, target)

    def backward(self, i: int, incoming: Tensor | None) -> Tensor | None:
        """Both gradients of micro-batch ``i``; dX of the first stage is None."""
        if self.layers:
            dx = self.input_gradient(i, incoming)
            self.weight_gradient(i, {})
            return dx
        with self._going_back(i):
            x, y = self._whole.pop(i)
            dx, own = backward(y, x, self.weights.parameters, incoming)
        self._collect(i, own)
        return dx

    def input_gradient(
        self, i: int, incoming: Tensor | None, in_two: InTwo | None = None
    ) -> Tensor | None:
        """Input gradient of micro-batch ``i``; ``in_two`` computes the last layer's."""
        with self._going_back(i):
            for layer, passed in zip(
                reversed(self.layers), reversed(self._passed[i]), strict=True
            ):
                incoming = layer.input_gradient(passed, incoming, in_two)
                in_two = None
        return incoming

    def operands(self, i: int, layers: Sequence[int]) -> list[Tensor]:
        """Input and gradient of these layers' products, for dW elsewhere."""
        found: list[Tensor] = []
        for place in layers:
            passed = self._passed[i][place]
            assert passed.g is not None
            found += [passed.x.detach(), passed.g]
        return found

    def part_gradient(self, i: int, layers: Sequence[int]) -> None:
        """Weight gradients of some layers, ahead of the others."""
        with self.weights.during_backward(i // self.per_update):
            for place in layers:
                passed = self._passed[i][place]
                passed.done = self.layers[place].weight_gradient(passed, None)

    def weight_gradient(self, i: int, own: dict[int, Sequence[Tensor]]) -> None:
        """Weight gradient of ``i``; ``own`` has the products computed elsewhere, by layer."""
        found: dict[int, Tensor | None] = {}
        with self.weights.during_backward(i // self.per_update):
            for place, (layer, passed) in enumerate(
                zip(self.layers, self._passed.pop(i), strict=True)
            ):
                gradients = layer.weight_gradient(passed, own.get(place))
                for parameter, gradient in zip(
                    layer.parameters, gradients, strict=True
                ):  # two layers may share one
                    key = id(parameter)
                    found[key] = add(found.get(key), gradient)
        self._collect(i, [found.get(id(p)) for p in self.weights.parameters])

    def _collect(self, i: int, gradients: Gradients) -> None:
        update = i // self.per_update
        sums = self._sums.setdefault(update, [None] * len(gradients))
        self._sums[update] = [add(s, g) for s, g in zip(sums, gradients, strict=True)]
        self._counts[update] = self._counts.get(update, 0) + 1

    def collected(self, update: int) -> bool:
        """Whether every micro-batch's gradient of an update is there."""
        return self._counts.get(update, 0) == self.per_update

    def step(self) -> None:
        """The next update, from the gradients that have been collected for it."""
        update = self.weights.updates
        sums = self._sums.pop(update)
        del self._counts[update]
        if self.per_update > 1:
            sums = [None if g is None else g / self.per_update for g in sums]
        self.weights.update(sums)
