"""The linear probe against scikit-learn's discriminant analysis."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from whitebench import WhitebenchError
from whitebench_objectives.linear_probe import LinearProbe, LinearProbeOptions


def test_probabilities_are_scikit_learn_s() -> None:
    rng = np.random.default_rng(0)
    y = rng.choice(3, size=300, p=[0.5, 0.3, 0.2])
    Z, new = rng.normal(size=(300, 5)) + 2 * np.eye(3, 5)[y], rng.normal(size=(50, 5))
    probe = LinearProbe(LinearProbeOptions(ridge=1e-12), 3, 5)
    for part in np.array_split(np.arange(300), 4):
        probe.update(torch.from_numpy(Z[part]), torch.from_numpy(y[part]))
    shares = probe.compute()(torch.from_numpy(new)).softmax(dim=1).numpy()
    # Its covariance is divided by N, as ours is.
    theirs = LinearDiscriminantAnalysis(solver="lsqr").fit(Z, y).predict_proba(new)
    np.testing.assert_allclose(shares, theirs, rtol=1e-6, atol=1e-9)


def test_features_that_never_vary_do_no_harm() -> None:
    torch.manual_seed(0)
    labels = torch.arange(90) % 3
    features = torch.cat([torch.eye(3)[labels] + 0.1 * torch.randn(90, 3), torch.zeros(90, 4)], dim=1)
    probe = LinearProbe(LinearProbeOptions(), 3, 7)
    probe.update(features, labels)
    logits_of = probe.compute()
    assert torch.equal(logits_of(features).argmax(dim=1), labels)
    shifted = features.clone()
    shifted[:, 3:] += 0.01
    assert torch.equal(logits_of(shifted).argmax(dim=1), labels)


def test_collapsed_classes_give_finite_logits() -> None:
    labels = torch.arange(12) % 3
    probe = LinearProbe(LinearProbeOptions(), 3, 4)
    probe.update(torch.eye(4)[labels], labels)
    logits = probe.compute()(torch.eye(4)[labels])
    assert logits.isfinite().all()
    assert torch.equal(logits.argmax(dim=1), labels)


def test_without_any_ridge_it_is_refused() -> None:
    with pytest.raises(WhitebenchError, match=r"ridge=0\.0.*must be above 0"):
        LinearProbeOptions(ridge=0.0)
