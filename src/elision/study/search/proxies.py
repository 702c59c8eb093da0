"""Zero-cost proxies: scores of untrained networks and their weights, from one batch.

With ``w`` the weights of convolutions and linear layers, ``g`` the gradient of the mean
loss and ``H`` its Hessian::

    snip         Σ |g ⊙ w|                           Lee, Ajanthan and Torr, ICLR 2019
    grasp        −Σ (H·g) ⊙ w                        Wang, Zhang and Grosse, ICLR 2020
    synflow      Σ w ⊙ ∂R/∂w, R = 1ᵀ·∏|W|·1          Tanaka et al., NeurIPS 2020
    grad-norm    ‖g‖
    fisher       ½ Σ_c mean_n (Σ_xy a ⊙ ∂l/∂a)²      Theis et al., 2018; Turner et al., 2020
    jacob-cov    −Σ (log(σ + k) + 1/(σ + k))         Mellor et al., ICML 2021, version 1
    naswot       log |det K|, K_ij = N − Hamming     Mellor et al., ICML 2021
    parameters   how many are trained

Abdelfattah et al., "Zero-Cost Proxies for Lightweight NAS", ICLR 2021, sum the first ones
over a network. A proxy is of use where it ranks better than ``parameters`` does, so that
count stands beside them.

Own choices: batch normalisation takes the batch's statistics (SynFlow: its running ones,
which are neutral in a new network), dropout is off; GraSP's scores have no temperature;
Fisher's activations are the outputs of the layers.
"""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from elision.common.names import lookup
from elision.precision.curvature import hessian_product

__all__ = [
    "PROXIES",
    "WEIGHT_SCORES",
    "proxy_scores",
    "rank_correlations",
    "weight_scores",
]

#: Added to eigenvalues (the published code of Mellor et al.).
_K = 1e-5

_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)

#: Activations whose inputs' signs are a network's code; those that are no rectifiers are
#: own choice.
_GATES = {
    torch.ops.aten.relu,
    torch.ops.aten.hardtanh,
    torch.ops.aten.hardswish,
    torch.ops.aten.silu,
    torch.ops.aten.gelu,
}

#: Weights by name of their layer.
Weights = dict[str, Tensor]


def weight_scores(
    name: str, model: nn.Module, images: Tensor, labels: Tensor
) -> dict[str, Tensor]:
    """Importance of every weight of the convolutions and linear layers, to keep by.

    ``"snip"``: ``|g ⊙ w|``. ``"synflow"``: ``|w| ⊙ ∂R/∂|w|``, which reads no image.
    ``"grasp"``: ``(H·g) ⊙ w``. Without a weight, ``g·g`` changes by ``−2·w·(H·g)``: the
    weights to keep are those whose loss would lower the gradient most.

    Args:
        name: a key of :data:`WEIGHT_SCORES`.
        model: stays as it is.
        images: ``(N, C, H, W)``.
        labels: ``(N,)``, int64.

    Returns:
        Tensors of the weights' shapes, by name of the layer.

    Raises:
        ValueError: an unknown score.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
        >>> found = weight_scores("snip", model, torch.ones(2, 1, 2, 2), torch.tensor([0, 1]))
        >>> found["1"].shape
        torch.Size([2, 4])
    """
    score = lookup("score of weights", name, WEIGHT_SCORES)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return score(_ready(model), images, labels)


def proxy_scores(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    names: Sequence[str] | None = None,
) -> dict[str, float]:
    """Proxies of an untrained network on one batch; more is meant to be better.

    Args:
        model: a classifier, stays as it is.
        images: ``(N, C, H, W)``.
        labels: ``(N,)``, int64.
        names: keys of :data:`PROXIES`; None: all.

    Returns:
        Scores by name; NASWOT of two examples with one code is minus infinity.

    Raises:
        ValueError: an unknown proxy.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> batch = torch.ones(2, 1, 2, 2), torch.tensor([0, 1])
        >>> proxy_scores(model, *batch, names=("parameters", "naswot"))
        {'parameters': 23.0, 'naswot': -inf}
    """
    chosen = tuple(PROXIES) if names is None else names
    found = {}
    for name in chosen:
        proxy = lookup("proxy", name, PROXIES)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            found[name] = proxy(_ready(model), images, labels)
    return found


def rank_correlations(
    scores: Mapping[str, Sequence[float]], results: Sequence[float]
) -> list[dict[str, Any]]:
    """How well each score ranks what training gave: Spearman's and Kendall's coefficient.

    Args:
        scores: of each network, by proxy.
        results: of the same networks, such as their accuracies.

    Returns:
        Rows of proxy, ``spearman`` and ``kendall`` (tau-b), the best Spearman first; a
        score that is the same for all has NaN, at the end.

    Raises:
        ValueError: fewer than three networks, or lists of other lengths.

    Example:
        >>> rank_correlations({"size": [1, 2, 3], "depth": [3, 1, 2]}, [0.5, 0.7, 0.8])[0]
        {'proxy': 'size', 'spearman': 1.0, 'kendall': 1.0}
    """
    if len(results) < 3:
        raise ValueError(
            f"rank_correlations needs at least 3 networks, got {len(results)}"
        )
    rows = []
    for name, values in scores.items():
        if len(values) != len(results):
            raise ValueError(
                f"proxy {name!r} has {len(values)} scores, and there are {len(results)} "
                "results"
            )
        if len(set(values)) == 1:
            rho = tau = math.nan
        else:
            rho, tau = (
                float(of(values, results)[0])  # pyright: ignore[reportArgumentType]
                for of in (stats.spearmanr, stats.kendalltau)
            )
        rows.append({"proxy": name, "spearman": rho, "kendall": tau})
    return sorted(rows, key=lambda row: (math.isnan(row["spearman"]), -row["spearman"]))


def _ready(model: nn.Module) -> nn.Module:
    """A copy in training mode, without dropout, whose parameters all have gradients."""
    copied = copy.deepcopy(model).train()
    for module in copied.modules():
        if isinstance(module, _DROPOUTS):
            module.eval()
    for parameter in copied.parameters():
        parameter.requires_grad_()
        parameter.grad = None
    return copied


def _weights(model: nn.Module) -> Weights:
    layers: dict[str, Any] = dict(model.named_modules())
    return {
        name: module.weight
        for name, module in layers.items()
        if isinstance(module, _LAYERS)
    }


def _gradients(
    model: nn.Module, images: Tensor, labels: Tensor
) -> tuple[Weights, tuple[Tensor, ...]]:
    weights = _weights(model)
    loss = F.cross_entropy(model(images), labels)
    return weights, torch.autograd.grad(
        loss, tuple(weights.values()), materialize_grads=True
    )


def _snip(model: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
    weights, gradients = _gradients(model, images, labels)
    pairs = zip(weights.items(), gradients, strict=True)
    return {name: (w.detach() * g).abs() for (name, w), g in pairs}


class _Hardsigmoid(nn.Module):
    """``ReLU6(x + 3)/6``, of which torch has a second derivative."""

    def forward(self, x: Tensor) -> Tensor:
        """Of the shape of ``x``."""
        return F.relu6(x + 3) / 6


def _grasp(model: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Hardsigmoid):
                setattr(module, name, _Hardsigmoid())
    weights, gradients = _gradients(model, images, labels)
    products = hessian_product(
        lambda: F.cross_entropy(model(images), labels),
        tuple(weights.values()),
        gradients,
    )
    pairs = zip(weights.items(), products, strict=True)
    return {name: w.detach() * hg for (name, w), hg in pairs}


def _synflow(model: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
    del labels
    # A sum over all paths, beyond the range of float32 in deep networks.
    model = model.double().eval()
    with torch.no_grad():
        for value in model.state_dict().values():
            if value.is_floating_point():
                value.abs_()
    weights = _weights(model)
    one = torch.ones(1, *images.shape[1:], dtype=torch.float64)
    gradients = torch.autograd.grad(
        model(one).sum(), tuple(weights.values()), materialize_grads=True
    )
    pairs = zip(weights.items(), gradients, strict=True)
    return {name: w.detach() * g for (name, w), g in pairs}


def _total(
    scores: Callable[[nn.Module, Tensor, Tensor], dict[str, Tensor]], sign: int = 1
) -> Callable[[nn.Module, Tensor, Tensor], float]:
    def proxy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
        found = scores(model, images, labels).values()
        return sign * sum(float(s.double().sum()) for s in found)

    return proxy


def _grad_norm(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    _, gradients = _gradients(model, images, labels)
    return math.sqrt(sum(float(g.double().square().sum()) for g in gradients))


def _fisher(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    outputs: list[Tensor] = []

    def keep(_: nn.Module, __: Any, output: Tensor) -> None:
        output.retain_grad()
        outputs.append(output)

    for module in model.modules():
        if isinstance(module, _LAYERS):
            module.register_forward_hook(keep)
    # Summed, so that each example's gradient is that of its own loss.
    F.cross_entropy(model(images), labels, reduction="sum").backward()
    total = 0.0
    for a in outputs:
        if a.grad is None:
            continue
        through = (a.detach() * a.grad).double().flatten(2) if a.dim() > 2 else None
        of_channel = (
            (a.detach() * a.grad).double() if through is None else through.sum(2)
        )
        total += 0.5 * float(of_channel.square().mean(0).sum())
    return total


def _jacob_cov(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    del labels
    entry = images.clone().requires_grad_()
    (jacobian,) = torch.autograd.grad(model(entry).sum(), entry)
    rows = jacobian.flatten(1).double()
    rows = rows - rows.mean(1, keepdim=True)
    rows = rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-300)
    values = torch.linalg.eigvalsh(rows @ rows.T).clamp_min(0) + _K
    return -float((values.log() + 1 / values).sum())


class _Codes(TorchDispatchMode):
    """Collects which inputs of the activations are above zero."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Tensor] = []

    def __torch_dispatch__(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func.overloadpacket in _GATES:
            self.found.append((args[0] > 0).flatten(1))
        return func(*args, **(kwargs or {}))


def _naswot(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    del labels
    codes = _Codes()
    with torch.no_grad(), codes:
        model(images)
    kernel = torch.zeros(len(images), len(images), dtype=torch.float64)
    for code in codes.found:
        if len(code) == len(images):
            on = code.double()
            kernel += on @ on.T + (1 - on) @ (1 - on).T
    return float(torch.linalg.slogdet(kernel).logabsdet)


def _parameters(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    del images, labels
    return float(sum(p.numel() for p in model.parameters()))


#: Scores of weights by name, to keep the largest of.
WEIGHT_SCORES: dict[str, Callable[[nn.Module, Tensor, Tensor], dict[str, Tensor]]] = {
    "snip": _snip,
    "grasp": _grasp,
    "synflow": _synflow,
}

#: Scores of networks by name.
PROXIES: dict[str, Callable[[nn.Module, Tensor, Tensor], float]] = {
    "parameters": _parameters,
    "snip": _total(_snip),
    "grasp": _total(_grasp, -1),
    "synflow": _total(_synflow),
    "grad-norm": _grad_norm,
    "fisher": _fisher,
    "jacob-cov": _jacob_cov,
    "naswot": _naswot,
}
