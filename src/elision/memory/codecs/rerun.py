"""Results of a function that is run again: attention's statistics, a workspace."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from elision.memory.codecs.recompute import came_out_different
from elision.memory.saved.codec import Codec, Guarantee, Packed
from elision.memory.saved.layout import Layout, flat
from elision.memory.saved.roles import Role, Slot
from elision.memory.saved.tag import content_tag
from elision.memory.saved.token import CodecEntry, Token

__all__ = ["Rerun"]


class _Run:
    """The results of a function, computed when one of them is asked for.

    The results that were not asked for wait until they are, so that the function runs
    once in a backward pass although each of its results is restored by itself.

    Args:
        function: of the ``arguments``; its results in the order of their slots.
        arguments: tokens are restored when the function runs.
    """

    def __init__(
        self, function: Callable[..., tuple[torch.Tensor, ...]], *arguments: Any
    ) -> None:
        self._function, self._arguments = function, arguments
        self._waiting: dict[int, torch.Tensor] = {}

    def result(self, index: int) -> torch.Tensor:
        """One of the results."""
        if index not in self._waiting:
            given = [
                a.restore() if isinstance(a, Token) else a for a in self._arguments
            ]
            # No token has a history; oneDNN makes a workspace where one might be needed.
            with torch.enable_grad(), torch.autocast("cpu", enabled=False):
                self._waiting = dict(enumerate(self._function(*given)))
        return self._waiting.pop(index)

    @property
    def exact(self) -> bool:
        """True if all tensors among the arguments are as they were."""
        tokens = [a for a in self._arguments if isinstance(a, Token)]
        forms = [token.entry for token in tokens if token.tensor is None]
        return all(
            isinstance(form, CodecEntry) and form.codec.guarantee is Guarantee.EXACT
            for form in forms
        )


def _attention(node: Any) -> _Run:
    """Flash attention on the CPU: its result and its log-sum-exp."""
    aten = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    dropout, causal, scale = (
        node._saved_dropout_p,
        node._saved_is_causal,
        node._saved_scale,
    )

    def run(*operands: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        *qkv, mask = operands
        return aten(*qkv, dropout, causal, attn_mask=mask, scale=scale)

    return _Run(run, *_tokens(node, "query", "key", "value", "attn_mask"))


def _recurrent(node: Any) -> _Run:
    """A recurrent layer of oneDNN: its results, its states and its workspace."""
    settings = [
        getattr(node, f"_saved_{name}")
        for name in ("reverse", "batch_sizes", "mode", "hidden_size", "num_layers")
    ]
    settings += [
        getattr(node, f"_saved_{name}")
        for name in ("has_biases", "bidirectional", "batch_first", "train")
    ]
    weights = (f"weight{i}" for i in range(4))
    tokens = _tokens(node, "input", *weights, "hx_", "cx_")
    return _Run(lambda *tensors: torch.mkldnn_rnn_layer(*tensors, *settings), *tokens)


def _tokens(node: Any, *slots: str) -> list[Any]:
    return [getattr(node, f"_raw_saved_{slot}").data for slot in slots]


#: Function -> how to run it again, and its results' slots in order.
_FUNCTIONS: dict[str, tuple[Callable[[Any], _Run], tuple[str, ...]]] = {
    "ScaledDotProductFlashAttentionForCpuBackward0": (
        _attention,
        ("output", "logsumexp"),
    ),
    "MkldnnRnnLayerBackward0": (
        _recurrent,
        ("result0", "result1", "result2", "result3"),
    ),
}


#: Results with bytes that nobody writes or reads: the other results tell a change.
_PADDED = ("result3",)


@dataclass(frozen=True)
class Rerun(Codec):
    """No bytes for results that a function computes again from its own arguments.

    A recurrent layer keeps several times its input in a workspace, attention its result
    and the log-sum-exp of its logits. Where attention's operands are packed these have
    to be computed again: the exact log-sum-exp of the true logits is no normaliser of
    the restored ones, and what the backward pass takes for probabilities would not be.

    Attributes:
        lossy: where an argument is packed, and there only; not exact then, but
            consistent.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from elision.memory import saver
        >>> model = nn.LSTM(64, 64)
        >>> with saver(model, "exact") as saved:
        ...     loss = model(torch.randn(32, 16, 64))[0].square().mean()
        >>> {row.codec for row in saved.ledger.rows if row.slot.name == "result3"}
        {'rerun'}
    """

    lossy: bool = False
    roles = frozenset({Role.WORKSPACE, Role.ATTENTION_RESULT})
    shared = False
    optional_in_graphs = True

    @property
    def name(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """``"rerun"``."""
        return "rerun from packed" if self.lossy else "rerun"

    @property
    def guarantee(self) -> Guarantee:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Exact, from exact arguments."""
        return Guarantee.LOSSY if self.lossy else Guarantee.EXACT

    def pack(self, tensor: torch.Tensor, slot: Slot) -> Packed | None:
        """Keep the function and its arguments; None if they are not of that kind."""
        if tensor.device.type != "cpu" or slot.function not in _FUNCTIONS:
            return None
        make, results = _FUNCTIONS[slot.function]
        if slot.name not in results:
            return None
        run = _run_of_another(slot.node, results) or make(slot.node)
        if self.lossy is run.exact:
            return None
        verified = not self.lossy and slot.name not in _PADDED
        tag = content_tag(tensor) if verified else None
        return Packed((), Layout.of(tensor), (run, results.index(slot.name), tag))

    def unpack(self, packed: Packed) -> torch.Tensor:
        """Run the function, unless it has been run for another result.

        Raises:
            RuntimeError: the result is not what it was.
        """
        run, index, tag = packed.meta
        result, layout = run.result(index), packed.layout
        if tag is not None and content_tag(result) != tag:
            raise came_out_different(layout)
        if result.stride() != layout.stride:
            result = layout.empty().copy_(result)
        return layout.view(flat(result))


def _run_of_another(node: Any, results: tuple[str, ...]) -> _Run | None:
    """The run that another result of the node is restored from."""
    for slot in results:
        token = getattr(node, f"_raw_saved_{slot}").data
        entry = getattr(token, "entry", None)
        meta = getattr(getattr(entry, "packed", None), "meta", None)
        if isinstance(meta, tuple) and meta and isinstance(meta[0], _Run):
            return meta[0]
    return None
