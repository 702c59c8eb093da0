"""Search over recipes: a choice for each layer under a budget, without the explosion."""

from elision.common.knapsack import knapsack as knapsack
