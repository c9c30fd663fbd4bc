"""Attention as a support vector machine: the smallest W that separates selected tokens from others, with a proof."""

from whitebench_svm.errors import InfeasibleError, UnconvergedError
from whitebench_svm.separation import Separator, separate, stable_rank

__all__ = ["InfeasibleError", "Separator", "UnconvergedError", "separate", "stable_rank"]
