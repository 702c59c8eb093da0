"""What a network says to a batch: its answer, and the outputs of layers by name."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from elision.common.names import lookup

__all__ = ["ANSWER", "check_layers", "heard", "tensors_of", "told"]

#: Key of the network's own output among those of its layers.
ANSWER = ""


def check_layers(whose: str, network: nn.Module, layers: Sequence[str]) -> None:
    """Raise ValueError, listing the layers there are, unless all names are layers'.

    Example:
        >>> check_layers("student", nn.Sequential(nn.ReLU()), ["1"])
        Traceback (most recent call last):
        ValueError: unknown layer of the student '1'; known: 0
    """
    known = {name: module for name, module in network.named_modules() if name}
    for layer in layers:
        lookup(f"layer of the {whose}", layer, known)


@contextmanager
def heard(network: nn.Module, layers: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """Context that notes a network's output, and its layers', with their gradients.

    Args:
        network: called inside the block, by whomever.
        layers: names of layers; of one called several times the last output counts.

    Returns:
        The outputs by the layers' names, the network's own under :data:`ANSWER`; filled
        when the network is called.

    Example:
        >>> network = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
        >>> with heard(network, ["0"]) as said:
        ...     answer = network(torch.ones(2, 3))
        >>> said["0"].shape, said[ANSWER] is answer
        (torch.Size([2, 4]), True)
    """
    said: dict[str, Any] = {}

    def noting(name: str) -> Any:
        def note(module: nn.Module, given: Any, output: Any) -> None:
            said[name] = output

        return note

    with ExitStack() as hooks:
        for name in {*layers, ANSWER}:
            handle = network.get_submodule(name).register_forward_hook(noting(name))
            hooks.callback(handle.remove)
        yield said


@contextmanager
def told(teacher: nn.Module) -> Iterator[None]:
    """Context in which a teacher answers: evaluation mode, float32, no gradient.

    What it may draw at random follows from nothing outside, and torch's random state is
    afterwards what it was; each module's mode is, too.

    Example:
        >>> teacher = nn.Sequential(nn.Dropout(), nn.Linear(2, 1))
        >>> with told(teacher):
        ...     answer = teacher(torch.ones(1, 2))
        >>> answer.requires_grad, teacher.training
        (False, True)
    """
    modes = [(module, module.training) for module in teacher.modules()]
    device = next((p.device for p in teacher.parameters()), torch.device("cpu"))
    apart = [device] if device.type == "cuda" else []
    teacher.eval()
    try:
        with (
            torch.no_grad(),
            torch.random.fork_rng(devices=apart),
            torch.autocast(device.type, enabled=False),
        ):
            torch.manual_seed(0)
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def tensors_of(said: Mapping[str, Any], layers: Sequence[str]) -> dict[str, Tensor]:
    """The outputs of layers, each a tensor.

    Raises:
        ValueError: a layer was not called, or answers with something else.
    """
    for name in layers:
        if name not in said:
            raise ValueError(f"layer {name!r} is not called in a forward pass")
        if not isinstance(said[name], Tensor):
            kind = type(said[name]).__name__
            raise ValueError(f"layer {name!r} answers with a {kind}, not with a tensor")
    return {name: said[name] for name in layers}
