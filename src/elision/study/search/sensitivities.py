"""Sensitivities: what one choice at one layer does to a trained network.

All say how much is lost by each choice of each place, the rest of the network left dense,
on held-out training examples. ``ΔW = T(W) − W`` is what the choice's transform of the
forward product does to the weight, ``g`` the loss's gradient, ``h`` its Hessian's diagonal:

============ ===================================================== ======================
``weights``  ``‖ΔW‖²/‖W‖²``                                        no example read
``first``    ``|Σ g·ΔW|``, the first order of the loss             one backward pass
``fisher``   ``½·Σ g²·ΔW²``, mean over batches                     one for each batch
``hessian``  ``½·mean(h)·‖ΔW‖²``, the form of HAWQ-V2              two for each probe
``output``   squared relative error of the layer's output          one forward pass each
``loss``     measured rise of the loss; a fall counts as zero      one pass a batch each
``gradient`` squared relative error of the gradient of all weights one step each
============ ===================================================== ======================

The first four see nothing of what a choice does to inputs or gradients. Sources: LeCun,
Denker, Solla, NeurIPS 1989 (second order); Molchanov et al., CVPR 2019 (first order,
Fisher); Dong et al., NeurIPS 2020 (mean trace); the sum over layers is an assumption of all.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from elision.layers.recipe import Recipe
from elision.operands import KEEP, Transform
from elision.precision.curvature import hessian_trace
from elision.precision.noise import relative_error, rounded_operand
from elision.products import Product
from elision.study.search.choices import LayerSpace, Option, Place
from elision.study.search.subject import Subject, as_table, elided, judged

__all__ = ["SENSITIVITIES", "Sensitivities"]

#: Losses of each choice of each place.
Sensitivities = list[list[float]]

#: Random vectors of the Hessian's trace (own choice; the reference names 20 to 50).
_PROBES = 20

#: Batches whose gradients are taken (own choice).
_BATCHES = 4


def weights(subject: Subject, space: LayerSpace) -> Sensitivities:
    """Squared error of the weight, relative."""
    return _of_change(
        subject, space, lambda _, w, d: float(d.square().sum() / w.square().sum())
    )


def first(subject: Subject, space: LayerSpace) -> Sensitivities:
    """First order of the loss's change, its magnitude."""
    gradients = _gradients(subject)
    mean = {n: sum(g) / len(g) for n, g in gradients.items()}
    return _of_change(subject, space, lambda n, _, d: abs(float((mean[n] * d).sum())))


def fisher(subject: Subject, space: LayerSpace) -> Sensitivities:
    """Squared gradients of batches as a stand-in for the second derivatives."""
    gradients = _gradients(subject)
    square = {n: sum(x.square() for x in g) / len(g) for n, g in gradients.items()}
    return _of_change(
        subject, space, lambda n, _, d: float((square[n] * d.square()).sum()) / 2
    )


def hessian(subject: Subject, space: LayerSpace) -> Sensitivities:
    """Mean of the Hessian's diagonal of each layer, by Hutchinson's estimator."""
    batch, dense = subject.batches[0], Recipe("dense")
    with elided(subject.model, dense) as model:
        layers = _layers(model, space)
        at = [_weight(layer) for layer in layers.values()]
        subject.count(batch, 6 * _PROBES)
        traces = hessian_trace(
            lambda: subject.workload.task.loss(model, batch), at, _PROBES
        )
    mean = {n: t / w.numel() for n, t, w in zip(layers, traces, at, strict=True)}
    return _of_change(
        subject, space, lambda n, _, d: max(0.0, mean[n]) * float(d.square().sum()) / 2
    )


def output(subject: Subject, space: LayerSpace) -> Sensitivities:
    """Squared relative error of the layer's own output on a batch."""
    batch = subject.batches[0]

    def of(place: Place, recipe: Recipe) -> Tensor:
        found: list[Tensor] = []
        with elided(subject.model, recipe) as model, torch.no_grad():
            subject.count(batch, 1)
            layer = model.get_submodule(place.layer)
            layer.register_forward_hook(lambda _, __, y: found.append(y.clone()))
            subject.workload.task.loss(model, batch)
        return torch.cat([y.flatten() for y in found])

    exact = {p.layer: p for p in space.places}
    outputs = {name: of(place, Recipe("dense")) for name, place in exact.items()}
    return _each(
        space,
        lambda place, option: (
            relative_error(of(place, judged(place, option)), outputs[place.layer]) ** 2
        ),
    )


def loss(subject: Subject, space: LayerSpace) -> Sensitivities:
    """Rise of the held-out loss; a fall is chance and counts as zero."""
    exact = subject.loss(Recipe("dense"))
    return _each(
        space,
        lambda place, option: max(0.0, subject.loss(judged(place, option)) - exact),
    )


def gradient(subject: Subject, space: LayerSpace) -> Sensitivities:
    """Squared relative error of the whole gradient, what backward products add included."""
    batch = subject.batches[0]
    exact = _joined(subject.gradients(Recipe("dense"), batch))

    def error(place: Place, option: Option) -> float:
        found = _joined(subject.gradients(judged(place, option), batch))
        return relative_error(found, exact) ** 2

    return _each(space, error)


#: Sensitivities by the names of the command line.
SENSITIVITIES: dict[str, Callable[[Subject, LayerSpace], Sensitivities]] = {
    "weights": weights,
    "first": first,
    "fisher": fisher,
    "hessian": hessian,
    "output": output,
    "loss": loss,
    "gradient": gradient,
}


def _each(space: LayerSpace, of: Callable[[Place, Option], float]) -> Sensitivities:
    """A value for each choice of each place; zero where it changes nothing."""
    return [
        [0.0 if option.is_dense else of(place, option) for option in place.options]
        for place in space.places
    ]


def _of_change(
    subject: Subject, space: LayerSpace, of: Callable[[str, Tensor, Tensor], float]
) -> Sensitivities:
    """Values of (layer, weight, its change)."""
    layers = _layers(subject.model, space)

    def value(place: Place, option: Option) -> float:
        transform: Transform = as_table(option)[Product.FORWARD, "weight"]
        if transform == KEEP:
            return 0.0
        weight = _weight(layers[place.layer]).detach()
        return of(place.layer, weight, rounded_operand(weight, transform) - weight)

    return _each(space, value)


def _gradients(subject: Subject) -> dict[str, list[Tensor]]:
    """Gradients of a few batches in the weights of all layers."""
    found: dict[str, list[Tensor]] = {}
    with elided(subject.model, Recipe("dense")) as model:
        layers = {
            n: m
            for n, m in model.named_modules()
            if getattr(m, "weight", None) is not None
        }
        weights = [_weight(layer) for layer in layers.values()]
        for batch in subject.batches[:_BATCHES]:
            subject.count(batch, 3)
            value = subject.workload.task.loss(model, batch)
            grads = torch.autograd.grad(value, weights, materialize_grads=True)
            for name, g in zip(layers, grads, strict=True):
                found.setdefault(name, []).append(g)
    return found


def _layers(model: nn.Module, space: LayerSpace) -> dict[str, nn.Module]:
    return {p.layer: model.get_submodule(p.layer) for p in space.places}


def _weight(layer: nn.Module) -> Tensor:
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([x.flatten() for x in tensors])
