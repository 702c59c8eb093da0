"""Search over recipes: a choice for each layer under a budget, without the explosion."""

from elision.common.knapsack import knapsack as knapsack
from elision.study.search.searched import SearchConfig as SearchConfig
from elision.study.search.searched import Searched as Searched
from elision.study.search.searched import search as search
from elision.study.search.searched import searched as searched
