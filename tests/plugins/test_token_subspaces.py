"""Tokens by their true subspace: exact where they lie in it, and by a loop where they do not."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.plugins.grouped import (
    CONTEXT,
    TOKENS,
    G,
    R,
    coefficients,
    frames,
    from_parts,
    groups,
    mixture,
    orthonormal,
    read,
    told,
    value,
    with_class_token,
)
from tests.plugins.measured import assert_alike
from whitebench import Reading
from whitebench_metrics.token_subspaces import METRICS, patches_of, random_cosine
from whitebench_tasks.subspaces import SubspacesOptions, data

(SPEC,) = METRICS
IMAGES = torch.randn(120, 1, 16, 16, generator=torch.Generator().manual_seed(5)).double()


def readings(*layers: Tensor, images: Tensor = IMAGES) -> dict[str, Reading]:
    return read(SPEC, told(tokens=[with_class_token(layer) for layer in layers], inputs=images))


def some_tokens(width: int = 12) -> Tensor:
    drawn = torch.randn(120, TOKENS, width, generator=torch.Generator().manual_seed(3)).double()
    return drawn * (1 + groups()[..., None]) + 0.3 * torch.relu(drawn.roll(1, dims=-1))


def test_tokens_that_fill_their_true_subspaces_have_its_rank_and_those_apart_no_cosine() -> None:
    found = readings(mixture(frames()))
    assert value(found["rank"]) == pytest.approx(1, abs=1e-9)
    assert found["rank"].nulls["all groups"] == pytest.approx(5, abs=1e-9)
    assert value(found["between"]) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("angle", [75.0, 30.0])
def test_the_cosine_is_that_of_the_angle_between_the_true_subspaces(angle: float) -> None:
    basis, shared = orthonormal(20, 18), math.cos(math.radians(angle))
    leaning = torch.stack(
        [math.sqrt(shared) * basis[:, 15:] + math.sqrt(1 - shared) * basis[:, R * g : R * g + R] for g in range(G)]
    )
    found = readings(mixture(leaning))
    assert value(found["between"]) == pytest.approx(shared, abs=1e-9)
    assert value(found["rank"]) == pytest.approx(1, abs=1e-9)


def test_groups_that_lost_directions_have_less_rank_and_spread_ones_more() -> None:
    own = coefficients()
    alone = torch.zeros(120, TOKENS, G * R).double()
    alone.scatter_(2, (R * groups())[..., None], own[..., :1])
    assert value(readings(alone)["rank"]) == pytest.approx(1 / 3, abs=1e-9)
    assert value(readings(alone)["between"]) == pytest.approx(0, abs=1e-9)
    crossed = own[torch.randperm(60, generator=torch.Generator().manual_seed(0)).repeat(2)]
    assert value(readings(torch.cat([mixture(frames()), crossed], dim=-1))["rank"]) == pytest.approx(2, abs=0.02)


def test_neither_scale_nor_rotation_nor_what_all_tokens_at_a_place_share_matters() -> None:
    layer = some_tokens()
    expected = readings(layer)
    place = 30 * torch.randn(TOKENS, 12, generator=torch.Generator().manual_seed(4)).double()
    for changed in (5 * layer, layer @ orthonormal(12, 12), layer + place):
        assert_alike(readings(changed), expected, rel=1e-7)


def test_it_is_what_a_loop_over_tokens_finds() -> None:
    layer, group_of = some_tokens().numpy(), groups().numpy()
    places = np.stack(
        [
            sum((layer[:, t][group_of[:, t] == g]).sum(axis=0) / (group_of == g).sum() for g in range(G))
            / sum((group_of[:, t] == g).sum() / (group_of == g).sum() for g in range(G))
            for t in range(TOKENS)
        ]
    )
    ranks, leading, total = [], [], np.zeros((12, 12))
    for g in range(G):
        rows = np.array([layer[i, t] - places[t] for i in range(120) for t in range(TOKENS) if group_of[i, t] == g])
        _, singular, right = np.linalg.svd(rows, full_matrices=False)
        share = singular**2 / (singular**2).sum()
        ranks.append(np.exp(-(share * np.log(share)).sum()) / R)
        leading.append(right[:R])
        total += rows.T @ rows / len(rows) / G
    share = np.linalg.eigvalsh(total) / np.trace(total)
    between = [np.linalg.svd(one @ other.T, compute_uv=False).mean() for one, other in combinations(leading, 2)]
    found = readings(some_tokens())
    assert value(found["rank"]) == pytest.approx(np.mean(ranks), rel=1e-9)
    assert found["rank"].nulls["all groups"] == pytest.approx(np.exp(-(share * np.log(share)).sum()) / R, rel=1e-9)
    assert value(found["between"]) == pytest.approx(np.mean(between), rel=1e-7)


def test_layers_stand_apart_and_the_headline_is_their_mean() -> None:
    layers = [mixture(frames()), some_tokens()]
    found, alone = readings(*layers), [readings(layer) for layer in layers]
    for part in ("rank", "between"):
        assert list(found[part].profile) == pytest.approx([value(one[part]) for one in alone], abs=1e-12)
        assert value(found[part]) == pytest.approx(sum(found[part].profile) / 2)
        assert all(len(null) == 2 for null in found[part].null_profiles.values())


def test_beside_it_stand_the_patches_where_the_task_puts_them() -> None:
    samples = data(SubspacesOptions(side=16, tokens=16, dim=2, angle=60.0, noise=0.0), "test")
    given = {
        "tokens": [torch.randn(2000, 17, 8, generator=torch.Generator().manual_seed(0))],
        "inputs": samples.inputs,
        "index": torch.arange(2000),
        **{f"truth:{name}": one for name, one in samples.truth.items()},
    }
    found = read(SPEC, given)
    assert found["rank"].nulls["pixels"] == pytest.approx(1, abs=0.01)
    assert found["between"].nulls["pixels"] == pytest.approx(0.5, abs=0.01)
    assert value(found["rank"]) == pytest.approx(8 / 2, abs=0.01)


def test_random_subspaces_are_about_as_near_as_their_width_says() -> None:
    assert random_cosine(5, 64, 1) == pytest.approx(math.sqrt(2 / (math.pi * 64)), rel=0.2)
    assert random_cosine(5, 3, 3) == pytest.approx(1, abs=1e-9)
    assert readings(some_tokens())["between"].nulls["random subspaces"] == random_cosine(5, 12, 3)


def test_patches_are_those_of_a_loop_over_rows_and_columns() -> None:
    images = torch.arange(2 * 2 * 6 * 6).reshape(2, 2, 6, 6)
    patches = patches_of(images, 9)
    assert patches.shape == (2, 9, 8)
    for row in range(3):
        for column in range(3):
            patch = images[:, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            assert torch.equal(patches[:, 3 * row + column], patch.flatten(1))


def test_neither_batches_nor_processes_matter() -> None:
    given = told(tokens=[with_class_token(some_tokens()), with_class_token(mixture(frames()))], inputs=IMAGES)
    expected = read(SPEC, given)
    for found in from_parts(SPEC, given):
        assert_alike(found, expected, rel=1e-7)


def test_a_group_that_was_not_seen_is_left_out() -> None:
    given = told(tokens=[with_class_token(mixture(frames()))], inputs=IMAGES)
    given["truth:token-subspaces"] = torch.cat([frames(16), frames(16)[:1]])
    assert value(read(SPEC, given)["rank"]) == pytest.approx(1, abs=1e-9)


def test_bfloat16_tokens_are_measured_as_their_rounded_numbers() -> None:
    rounded = some_tokens().bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = readings(rounded)
    assert_alike(found, readings(rounded.double()))


def test_what_cannot_be_told_is_unscored() -> None:
    other = readings(some_tokens()[:, :9])
    assert other["rank"].unscored == "a layer has 9 tokens of a sample where the task has 16: choose patch=4"
    assert other["between"].unscored == other["rank"].unscored
    assert readings(torch.ones(120, TOKENS, 4))["rank"].unscored == "in layer 1 no two groups have tokens that differ"
    assert readings(some_tokens() / 0)["rank"].unscored == "a token is no finite number"
    with pytest.warns(UserWarning, match="before the ``update`` method"):
        assert SPEC.build(CONTEXT).compute()["rank"].unscored == "no sample was seen"
