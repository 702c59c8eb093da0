"""Digests of what a run is made of and its configuration only names: data and network.

A folder of images and a module of one's own may change between two starts of a run. A run
that goes on, or is given more, must find what it began with.
"""

import inspect
import sys
from collections.abc import Iterable

import torch
from torch import nn

from elision.common.digests import digest
from elision.workloads import Examples, Workload

__all__ = ["digests"]


def digests(workload: Workload, dataset: Examples, *, own: bool) -> dict[str, str]:
    """Digests of a run's data and network, by name.

    Args:
        workload: makes the network.
        dataset: the data, loaded.
        own: whether the network may be another than one of this library's by name; it is
            made then, to see its layers and the source of their classes.

    Returns:
        ``data``: of all examples. ``network``, if ``own``: of the
        layers as printed, the shapes of the state and the modules' source.

    Example:
        >>> from elision.workloads import find_workload
        >>> workload = find_workload("digits-cnn")
        >>> sorted(digests(workload, workload.load_dataset(), own=False))
        ['data']
    """
    found = {"data": digest(dataset.content())}
    if own:
        with torch.random.fork_rng(), torch.device("cpu"):
            model = workload.make_model(dataset)
        found["network"] = digest(_parts_of_network(model))
    return found


def _parts_of_network(model: nn.Module) -> Iterable[bytes]:
    yield repr(model).encode()
    yield repr([(n, tuple(v.shape)) for n, v in model.state_dict().items()]).encode()
    for name in sorted({type(module).__module__ for module in model.modules()}):
        if name.partition(".")[0] in ("torch", "elision"):
            continue
        try:
            yield inspect.getsource(sys.modules[name]).encode()
        except (KeyError, OSError, TypeError):  # typed at a prompt, or compiled
            yield name.encode()
