"""Subspaces: samples, or the tokens in them, that lie in known linear subspaces, at a known angle, with known noise.

    x = s U a + noise,     a even on the unit sphere of R^dim, s^2 the number of pixels, so that a pixel's root mean
                           square is one

the mixture of subspaces on which rate reduction and CRATE are built (Yu et al., arXiv 2006.08558 and 2306.01129). x and
-x are of one class, so that no linear layer tells two classes apart on its own; the true subspaces do, and metrics are
told them. `frames` makes the subspaces, `draws` what lies in them.
"""

from whitebench_tasks.subspaces.draws import data
from whitebench_tasks.subspaces.options import SubspacesOptions
from whitebench_tasks.subspaces.task import SUBSPACES

__all__ = ["SUBSPACES", "SubspacesOptions", "data"]
