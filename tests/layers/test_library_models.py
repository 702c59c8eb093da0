"""Networks of the libraries in training mode: native steps are the torch engine's.

Outputs, gradients, buffers and the state of the random numbers are compared over three
steps. Networks with ReLU and max pooling are not smooth: where two values tie, rounding
decides. The bound is therefore what the torch engine itself does when the weights are
perturbed in the last digits; see :func:`compared`.
"""

import statistics
from dataclasses import dataclass
from importlib.util import find_spec

import library_models
import pytest
import torch
from torch import Tensor, nn

import elision
from elision.engines.native import library
from elision.methods import Static

pytestmark = pytest.mark.skipif(
    library.unavailable() is not None, reason=str(library.unavailable())
)

MODELS = {str(model): model for model in library_models.library_models()}

#: One of each family, so that the suite stays short; ``--every-model`` runs them all.
REDUCED = (
    "timm:resnet18",
    "timm:mobilenetv3_small_100",
    "timm:convnext_atto",
    "timm:regnety_002",
    "timm:vit_tiny_patch16_224",
    "torchvision:shufflenet_v2_x0_5",
    "torchvision:googlenet",
    "transformers:albert",
    "transformers:bart",
    "transformers:opt",
    "transformers:llama",
    "transformers:resnet",
)

#: Relative perturbation of the controls' weights: a few units of float32's last place.
NUDGES = (3e-7, -3e-7, 1e-6)


def steps(
    model: library_models.LibraryModel, engine: str, nudge: float = 0.0
) -> tuple[list[Tensor], Tensor]:
    """Everything that three steps compute, and the next random number."""
    torch.manual_seed(0)
    network = model.build().train()
    _perturb(network, nudge)
    elision.elide(network, Static(0.5), engine=engine)
    optimizer = torch.optim.SGD(network.parameters(), 1e-4)
    elision.topology.attach(network, optimizer)
    seen: list[Tensor] = []
    for step in range(3):
        torch.manual_seed(100 + step)
        inputs = model.inputs()
        optimizer.zero_grad()
        named = "x" not in inputs
        output = network(**inputs) if named else network(inputs["x"])
        outputs = library_models.tensors_in(output)
        sum(y.square().mean() for y in outputs).backward()  # pyright: ignore
        seen += [y.detach() for y in outputs]
        seen += _gradients(network)
        optimizer.step()
    seen += [b.clone() for b in network.buffers() if b.is_floating_point()]
    return seen, torch.rand(1)


@torch.no_grad()
def _perturb(network: nn.Module, nudge: float) -> None:
    for parameter in network.parameters():
        parameter.mul_(1 + nudge * torch.sign(torch.sin(1e4 * parameter)))


def _gradients(network: nn.Module) -> list[Tensor]:
    return [p.grad.clone() for p in network.parameters() if p.grad is not None]


def errors(found: list[Tensor], expected: list[Tensor]) -> list[float]:
    """Error of each tensor over its norm; a tensor of zeros counts with a small one."""
    scale = max(e.norm().item() / max(1, e.numel()) ** 0.5 for e in expected)
    return [
        ((a - b).norm() / (b.norm() + 1e-4 * b.numel() ** 0.5 * min(scale, 1))).item()
        for a, b in zip(found, expected, strict=True)
        if b.numel()
    ]


@dataclass(frozen=True)
class Difference:
    """Difference of the native engine's tensors from the torch engine's.

    Attributes:
        tensors: how many are compared.
        median: median error.
        control: median error of the controls.
        beyond: errors of the tensors that are beyond ten times their control's.
    """

    tensors: int
    median: float
    control: float
    beyond: list[float]


def compared(name: str) -> Difference:
    """Three steps of a network by both engines."""
    model = MODELS[name]
    expected, after = steps(model, "torch")
    found, random = steps(model, "native")
    assert torch.equal(random, after), "another number of random numbers was drawn"
    assert len(found) == len(expected)
    controls = [errors(steps(model, "torch", n)[0], expected) for n in NUDGES]
    control = [max(each) for each in zip(*controls, strict=True)]
    own = errors(found, expected)
    beyond = [e for e, c in zip(own, control, strict=True) if e > 10 * c + 1e-4]
    medians = statistics.median(own), statistics.median(control)
    return Difference(len(own), *medians, beyond)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    every = metafunc.config.getoption("--every-model")
    names = list(MODELS) if every else REDUCED
    if "name" in metafunc.fixturenames:
        metafunc.parametrize("name", names)


@pytest.mark.filterwarnings("ignore")  # of the libraries
def test_three_steps_are_the_torch_engines(name: str) -> None:
    package = MODELS[name].library
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    found = compared(name)
    assert found.median < 3 * found.control + 1e-5
    # Where a tie falls the other way, the gradients behind it differ a little.
    assert max(found.beyond, default=0) < 0.02
