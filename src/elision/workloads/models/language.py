"""A language model of LSTM layers: what token comes next.

Sundermeyer, Schlüter, Ney, "LSTM Neural Networks for Language Modeling", Interspeech 2012;
dropout between the layers and not over time as Zaremba, Sutskever, Vinyals, "Recurrent
Neural Network Regularization", arXiv 1409.2329, have it.
"""

from torch import Tensor, nn

from elision.common.checks import count, number
from elision.workloads.models.base import MOST_SIZE
from elision.workloads.tokens import PAD

__all__ = ["LstmLanguageModel", "lstm_lm"]

#: State of the layers: (h, c), each (layers, B, width).
States = tuple[Tensor, Tensor]


class LstmLanguageModel(nn.Module):
    """Scores of the token after each token of a sentence.

    Args:
        vocabulary: number of tokens.
        width: of an embedding and of every state.
        layers: LSTM layers.
        dropout: share of the values that enter a layer, or the classifier, dropped in
            training.

    Raises:
        ValueError: a size or share is out of range.

    Example:
        >>> import torch
        >>> model = LstmLanguageModel(vocabulary=9, width=8, layers=1)
        >>> model(torch.tensor([[2, 5, 7]])).shape
        torch.Size([1, 3, 9])
    """

    def __init__(
        self, *, vocabulary: int, width: int, layers: int, dropout: float = 0.2
    ) -> None:
        super().__init__()
        owner = type(self).__name__
        # 4 special tokens and one
        count(owner, "vocabulary", vocabulary, 5, MOST_SIZE)
        count(owner, "width", width, most=MOST_SIZE)
        count(owner, "layers", layers, most=MOST_SIZE)
        number(owner, "dropout", dropout, "[0, 1)")
        self.vocabulary = vocabulary
        self.embedding = nn.Embedding(vocabulary, width, padding_idx=PAD)
        self.drop = nn.Dropout(dropout)
        between = dropout if layers > 1 else 0.0  # torch warns of one that does nothing
        self.lstm = nn.LSTM(width, width, layers, batch_first=True, dropout=between)
        self.classifier = nn.Linear(width, vocabulary)

    def read(
        self, tokens: Tensor, states: States | None = None
    ) -> tuple[Tensor, States]:
        """Scores ``(B, T, vocabulary)`` after tokens ``(B, T)``, int64, and the states.

        Args:
            tokens: those so far, or the next ones of them.
            states: after the tokens before; None at the start.
        """
        y, after = self.lstm(self.drop(self.embedding(tokens)), states)
        return self.classifier(self.drop(y)), after

    def forward(self, tokens: Tensor) -> Tensor:
        """Scores ``(B, T, vocabulary)`` of the token after each of ``(B, T)``."""
        return self.read(tokens)[0]


def lstm_lm(
    *, vocabulary: int = 2000, width: int = 128, layers: int = 1, dropout: float = 0.2
) -> LstmLanguageModel:
    """A language model of one LSTM layer of 128.

    Example:
        >>> sum(p.numel() for p in lstm_lm().parameters())
        646096
    """
    return LstmLanguageModel(
        vocabulary=vocabulary, width=width, layers=layers, dropout=dropout
    )
