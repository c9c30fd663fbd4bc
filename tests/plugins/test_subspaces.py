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
from whitebench.needs import untold
from whitebench.samples import fingerprint_of
from whitebench.specs import Layout
from whitebench.testing import check_metric, check_task
from whitebench_metrics import token_subspaces
from whitebench_metrics.known_subspaces import METRICS, KnownSubspaces
from whitebench_tasks.subspaces import SUBSPACES, SubspacesOptions, data


def served(split: Any = "test", **options: Any) -> Samples:
    return data(SubspacesOptions(**options), split)


def split_up(samples: Samples) -> tuple[Tensor, Tensor]:
    """The signal and the noise of each sample, by a loop."""
    inputs, frames = samples.inputs.flatten(1).double(), samples.truth["class-subspaces"]
    signal = torch.stack(
        [frames[label] @ (frames[label].T @ x) for x, label in zip(inputs, samples.labels, strict=True)]
    )
    return signal, inputs - signal


# Data


@pytest.mark.parametrize("angle", [90.0, 60.0, 25.0])
def test_every_principal_angle_between_two_subspaces_is_the_one_asked_for(angle: float) -> None:
    frames = served(angle=angle).truth["class-subspaces"]
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
    assert torch.equal(train.truth["class-subspaces"], test.truth["class-subspaces"])
    assert not torch.isclose(train.inputs[:50].flatten(1), test.inputs[:50].flatten(1)).all(dim=1).any()
    assert float((other.truth["class-subspaces"] - test.truth["class-subspaces"]).abs().max()) > 0.1


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"side": 12, "dim": 6, "angle": 50.0, "noise": 0.5, "seed": 3},
        {"dim": 6},
        {"side": 16, "tokens": 16, "dim": 3},
        {"side": 12, "tokens": 9, "dim": 2, "angle": 50.0, "seed": 3},
    ],
)
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
        ({"tokens": 0}, r"subspaces\[tokens=0\]: it must be 1 or more"),
        ({"tokens": 6}, r"subspaces\[tokens=6\]: .* choose tokens=4 or tokens=9"),
        ({"tokens": 9}, r"subspaces\[side=8,tokens=9\]: 8 pixels do not .* a multiple of 3, e.g. side=9"),
        ({"side": 16, "tokens": 16}, "5 frames of 4 directions do not fit into 16 pixels of a patch; choose dim=3"),
        ({"side": 16, "tokens": 16, "dim": 3, "angle": 80.0}, "6 frames of 3 directions do not .* choose dim=2"),
        ({"tokens": 16}, "do not fit into 4 pixels of a patch; choose a larger side"),
    ],
)
def test_options_that_make_no_subspaces_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(WhitebenchError, match=message):
        SubspacesOptions(**options)


# Tokens


def token_patches(samples: Samples, side: int = 4, grid: int = 4) -> Tensor:
    """Each image's patches row by row, by a loop: (N, n, pixels)."""
    patches = []
    for row in range(grid):
        for column in range(grid):
            rows, columns = slice(side * row, side * (row + 1)), slice(side * column, side * (column + 1))
            patches.append(samples.inputs[:, 0, rows, columns].flatten(1).double())
    return torch.stack(patches, dim=1)


TOKENS: dict[str, Any] = {"side": 16, "tokens": 16, "dim": 3}


def test_one_token_is_the_whole_image_and_its_bytes_are_those_of_the_manifest() -> None:
    whole = served("train", tokens=1)
    assert fingerprint_of(whole) == SUBSPACES.manifest_of(SubspacesOptions())["train"]
    assert torch.equal(whole.inputs, served("train").inputs)
    assert list(whole.truth) == ["class-subspaces"]
    assert list(served(**TOKENS).truth) == ["token-subspaces", "token-groups"]


@pytest.mark.parametrize("angle", [90.0, 50.0])
def test_without_noise_each_patch_lies_in_its_own_subspace_and_no_other(angle: float) -> None:
    samples = served(**TOKENS | {"dim": 2}, angle=angle, noise=0.0)
    patches, frames, groups = token_patches(samples), samples.truth["token-subspaces"], samples.truth["token-groups"]
    assert groups.shape == (2000, 16)
    torch.testing.assert_close(patches.norm(dim=2), torch.full((2000, 16), 4.0).double(), atol=1e-3, rtol=0)
    inside = torch.stack([(patches @ frame).norm(dim=2) / 4 for frame in frames], dim=2)
    own = torch.nn.functional.one_hot(groups, 5).bool()
    torch.testing.assert_close(inside[own], torch.ones(32_000).double(), atol=1e-4, rtol=0)
    others = torch.full((128_000,), math.cos(math.radians(angle))).double()
    torch.testing.assert_close(inside[~own], others, atol=1e-3, rtol=0)


@pytest.mark.parametrize("angle", [90.0, 40.0])
def test_every_principal_angle_between_two_token_subspaces_is_the_one_asked_for(angle: float) -> None:
    frames = served(**TOKENS | {"dim": 2}, angle=angle).truth["token-subspaces"]
    assert frames.shape == (5, 16, 2)
    for i in range(5):
        torch.testing.assert_close(frames[i].T @ frames[i], torch.eye(2, dtype=torch.float64))
        for j in range(i):
            cosines = torch.linalg.svdvals(frames[i].T @ frames[j])
            expected = torch.full((2,), math.cos(math.radians(angle)), dtype=torch.float64)
            torch.testing.assert_close(cosines, expected, atol=1e-12, rtol=0)


def test_each_class_is_a_pair_of_subspaces_with_half_of_the_tokens_each_in_any_places() -> None:
    samples = served(**TOKENS)
    groups = samples.truth["token-groups"]
    assert torch.bincount(samples.labels).tolist() == [200] * 10
    counts = torch.nn.functional.one_hot(groups, 5).sum(dim=1)
    pairs = {label: {tuple(row) for row in counts[samples.labels == label].tolist()} for label in range(10)}
    assert all(len(one) == 1 for one in pairs.values())
    assert len({next(iter(one)) for one in pairs.values()}) == 10
    assert all(sorted(next(iter(one))) == [0, 0, 0, 8, 8] for one in pairs.values())
    share = (groups == 0).double().mean(dim=0)  # a fifth of the tokens at every place
    assert float((share - 0.2).abs().max()) < 4 * math.sqrt(0.2 * 0.8 / 2000)


def test_of_an_odd_number_of_tokens_each_of_the_two_has_the_one_more_by_turns() -> None:
    samples = served(side=15, tokens=9, dim=3)
    counts = torch.nn.functional.one_hot(samples.truth["token-groups"], 5).sum(dim=1)
    assert set(counts.flatten().tolist()) == {0, 4, 5}
    for label in range(10):
        own = counts[samples.labels == label]
        assert sorted(own.sum(dim=0).tolist()) == [0, 0, 0, 900, 900]


def test_no_mean_of_tokens_tells_a_class() -> None:
    samples = served(**TOKENS, test=20_000)
    means = token_patches(samples).mean(dim=1)
    found = torch.stack([means[samples.labels == label].mean(dim=0) for label in range(10)])
    assert float(found.abs().max()) < 5 / math.sqrt(2000 * 16)


def test_token_noise_is_as_long_as_asked_for() -> None:
    noisy, clean = (token_patches(served(**TOKENS, noise=noise)) for noise in (0.3, 0.0))
    assert float((noisy - clean).square().mean().sqrt()) == pytest.approx(0.3, rel=0.01)


def test_metrics_of_whole_images_and_of_tokens_say_which_truth_they_miss() -> None:
    assert untold(METRICS[0], served(**TOKENS)) == "this task knows no true class-subspaces"
    assert untold(token_subspaces.METRICS[0], served()) == "this task knows no true token-subspaces and token-groups"
    assert untold(METRICS[0], served()) is untold(token_subspaces.METRICS[0], served(**TOKENS)) is None


# What is measured


def measured(features: Tensor, samples: Samples, *, batch: int = 500) -> dict[str, Reading]:
    metric = KnownSubspaces(64)
    for start in range(0, len(samples), batch):
        rows = slice(start, start + batch)
        metric.update(features[rows], samples.inputs[rows], samples.labels[rows], samples.truth["class-subspaces"])
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
    own = torch.einsum("npr,np->nr", samples.truth["class-subspaces"][samples.labels], signal)
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
        true = samples.inputs[own].flatten(1).double() @ samples.truth["class-subspaces"][label]
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
