"""The tokens that are no text: the same numbers in every vocabulary."""

__all__ = ["BOS", "EOS", "PAD", "SPECIAL", "UNK"]

#: Fills the sentences of a batch up to one length; unknown text; begins and ends a target.
PAD, UNK, BOS, EOS = range(4)

#: Their names in a vocabulary, in the order of their numbers.
SPECIAL = ("<pad>", "<unk>", "<s>", "</s>")
