"""Subspaces: what the task says of itself is so, and what is measured against the truth is measured right."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LinearRegression
from torch import Tensor

from whitebench import MetricContext, Reading, Samples, WhitebenchError
from whitebench.specs import Layout
from whitebench.testing import check_metric, check_task
from whitebench_metrics.known_subspaces import METRICS, KnownSubspaces
from whitebench_tasks.subspaces import SUBSPACES, SubspacesOptions, data


def served(split: Any = "test", **options: Any) -> Samples:
    return data(SubspacesOptions(**options), split)


def split_up(samples: Samples) -> tuple[Tensor, Tensor]:
    """The signal and the noise of each sample, by a loop."""
    inputs, frames = samples.inputs.flatten(1).double(), samples.truth["subspaces"]
    signal = torch.stack(
        [frames[label] @ (frames[label].T @ x) for x, label in zip(inputs, samples.labels, strict=True)]
    )
    return signal, inputs - signal


# Data


@pytest.mark.parametrize("angle", [90.0, 60.0, 25.0])
def test_every_principal_angle_between_two_subspaces_is_the_one_asked_for(angle: float) -> None:
    frames = served(angle=angle).truth["subspaces"]
    for i in range(10):
        torch.testing.assert_close(frames[i].T @ frames[i], torch.eye(4, dtype=torch.float64))
        for j in range(i):
            cosines = torch.linalg.svdvals(frames[i].T @ frames[j])
            torch.testing.assert_close(
                cosines, torch.full((4,), math.cos(math.radians(angle)), dtype=torch.float64), atol=1e-12, rtol=0
            )


def test_signals_fill_their_subspace_and_noise_is_as_long_as_asked_for() -> None:
    samples = served(noise=0.3, dim=3)
    signal, noise = split_up(samples)
    inside = signal.norm(dim=1) / 8  # with the noise in three of 64 directions
    assert float(inside.mean()) == pytest.approx(1, abs=0.01)
    share = (noise.norm(dim=1) / 8).square().mean().sqrt()
    assert float(share) == pytest.approx(0.3 * math.sqrt(61 / 64), rel=0.02)
    for label in range(10):
        moments = torch.linalg.svdvals(signal[samples.labels == label]).square()
        assert float(moments[2] / moments[0]) > 0.5
        assert float(moments[3] / moments[0]) < 1e-20


def test_classes_are_even_and_pixels_lie_on_their_grid() -> None:
    samples = served("train")
    assert torch.bincount(samples.labels).tolist() == [200] * 10
    assert torch.equal(samples.inputs * 4096, (samples.inputs * 4096).round())


def test_splits_share_their_subspaces_and_no_sample_and_another_seed_shares_nothing() -> None:
    train, test, other = served("train"), served("test"), served("test", seed=1)
    assert torch.equal(train.truth["subspaces"], test.truth["subspaces"])
    assert not torch.isclose(train.inputs[:50].flatten(1), test.inputs[:50].flatten(1)).all(dim=1).any()
    assert float((other.truth["subspaces"] - test.truth["subspaces"]).abs().max()) > 0.1


@pytest.mark.parametrize("options", [{}, {"side": 12, "dim": 6, "angle": 50.0, "noise": 0.5, "seed": 3}, {"dim": 6}])
def test_it_keeps_the_rules(options: dict[str, Any]) -> None:
    check_task(SUBSPACES, config=SubspacesOptions(**options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dim": 7}, "10 frames of 7 directions do not fit into 64 pixels; choose dim=6 or less"),
        ({"dim": 6, "angle": 60.0}, "11 frames of 6 directions do not fit into 64 pixels; choose dim=5 or less"),
        ({"angle": 0.0}, r"subspaces\[angle=0.0\]: an angle between subspaces lies above 0 and up to 90"),
        ({"train": 9}, r"subspaces\[train=9\]: it must be 10 or more"),
        ({"noise": -1.0}, "noise=-1.0"),
    ],
)
def test_options_that_make_no_subspaces_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(WhitebenchError, match=message):
        SubspacesOptions(**options)


# What is measured


def measured(features: Tensor, samples: Samples, *, batch: int = 500) -> dict[str, Reading]:
    metric = KnownSubspaces(64)
    for start in range(0, len(samples), batch):
        rows = slice(start, start + batch)
        metric.update(features[rows], samples.inputs[rows], samples.labels[rows], samples.truth["subspaces"])
    return metric.compute()


def value(reading: Reading) -> float:
    assert reading.value is not None, reading.unscored
    return reading.value


def test_features_that_are_the_signal_keep_all_of_it_and_none_of_the_noise() -> None:
    samples = served(noise=0.2)
    signal, _ = split_up(samples)
    found = measured(signal, samples)
    assert value(found["signal"]) == pytest.approx(1, abs=1e-9)
    assert value(found["noise"]) == pytest.approx(0, abs=0.01)
    assert value(found["angle"]) == pytest.approx(0, abs=1e-3)


def test_features_that_are_the_inputs_hold_every_subspace_and_the_noise() -> None:
    samples = served(noise=0.2)
    found = measured(samples.inputs.flatten(1), samples)
    assert value(found["angle"]) == pytest.approx(0, abs=1e-3)
    assert value(found["signal"]) > 0.9
    assert value(found["noise"]) == pytest.approx(24 / 60, abs=0.03)  # what lies outside of all ten subspaces


def test_the_angle_is_that_of_the_direction_which_is_told_least() -> None:
    samples = served(noise=0.0, test=20_000)
    signal, _ = split_up(samples)
    own = torch.einsum("npr,np->nr", samples.truth["subspaces"][samples.labels], signal)
    own /= own.std(dim=0)
    lost = torch.randn(20_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    own[:, 0] = math.cos(math.radians(40)) * own[:, 0] + math.sin(math.radians(40)) * lost
    assert value(measured(own, samples, batch=5000)["angle"]) == pytest.approx(40, abs=1)


def test_a_class_that_collapsed_has_lost_its_subspace() -> None:
    samples = served()
    collapsed = torch.nn.functional.one_hot(samples.labels).double()
    noise = 0.01 * torch.randn(2000, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert value(measured(collapsed + noise, samples)["angle"]) > 80


def test_the_angle_is_the_smallest_canonical_correlation_s() -> None:
    samples = served(noise=0.5)
    generator = torch.Generator().manual_seed(0)
    features = torch.tanh(samples.inputs.flatten(1) @ torch.randn(64, 12, generator=generator)).double()
    angles = []
    for label in range(10):
        own = samples.labels == label
        true = samples.inputs[own].flatten(1).double() @ samples.truth["subspaces"][label]
        bases = [torch.linalg.qr(one - one.mean(dim=0)).Q for one in (features[own], true)]
        least = float(torch.linalg.svdvals(bases[0].T @ bases[1])[-1]) ** 2
        angles.append(math.degrees(math.acos(math.sqrt(max(0.0, 1 - (1 - least) * 199 / (200 - 13))))))
    assert value(measured(features, samples)["angle"]) == pytest.approx(np.mean(angles), abs=1e-6)


def test_what_is_decoded_is_what_a_linear_regression_decodes() -> None:
    samples = served(noise=0.5)
    generator = torch.Generator().manual_seed(0)
    features = torch.relu(samples.inputs.flatten(1) @ torch.randn(64, 40, generator=generator) + 0.3)
    found = measured(features, samples)
    for name, side in zip(("signal", "noise"), split_up(samples), strict=True):
        fit = LinearRegression().fit(features.double().numpy(), side.numpy())
        missed = float(np.square(side.numpy() - fit.predict(features.double().numpy())).sum())
        spread = float((side - side.mean(dim=0)).square().sum())
        adjusted = 1 - (missed / (2000 - 41)) / (spread / 1999)
        assert value(found[name]) == pytest.approx(adjusted, abs=1e-8)


def test_features_that_know_nothing_keep_nothing() -> None:
    samples = served()
    features = torch.randn(2000, 100, generator=torch.Generator().manual_seed(0))
    found = measured(features, samples)
    assert value(found["signal"]) == pytest.approx(0, abs=0.02)
    assert value(found["noise"]) == pytest.approx(0, abs=0.02)
    assert value(found["angle"]) > 80


def test_neither_batches_nor_dead_features_nor_bfloat16_matter() -> None:
    samples = served(noise=0.2)
    features = torch.relu(samples.inputs.flatten(1) @ torch.randn(64, 20, generator=torch.Generator().manual_seed(0)))
    features = torch.cat([features.bfloat16(), torch.zeros(2000, 3, dtype=torch.bfloat16)], dim=1)
    found = [measured(one, samples, batch=batch) for one, batch in ((features, 7), (features[:, :20].float(), 2000))]
    for name in ("signal", "noise", "angle"):
        assert value(found[0][name]) == pytest.approx(value(found[1][name]), abs=1e-6)


def test_what_cannot_be_told_is_unscored() -> None:
    few = served(test=40)
    found = measured(torch.randn(40, 50, generator=torch.Generator().manual_seed(0)), few)
    assert found["signal"].unscored == "40 samples do not tell what 39 directions of the features keep"
    clean = served(noise=0.0)
    exact = dataclasses.replace(clean, inputs=split_up(clean)[0].float().reshape(clean.inputs.shape))
    assert measured(exact.inputs.flatten(1), exact)["noise"].unscored == "there is none"
    with pytest.warns(UserWarning, match="before the ``update`` method"):
        assert KnownSubspaces(64).compute()["angle"].unscored == "there is no sample"


def test_it_keeps_the_rules_on_the_task_s_own_shape() -> None:
    check_metric(METRICS[0], context=MetricContext(classes=4, shape=(1, 8, 8), layout=Layout()))
