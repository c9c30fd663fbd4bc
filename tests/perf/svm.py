"""How fast the attention-SVM solver is, as ratios measured in one run: the third part of `make perf`. It fails nothing.

At the paper's size, n = 20 inputs of T = 20 tokens of width d = 32: 380 constraints on a W of 1,024 entries. cvxpy
takes them one by one, as the paper's own code does, or as one matrix. libsvm is scikit-learn's SVC on the constraints'
Gram matrix, each constraint as it is and turned round, with so large a C that none is missed.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

import cvxpy
import numpy as np
import torch
import torch.nn.functional as F
from sklearn.svm import SVC

from tests.perf.line import Line, in_turns, print_each
from whitebench_svm import separate

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from whitebench_svm.norms import Norm

REPEATS, FEW = 9, 3


def main() -> None:
    """Measure one line after the other, and print each as soon as it is known."""
    print(f"attention-SVM solver, torch with {torch.get_num_threads()} threads\n")
    print_each([measure_one, measure_batch, measure_cones, measure_many])


def measure_one() -> list[Line]:
    """Time one problem of the paper's size."""
    differences, queries = drawn(n=20, T=20, d=32)
    found = separate(differences, queries)
    each, whole, libsvm, ours = (
        partial(_seconds_of, partial(solve, differences, queries))
        for solve in (by_cvxpy_one_by_one, by_cvxpy, by_libsvm, separate)
    )
    slow = in_turns(FEW, each, whole)
    libsvm_seconds, seconds = in_turns(REPEATS, libsvm, ours)
    errors = [abs(solve(differences, queries) / float(found.norm) - 1) for solve in (by_cvxpy, by_libsvm)]
    what = "n = T = 20, d = 32"
    return [
        Line(what=f"{what}: cvxpy, constraint by constraint / ours", aim=100, is_least=True,
             first=slow[0], second=seconds, note=f"; ours proved to {float(found.gap):.0e} of the norm"),
        Line(what=f"{what}: cvxpy, constraints as one matrix / ours", aim=None, first=slow[1], second=seconds,
             note=f"; {errors[0]:.0e} from our norm"),
        Line(what=f"{what}: libsvm / ours", aim=None, first=libsvm_seconds, second=seconds,
             note=f"; {errors[1]:.0e} from our norm"),
    ]  # fmt: skip


def measure_batch() -> list[Line]:
    """Time many small problems, and a layer's worth of heads, against libsvm on one after the other."""
    small, heads = drawn(100, n=6, T=8, d=10), drawn(12, n=32, T=17, d=64)
    return [
        _one_after_the_other("100 problems of n = 6, T = 8, d = 10: libsvm", by_libsvm, small),
        _one_after_the_other("12 problems of n = 32, T = 17, d = 64: libsvm", by_libsvm, heads),
    ]


def measure_cones() -> list[Line]:
    """Time the nuclear norm and the semidefinite W of small problems."""
    problems = drawn(20, n=6, T=8, d=10)
    norms: tuple[Norm, ...] = ("nuclear", "psd")
    return [
        _one_after_the_other(f"20 problems of n = 6, T = 8, d = 10, {norm}: cvxpy, constraints as one matrix",
                             partial(by_cvxpy, norm=norm), problems, norm)
        for norm in norms
    ]  # fmt: skip


def _one_after_the_other(
    what: str, solve: Callable[..., float], problems: tuple[Tensor, Tensor], norm: Norm = "frobenius"
) -> Line:
    theirs, ours = in_turns(
        FEW,
        partial(_seconds_of, lambda: [solve(*problem) for problem in zip(*problems, strict=True)]),
        partial(_seconds_of, partial(separate, *problems, norm=norm)),
    )
    return Line(what=f"{what} / ours, as one batch", aim=None, first=theirs, second=ours)


def measure_many() -> list[Line]:
    """Time 32 queries of 197 tokens against as many of 17: 6,272 constraints, generated, against 512."""
    norms: tuple[Norm, ...] = ("frobenius", "nuclear", "psd")
    problems = [drawn(n=32, T=tokens, d=64) for tokens in (197, 17)]
    return [
        Line(what=f"n = 32, d = 64, {norm}: T = 197 / T = 17", aim=None, first=many, second=few)
        for norm in norms
        for many, few in [
            in_turns(FEW, *(partial(_seconds_of, partial(separate, *problem, norm=norm)) for problem in problems))
        ]
    ]


def drawn(*batch: int, n: int, T: int, d: int) -> tuple[Tensor, Tensor]:
    """Return the differences and queries of n inputs of T random tokens, the first of which is selected."""
    generator = torch.Generator().manual_seed(0)
    tokens = F.normalize(torch.randn(*batch, n, T, d, generator=generator, dtype=torch.float64), dim=-1)
    queries = F.normalize(torch.randn(*batch, n, 1, d, generator=generator, dtype=torch.float64), dim=-1)
    differences = tokens[..., :1, :] - tokens[..., 1:, :]
    return differences.flatten(-3, -2), queries.expand_as(differences).flatten(-3, -2)


def by_cvxpy_one_by_one(differences: Tensor, queries: Tensor) -> float:
    """Return the smallest Frobenius norm, each constraint an expression of its own."""
    weight = cvxpy.Variable((differences.shape[1], queries.shape[1]))
    constraints = [d @ weight @ z >= 1 for d, z in zip(differences.numpy(), queries.numpy(), strict=True)]
    problem = cvxpy.Problem(cvxpy.Minimize(cvxpy.norm(weight, "fro")), constraints)
    return float(problem.solve())


def by_cvxpy(differences: Tensor, queries: Tensor, norm: Norm = "frobenius") -> float:
    """Return the smallest norm, all constraints one expression."""
    weight = cvxpy.Variable((differences.shape[1], queries.shape[1]), PSD=norm == "psd")
    features = np.einsum("nd,ne->nde", differences.numpy(), queries.numpy()).reshape(len(differences), -1)
    size = cvxpy.normNuc(weight) if norm == "nuclear" else cvxpy.norm(weight, "fro")
    problem = cvxpy.Problem(cvxpy.Minimize(size), [features @ cvxpy.vec(weight, order="C") >= 1])
    return float(problem.solve())


def by_libsvm(differences: Tensor, queries: Tensor) -> float:
    """Return the smallest Frobenius norm as libsvm leaves it, whose tolerance is 1e-6 of a margin."""
    gram = ((differences @ differences.T) * (queries @ queries.T)).numpy()
    signs = np.repeat([1.0, -1.0], len(gram))
    machine = SVC(C=1e10, kernel="precomputed", tol=1e-6)
    machine.fit(np.tile(gram, (2, 2)) * np.outer(signs, signs), signs)
    multipliers = np.zeros(2 * len(gram))
    multipliers[machine.support_] = np.abs(machine.dual_coef_[0])
    combined = multipliers.reshape(2, -1).sum(axis=0)
    return float(np.sqrt(combined @ gram @ combined) / (gram @ combined).min())


def _seconds_of(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
