"""Sparse codes: the data is what it says, ISTA is the lasso's, and what is judged is judged right."""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from typing import Any

import pytest
import torch
from sklearn.linear_model import Lasso

from whitebench import Solution, WhitebenchError
from whitebench_models.sparse_coder import SparseCoder, SparseCoderOptions, ista, objective
from whitebench_tasks.sparse_codes import Signals, SparseCodesOptions, assign, draw, solve

SMALL: dict[str, Any] = {"draws": 2, "width": 8, "atoms": 10, "active": 1, "train": 400, "test": 100}


def some(**options: Any) -> Signals:
    chosen = SparseCodesOptions(**{**SMALL, **options})
    return draw(range(chosen.draws), chosen)


def solved(coder: dict[str, Any], **options: Any) -> Solution:
    return solve(SparseCodesOptions(**{**SMALL, **options}), SparseCoder(SparseCoderOptions(**coder)), 0)


def value(solution: Solution, name: str) -> float:
    found = solution.scores[name].value
    assert found is not None
    return found


def test_signals_are_made_from_few_atoms_and_a_little_noise() -> None:
    signals = some(active=3, noise=0.05, test=2000)
    torch.testing.assert_close(signals.dictionaries.norm(dim=1), torch.ones(2, 10))
    used = signals.codes > 0
    assert set(used.sum(dim=2).flatten().tolist()) == {3}
    assert float(used.float().mean(dim=(0, 1)).sub(0.3).abs().max()) < 0.03  # every atom as often as any other
    values = signals.codes[used]
    assert 0.5 <= float(values.min()) <= float(values.max()) <= 1.5
    clean = signals.codes @ signals.dictionaries.mT
    noise = (signals.test - clean).norm(dim=2) / clean.norm(dim=2)
    assert float(noise.square().mean().sqrt()) == pytest.approx(0.05, rel=0.03)


def test_a_dictionary_and_its_signals_are_the_same_alone_and_beside_others() -> None:
    options = SparseCodesOptions(**SMALL)
    together, alone = draw([3, 7], options), draw([7], options)
    for field in dataclasses.fields(Signals):
        assert torch.equal(getattr(together, field.name)[1], getattr(alone, field.name)[0]), field.name


def test_many_layers_are_the_nonnegative_lasso() -> None:
    signals = some(active=3, atoms=16)
    codes = ista(signals.test[:, :5].double(), signals.dictionaries.double(), layers=5000, penalty=0.1)
    lasso = Lasso(alpha=0.1 / 8, positive=True, fit_intercept=False, tol=1e-10, max_iter=100_000)  # of a mean over 8
    for s in range(2):
        for m in range(5):
            lasso.fit(signals.dictionaries[s].double().numpy(), signals.test[s, m].double().numpy())
            torch.testing.assert_close(codes[s, m], torch.from_numpy(lasso.coef_), rtol=0, atol=1e-5)


def test_each_layer_lowers_the_objective() -> None:
    signals = some(active=3)
    costs = [
        objective(signals.test, signals.dictionaries, SparseCoderOptions(layers=layers))
        for layers in (1, 2, 5, 20, 100)
    ]
    assert all(bool((after < before).all()) for before, after in pairwise(costs))


def test_atoms_are_known_but_for_their_order() -> None:
    true = some().dictionaries
    order = torch.randperm(10, generator=torch.Generator().manual_seed(0))
    places, cosines = assign(true[:, :, order], true)
    torch.testing.assert_close(cosines, torch.ones(2, 10, dtype=torch.float64))
    assert torch.equal(order[places[0]], torch.arange(10))


def test_with_the_true_dictionary_many_layers_tell_which_atoms_were_used_and_one_does_not() -> None:
    deep, flat = (solved({"dictionary": "true", "layers": layers}, active=2, atoms=16) for layers in (200, 1))
    assert value(deep, "accepted") == value(deep, "dictionary/found") == 1
    assert value(deep, "verdict") >= 1
    assert value(deep, "support/precision") > 0.7 > 0.4 > value(flat, "support/precision")
    assert value(flat, "support/exact") < 0.9
    assert deep.scores["support/nonzero"].nulls == {"the truth": 2 / 16}


def test_a_dictionary_that_is_learnt_is_the_true_one_and_a_random_one_is_not() -> None:
    learnt = solved({"layers": 20, "steps": 400}, draws=1)
    random = solved({"layers": 20, "dictionary": "random"}, draws=1)
    assert value(learnt, "dictionary/found") == 1
    assert value(learnt, "accepted") == 1
    assert value(random, "accepted") == 0
    assert value(random, "dictionary/cosine") == pytest.approx(random.scores["dictionary/cosine"].nulls["random atoms"])


def test_what_is_judged_by_hand() -> None:
    options = SparseCodesOptions(**{**SMALL, "test": 4})
    signals = draw(range(2), options)

    class Liar(SparseCoder):
        """Codes every signal with its true atom and, half as much, with the next; the last signal not at all."""

        def atoms(self, _: Signals) -> torch.Tensor:
            return signals.dictionaries

        def encode(self, *_: object) -> torch.Tensor:
            codes = signals.codes + signals.codes.roll(1, dims=2) / 2
            codes[:, -1] = 0
            return codes

    found = solve(options, Liar(SparseCoderOptions()), 0)
    assert value(found, "support/exact") == 0.75
    assert value(found, "support/precision") == 0.5
    assert value(found, "support/recall") == 0.75
    assert value(found, "support/nonzero") == pytest.approx(6 / 40)
    assert value(found, "accepted") == 0  # of 90 % of the signals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"draws": 0}, r"sparse-codes\[draws=0\]: it must be 1 or more"),
        ({"active": 32}, r"sparse-codes\[active=32\]: a signal takes some of 32 atoms, not all: choose fewer"),
        ({"noise": -0.1}, r"sparse-codes\[noise=-0.1\]: a share of the signal's length is 0 or more"),
    ],
)
def test_options_that_make_no_signals_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(WhitebenchError, match=message):
        SparseCodesOptions(**options)


@pytest.mark.parametrize(
    ("options", "message"), [({"layers": 0}, "layers=0"), ({"penalty": 0.0}, "penalty=0.0"), ({"steps": 0}, "steps=0")]
)
def test_a_coder_that_does_nothing_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(WhitebenchError, match=message):
        SparseCoderOptions(**options)
