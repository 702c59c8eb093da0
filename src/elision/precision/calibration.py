"""Calibration data: what a trained model sees and answers on a few examples."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["Calibration", "Seen", "moved", "norm_statistics", "put_statistics"]

#: Examples of a batch where a tensor is given (an own choice).
_BATCH = 128

#: Examples whose outputs measure a sensitivity (an own choice).
_PROBED = 128


@dataclass
class Seen:
    """What one layer saw.

    Attributes:
        range: smallest and largest value of its input.
        pixels: outputs of each of its channels, for one example.
    """

    range: tuple[float, float] = (0.0, 0.0)
    pixels: int = 1


class Calibration:
    """Batches of examples, their classes, and the accuracy of the model on them.

    Args:
        batches: inputs, and classes or None.
        accuracy: of the model before anything changed.
        score: accuracy of a model.
    """

    def __init__(
        self,
        batches: list[tuple[Tensor, Tensor]],
        score: Callable[[nn.Module], float] | None = None,
    ) -> None:
        self._batches, self._score = batches, score
        self.accuracy = 1.0
        self._plain_right = torch.zeros(0)

    @classmethod
    def of(
        cls,
        model: nn.Module,
        data: Tensor | tuple[Tensor, Tensor] | Iterable[Any],
        score: Callable[[nn.Module], float] | None = None,
    ) -> "Calibration":
        """Take the data in any of the forms of :func:`ternary_residual`.

        Raises:
            ValueError: there are no examples, one holds a NaN or an infinity, or a batch
                is no tensor or pair.

        Example:
            >>> data = Calibration.of(nn.Identity(), torch.eye(3))
            >>> data.examples, data.accuracy, data.score(nn.Softmin(1))
            (3, 1.0, 0.0)
        """
        batches = []
        for inputs, labels in _batches(data):
            batches.append(
                (inputs, _answers(model, inputs) if labels is None else labels)
            )
        if not sum(len(x) for x, _ in batches):
            raise ValueError("calibration holds no examples")
        if not all(bool(x.isfinite().all()) for x, _ in batches):
            raise ValueError("calibration holds a NaN or an infinity")
        made = cls(batches, score)
        made.accuracy = made.score(model)
        if score is None:
            with torch.no_grad():
                made._plain_right = made._right(model)
        return made

    @property
    def examples(self) -> int:
        """Number of examples."""
        return sum(len(x) for x, _ in self._batches)

    @torch.no_grad()
    def score(self, model: nn.Module) -> float:
        """Accuracy of a model, in [0, 1]."""
        if self._score is not None:
            return float(self._score(model))
        return self._right(model).double().mean().item()

    @torch.no_grad()
    def lost(self, model: nn.Module) -> tuple[float, float]:
        """Accuracy that a changed model lost, and the standard error of that figure.

        Of ``n`` examples, of which the change spoils ``b`` and mends ``c``, these are
        ``(b − c)/n`` and ``√(b + c − (b − c)²/n)/n``, since both models see the same
        examples. With a score of one's own, the error is not known and given as 0.
        """
        if self._score is not None:
            return self.accuracy - self.score(model), 0.0
        difference = self._plain_right.double() - self._right(model).double()
        spread = difference.std(unbiased=False).item() / len(difference) ** 0.5
        return difference.mean().item(), spread

    def _right(self, model: nn.Module) -> Tensor:
        """Which examples a model answers rightly, boolean."""
        answers = [
            (_classes(model(inputs)) == labels).flatten()
            for inputs, labels in self._batches
        ]
        return torch.cat(answers)

    @torch.no_grad()
    def outputs(self, model: nn.Module) -> Tensor:
        """Outputs for some of the examples."""
        return _tensor(model(self._batches[0][0][:_PROBED])).float()

    @torch.no_grad()
    def observe(
        self, model: nn.Module, layers: Mapping[str, nn.Module]
    ) -> dict[str, Seen]:
        """Run all examples and return what each layer saw.

        Raises:
            ValueError: a layer never ran.
        """
        seen: dict[str, Seen] = {}

        def look(name: str, layer: nn.Module, x: Tensor, output: Tensor) -> None:
            low, high = (v.item() for v in x.aminmax())
            if name in seen:
                low = min(low, seen[name].range[0])
                high = max(high, seen[name].range[1])
            examples = x.shape[0] if x.ndim > 1 else 1
            weight: Any = layer.weight
            pixels = output.numel() // (examples * weight.shape[0])
            seen[name] = Seen((low, high), max(pixels, 1))

        self.watch(model, layers, look)
        missing = [name for name in layers if name not in seen]
        if missing:
            raise ValueError(
                f"layers that the calibration data never reaches: {', '.join(missing)}; "
                "name them in dense"
            )
        return seen

    @torch.no_grad()
    def watch(
        self,
        model: nn.Module,
        layers: Mapping[str, nn.Module],
        look: Callable[[str, nn.Module, Tensor, Tensor], None],
    ) -> None:
        """Run all examples and call ``look(name, layer, input, output)`` at each layer."""

        def hook(name: str) -> Callable[..., None]:
            return lambda layer, args, output: look(name, layer, args[0], output)

        handles = [m.register_forward_hook(hook(n)) for n, m in layers.items()]
        try:
            for inputs, _ in self._batches:
                model(inputs)
        finally:
            for handle in handles:
                handle.remove()

    @torch.no_grad()
    def estimated_norms(self, model: nn.Module) -> dict[str, Tensor]:
        """Mean and variance at every batch norm, the average over the batches.

        The running statistics of the model do not change.

        Returns:
            Buffers by name, as :func:`norm_statistics` has them.
        """
        norms: list[Any] = [m for m in model.modules() if _has_statistics(m)]
        if not norms:
            return {}
        before = norm_statistics(model)
        momenta = [m.momentum for m in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
            norm.train()
        try:
            for inputs, _ in self._batches:
                if len(inputs) > 1:
                    model(inputs)
            return norm_statistics(model)
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum
                norm.eval()
            put_statistics(model, before)


def norm_statistics(model: nn.Module) -> dict[str, Tensor]:
    """Copies of the running statistics of every batch norm, by name of the buffer."""
    return {
        f"{name}.{buffer}": value.clone()
        for name, module in model.named_modules()
        if _has_statistics(module)
        for buffer, value in module._buffers.items()
        if value is not None
    }


@torch.no_grad()
def put_statistics(model: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Write buffers by name, in place."""
    buffers = dict(model.named_buffers())
    for name, value in values.items():
        buffers[name].copy_(value)


def moved(
    trained: Mapping[str, Tensor],
    plain: Mapping[str, Tensor],
    changed: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """Statistics of the training data, moved as a changed network moves those of others.

    Args:
        trained: running statistics.
        plain: what the plain network has on calibration data.
        changed: what the changed network has on them.

    Returns:
        The running mean plus the difference of the means, the running variance times the
        ratio of the variances; counters as they were. A network that did not change keeps
        its statistics, however few the calibration data are.

    Example:
        >>> one, two = torch.tensor([1.0]), torch.tensor([2.0])
        >>> trained = {"n.running_mean": one, "n.running_var": two}
        >>> plain, changed = dict.fromkeys(trained, one), dict.fromkeys(trained, 3 * one)
        >>> [v.item() for v in moved(trained, plain, changed).values()]
        [3.0, 6.0]
    """
    found = dict(trained)
    for name, value in trained.items():
        if name.endswith("running_mean"):
            found[name] = value + changed[name] - plain[name]
        elif name.endswith("running_var"):
            ratio = changed[name] / plain[name]
            # A channel that is constant on the calibration data says nothing.
            found[name] = torch.where(ratio.isfinite(), value * ratio, value)
    return found


def _has_statistics(module: Any) -> Any:
    return isinstance(module, _BatchNorm) and module.running_mean is not None


def _batches(data: Any) -> Iterator[tuple[Tensor, Tensor | None]]:
    if isinstance(data, Tensor):
        yield from ((part, None) for part in data.split(_BATCH))
        return
    pair = isinstance(data, (tuple, list)) and len(data) == 2
    if (
        pair
        and all(isinstance(d, Tensor) for d in data)
        and data[1].ndim < data[0].ndim
    ):
        yield from zip(data[0].split(_BATCH), data[1].split(_BATCH), strict=True)
        return
    for batch in data:
        if isinstance(batch, Tensor):
            yield batch, None
        elif isinstance(batch, (tuple, list)) and len(batch) == 2:
            yield batch[0], batch[1]
        else:
            raise ValueError(
                f"calibration: a batch must be inputs or a pair of inputs and labels, "
                f"got a {type(batch).__name__}"
            )


@torch.no_grad()
def _answers(model: nn.Module, inputs: Tensor) -> Tensor:
    return _classes(model(inputs))


def _classes(output: Any) -> Tensor:
    """The class of each example; NaN, which is no answer, is class -1."""
    scores = _tensor(output)
    return torch.where(scores.isnan().any(1), -1, scores.argmax(1))


def _tensor(output: Any) -> Tensor:
    if not isinstance(output, Tensor):
        raise ValueError(
            f"the model must answer with a tensor of scores, got a "
            f"{type(output).__name__}; give score=..."
        )
    return output
