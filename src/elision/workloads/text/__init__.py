"""Sentences and their translations: corpora, vocabularies, and how translations score."""

from elision.workloads.text.bleu import Bleu, bleu
from elision.workloads.text.corpus import Pair, ParallelText, read_pairs, split
from elision.workloads.text.sentences import Sentences, read_sentences
from elision.workloads.text.translations import Translations
from elision.workloads.text.verses import read_english_verses, read_verses
from elision.workloads.text.vocabulary import BytePairs

__all__ = [
    "Bleu",
    "BytePairs",
    "Pair",
    "ParallelText",
    "Sentences",
    "Translations",
    "bleu",
    "read_english_verses",
    "read_pairs",
    "read_sentences",
    "read_verses",
    "split",
]
