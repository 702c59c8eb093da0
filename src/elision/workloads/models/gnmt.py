"""GNMT: an LSTM encoder and decoder with attention, which translates sentences.

Wu et al., "Google's Neural Machine Translation System", arXiv 1609.08144, in the form
that the MLPerf training benchmark and NVIDIA's GNMT v2 train::

    source -> embedding -> [-> | <-] -> LSTM -> LSTM (+) ... -> values, keys
    target -> embedding -> LSTM -> query -> attention over values -> context
    [query, context] -> LSTM -> [ , context] -> LSTM (+) ... -> classifier

The first encoder layer reads in both directions; from the third layer on, a side has
residual connections (+). The first decoder layer's output is the query, and the context
is an input of every later layer. Nothing of a step's attention is fed to the next step,
so that training runs every layer over all steps at once. Every recurrent layer is a
one-layer ``nn.LSTM``, so that its weights are layers to :func:`elision.elide`.

Symbols: B sentences of at most S source and T target tokens, width n.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from elision.common.checks import count, number
from elision.workloads.models.attention import NormedAttention
from elision.workloads.models.base import MOST_SIZE
from elision.workloads.tokens import PAD

__all__ = ["Encoded", "Gnmt", "gnmt"]

#: Range of the initial weights times the root of the width: the published ±0.1 at a width
#: of 1,024. A narrow network that starts at ±0.1 learns to ignore its source.
_SPREAD = 3.2

#: State of an LSTM: (h, c), each (1, B, n).
State = tuple[Tensor, Tensor]

#: State of a decoder: that of each layer.
States = tuple[State, ...]


@dataclass(frozen=True)
class Encoded:
    """What the decoder reads of a batch of source sentences.

    Attributes:
        values: ``(B, S, n)``, outputs of the encoder.
        keys: ``(B, S, n)``, the values as the attention compares them with a query.
        mask: ``(B, S)``, bool, True at the tokens of a sentence.

    Example:
        >>> model = Gnmt(vocabulary=9, width=8, layers=2)
        >>> model.encode(torch.tensor([[4, 5, 3]])).of(torch.tensor([0, 0])).values.shape
        torch.Size([2, 3, 8])
    """

    values: Tensor
    keys: Tensor
    mask: Tensor

    def of(self, sentences: Tensor) -> "Encoded":
        """Those of the sentences with these indices, ``(M,)``, repeated or not."""
        return Encoded(
            self.values[sentences], self.keys[sentences], self.mask[sentences]
        )


class Gnmt(nn.Module):
    """Translates a batch of sentences; its answers are scores of the next target token.

    Args:
        vocabulary: number of tokens, of both languages if they share the embedding.
        width: n, size of an embedding and of every state.
        layers: of the encoder and of the decoder, at least 2.
        dropout: share of the input of every LSTM that is dropped in training.
        shared_embedding: one table of embeddings for source and target.
        packed: run the LSTMs on packed sequences, without their padding; the scores of
            all tokens are those of padded ones.

    Raises:
        ValueError: a size or share is out of range.

    Example:
        >>> model = Gnmt(vocabulary=1000, width=64, layers=2)
        >>> sum(p.numel() for p in model.parameters())
        336489
        >>> source, target = torch.tensor([[7, 8, 9], [5, 6, 0]]), torch.tensor([[2], [2]])
        >>> model(source, target).shape
        torch.Size([2, 1, 1000])
    """

    def __init__(
        self,
        *,
        vocabulary: int,
        width: int,
        layers: int,
        dropout: float = 0.2,
        shared_embedding: bool = True,
        packed: bool = False,
    ) -> None:
        super().__init__()
        # 4 special tokens and one
        count("Gnmt", "vocabulary", vocabulary, 5, MOST_SIZE)
        count("Gnmt", "width", width, most=MOST_SIZE)
        count("Gnmt", "layers", layers, 2, MOST_SIZE)
        number("Gnmt", "dropout", dropout, "[0, 1)")
        self.vocabulary = vocabulary
        self.embedding = nn.Embedding(vocabulary, width, padding_idx=PAD)
        self.target_embedding = (
            None
            if shared_embedding
            else nn.Embedding(vocabulary, width, padding_idx=PAD)
        )
        self.encoder = Encoder(width, layers, dropout, packed=packed)
        self.decoder = Decoder(width, layers, dropout, packed=packed)
        self.classifier = nn.Linear(width, vocabulary)
        self._initialise(width)

    @torch.no_grad()
    def _initialise(self, width: int) -> None:
        bound = _SPREAD * width**-0.5
        for name, parameter in self.named_parameters():
            # The attention's scale and bias start as its own paper has them.
            if name not in ("decoder.attention.scale", "decoder.attention.bias"):
                nn.init.uniform_(parameter, -bound, bound)
        for table in (self.embedding, self.target_embedding):
            if table is not None:
                table.weight[PAD] = 0

    def encode(self, source: Tensor, lengths: Tensor | None = None) -> Encoded:
        """Read source sentences.

        Args:
            source: ``(B, S)``, int64, each sentence from the left.
            lengths: ``(B,)``, int64, tokens of each; what stands beyond them is not
                read. Default: the tokens before the padding, token 0.

        Raises:
            ValueError: a sentence is empty, lengths do not fit, or tokens follow padding.
        """
        lengths = _checked(source, lengths)
        steps = torch.arange(source.shape[1], device=source.device)
        mask = steps < lengths[:, None]
        # What stands in the padding may be no token at all.
        embedded = self.embedding(source.masked_fill(~mask, PAD))
        values = self.encoder(embedded, lengths)
        return Encoded(values, self.decoder.attention.keys(values), mask)

    def decode(
        self, target: Tensor, encoded: Encoded, states: States | None = None
    ) -> tuple[Tensor, States, Tensor]:
        """Scores of the token after each target token.

        Args:
            target: ``(B, T)``, int64, the tokens so far or the next ones of them, each
                sentence from the left; a packed decoder does not read the padding, token
                0, but where it is a sentence's first token.
            encoded: the source sentences.
            states: of the decoder after the tokens before; None at the start.

        Returns:
            Scores ``(B, T, vocabulary)``, the states after the last token that is read,
            and the attention ``(B, T, S)``, each row a distribution over source tokens.
        """
        table = self.target_embedding or self.embedding
        lengths = None
        if self.decoder.packed:
            steps = torch.arange(1, target.shape[1] + 1, device=target.device)
            # Up to the last token, so that padding between tokens is read as it was.
            lengths = ((target != PAD) * steps).amax(1).clamp(min=1)
        y, after, attention = self.decoder(table(target), encoded, states, lengths)
        return self.classifier(y), after, attention

    def forward(
        self, source: Tensor, target: Tensor, lengths: Tensor | None = None
    ) -> Tensor:
        """Scores ``(B, T, vocabulary)``; arguments as of :meth:`encode`, :meth:`decode`."""
        return self.decode(target, self.encode(source, lengths))[0]


class Encoder(nn.Module):
    """Embedded sentences ``(B, S, n)`` to outputs ``(B, S, n)``.

    The two directions of the first layer are LSTMs of their own. The backward one reads
    each sentence turned round within its length, so that it needs no packing.
    """

    def __init__(
        self, width: int, layers: int, dropout: float, *, packed: bool = False
    ) -> None:
        super().__init__()
        self.packed = packed
        self.drop = nn.Dropout(dropout)
        self.forwards = nn.LSTM(width, width, batch_first=True)
        self.backwards = nn.LSTM(width, width, batch_first=True)
        self.stack = nn.ModuleList(
            nn.LSTM(width if i else 2 * width, width, batch_first=True)
            for i in range(layers - 1)
        )

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Outputs; those in the padding mean nothing."""
        x = self.drop(x)
        read = lengths if self.packed else None
        backwards, _ = _read(self.backwards, _turn(x, lengths), read)
        forwards, _ = _read(self.forwards, x, read)
        x = torch.cat((forwards, _turn(backwards, lengths)), -1)
        for i, layer in enumerate(self.stack):
            y, _ = _read(layer, self.drop(x), read)
            x = x + y if i else y
        return x


class Decoder(nn.Module):
    """Embedded target tokens ``(B, T, n)`` to outputs ``(B, T, n)``."""

    def __init__(
        self, width: int, layers: int, dropout: float, *, packed: bool = False
    ) -> None:
        super().__init__()
        self.packed = packed
        self.drop = nn.Dropout(dropout)
        self.first = nn.LSTM(width, width, batch_first=True)
        self.attention = NormedAttention(width)
        self.stack = nn.ModuleList(
            nn.LSTM(2 * width, width, batch_first=True) for _ in range(layers - 1)
        )

    def forward(
        self,
        x: Tensor,
        encoded: Encoded,
        states: States | None,
        lengths: Tensor | None = None,
    ) -> tuple[Tensor, States, Tensor]:
        """Outputs, the states after the last token, and the attention ``(B, T, S)``.

        With lengths ``(B,)`` the tokens beyond them are not read, and their outputs mean
        nothing.
        """
        given = (None,) * (1 + len(self.stack)) if states is None else states
        x, state = _read(self.first, self.drop(x), lengths, given[0])
        after = [state]
        context, weights = self.attention(x, encoded.keys, encoded.values, encoded.mask)
        for i, layer in enumerate(self.stack):
            asked = self.drop(torch.cat((x, context), -1))
            y, state = _read(layer, asked, lengths, given[i + 1])
            x = x + y if i else y
            after.append(state)
        return x, tuple(after), weights


def gnmt(
    *,
    vocabulary: int = 32_000,
    width: int = 1024,
    layers: int = 4,
    dropout: float = 0.2,
    shared_embedding: bool = True,
    packed: bool = False,
) -> Gnmt:
    """The network of MLPerf and NVIDIA; the paper's own has 8 layers a side.

    Example:
        >>> with torch.device("meta"):
        ...     published = gnmt(layers=8)
        >>> sum(p.numel() for p in published.parameters())
        243967233
    """
    return Gnmt(
        vocabulary=vocabulary,
        width=width,
        layers=layers,
        dropout=dropout,
        shared_embedding=shared_embedding,
        packed=packed,
    )


def _read(
    layer: nn.Module, x: Tensor, lengths: Tensor | None, state: State | None = None
) -> tuple[Tensor, State]:
    """Outputs ``(B, T, n)`` of an LSTM and its last state; packed if there are lengths."""
    if lengths is None:
        return layer(x, state)
    packed = pack_padded_sequence(
        x, lengths.cpu(), batch_first=True, enforce_sorted=False
    )
    y, after = layer(packed, state)
    return pad_packed_sequence(y, batch_first=True, total_length=x.shape[1])[0], after


def _turn(x: Tensor, lengths: Tensor) -> Tensor:
    """``(B, S, ...)``, each sentence in reverse order and its padding where it was."""
    step = torch.arange(x.shape[1], device=x.device)[None]
    turned = torch.where(step < lengths[:, None], lengths[:, None] - 1 - step, step)
    return x[torch.arange(len(x), device=x.device)[:, None], turned]


def _checked(source: Tensor, lengths: Tensor | None) -> Tensor:
    """Tokens of each sentence, ``(B,)``, of a batch ``(B, S)`` padded on the right."""
    if source.ndim != 2 or not source.numel():
        raise ValueError(
            "Gnmt: source must be (sentences, tokens), at least one of each, got "
            f"{tuple(source.shape)}"
        )
    if lengths is None:
        mask = source != PAD
        for gap in (mask[:, 1:] & ~mask[:, :-1]).any(1).nonzero().flatten()[:1]:
            raise ValueError(
                f"Gnmt: sentence {int(gap)} of the batch has a token after padding (token "
                f"{PAD}); pad on the right, or give lengths"
            )
        lengths = mask.sum(1)
    if lengths.shape != source.shape[:1]:
        raise ValueError(
            f"Gnmt: {len(source)} sentences need as many lengths, got lengths of shape "
            f"{tuple(lengths.shape)}"
        )
    lengths = lengths.to(source.device)
    for bad in ((lengths < 1) | (lengths > source.shape[1])).nonzero().flatten()[:1]:
        raise ValueError(
            f"Gnmt: sentence {int(bad)} of the batch has {int(lengths[bad])} tokens: must "
            f"be from 1 to {source.shape[1]}"
        )
    return lengths
