"""Byte-pair vocabularies: Sennrich et al., ACL 2016, by the package ``tokenizers``."""

from collections.abc import Iterable, Sequence
from typing import Any

from elision.common.checks import integer
from elision.common.extras import imported
from elision.workloads.tokens import SPECIAL, UNK

__all__ = ["BytePairs"]

#: Marks the start of a word.
_WORD = "▁"


class BytePairs:
    """A vocabulary of pieces of words, both languages of a corpus in one.

    The characters of the training text are pieces, and then the pair that is the most
    frequent becomes a piece of its own, again and again. Pieces do not reach over spaces
    or over punctuation marks. Tokens 0 to 3 are those of :mod:`elision.workloads.tokens`.

    Args:
        text: what :meth:`to_text` gives.

    Raises:
        ModuleNotFoundError: ``tokenizers`` is not installed.
        ValueError: the text is no vocabulary.

    Example:
        >>> pieces = BytePairs.learned(["low lower lowest", "new newer newest"], size=20)
        >>> len(pieces), pieces.decode(pieces.encode("newer low"))
        (20, 'newer low')
    """

    def __init__(self, text: str) -> None:
        library = _tokenizers()
        try:
            self._tokenizer: Any = library.Tokenizer.from_str(text)
        except Exception as error:  # of no narrower class
            said = " ".join(str(error).split())
            raise ValueError(f"not a vocabulary of byte pairs: {said}") from error

    @classmethod
    def learned(cls, sentences: Iterable[str], size: int) -> "BytePairs":
        """The vocabulary of a text; give it the training text alone.

        Args:
            sentences: of all languages.
            size: tokens, the four special ones included; the result has fewer where the
                text does not have so many, and never more.

        Raises:
            ValueError: the text has more characters than ``size`` allows.
        """
        integer("BytePairs", "size", size, f"> {len(SPECIAL)}")
        sentences = list(sentences)
        letters = set("".join(sentences)) - {" "} | {_WORD}
        if size < len(SPECIAL) + len(letters):
            raise ValueError(
                f"BytePairs(size={size}): the text has {len(letters)} characters and "
                f"there are {len(SPECIAL)} special tokens; give at least their sum"
            )
        library = _tokenizers()
        made = library.Tokenizer(library.models.BPE(unk_token=SPECIAL[UNK]))
        made.pre_tokenizer = library.pre_tokenizers.Sequence(
            [
                library.pre_tokenizers.Metaspace(_WORD),
                library.pre_tokenizers.Punctuation("isolated"),
            ]
        )
        made.decoder = library.decoders.Metaspace(_WORD)
        trainer = library.trainers.BpeTrainer(
            vocab_size=size,
            special_tokens=list(SPECIAL),
            min_frequency=2,
            show_progress=False,
        )
        made.train_from_iterator(sentences, trainer)
        return cls(made.to_str())

    def to_text(self) -> str:
        """JSON from which the vocabulary is made again."""
        return self._tokenizer.to_str()

    def __len__(self) -> int:
        return self._tokenizer.get_vocab_size()

    def encode(self, sentence: str) -> list[int]:
        """Tokens of a sentence, without those that begin and end it."""
        return self.encode_all([sentence])[0]

    def encode_all(self, sentences: Sequence[str]) -> list[list[int]]:
        """Tokens of each sentence."""
        found = self._tokenizer.encode_batch(list(sentences), add_special_tokens=False)
        return [one.ids for one in found]

    def decode(self, tokens: Sequence[int]) -> str:
        """The sentence of tokens; special ones are left out."""
        return self._tokenizer.decode(list(tokens), skip_special_tokens=True)


def _tokenizers() -> Any:
    return imported("tokenizers", "translation", "a byte-pair vocabulary")
