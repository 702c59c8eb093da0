"""Sentence pairs to translate: corpora, their vocabularies, and how translations score."""

from elision.workloads.text.bleu import Bleu, bleu
from elision.workloads.text.corpus import Pair, ParallelText, read_pairs, split
from elision.workloads.text.translations import Translations
from elision.workloads.text.verses import read_verses
from elision.workloads.text.vocabulary import BytePairs

__all__ = [
    "Bleu",
    "BytePairs",
    "Pair",
    "ParallelText",
    "Translations",
    "bleu",
    "read_pairs",
    "read_verses",
    "split",
]
