"""One seeded sequence of points in a search space, the same for everybody and after any interruption.

The scrambled Sobol sequence (Sobol 1967, scrambled as by Matousek 1998) of scipy, whose kind Optuna's QMCSampler
draws from as well.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, cast

from scipy.stats import qmc

from whitebench.space import FloatRange, IntRange, Space
from whitebench.specs import Hyperparameters

DIMENSIONS = 32
"""Of the sequence, always: the first k coordinates then do not depend on how many are used."""

EDGE = 0.05
"""A choice within this share of either end of its range lies on the edge."""


def quasi_random_point(search: Mapping[str, Space], *, seed: int, number: int) -> dict[str, float | int | str]:
    """Return point `number` (from 0) of the sequence of `seed`, in the spaces of `search` in their order."""
    engine = qmc.Sobol(DIMENSIONS, scramble=True, rng=seed)
    if number:
        engine.fast_forward(number)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it would rather give a power of two of points
        shares = engine.random(1)[0]
    return {name: space.at(float(share)) for (name, space), share in zip(search.items(), shares, strict=False)}


def edges(search: Mapping[str, Space], chosen: Hyperparameters) -> tuple[str, ...]:
    """Return the hyperparameters whose chosen value lies within EDGE of either end of its range."""
    return tuple(
        name
        for name, space in search.items()
        if isinstance(space, FloatRange | IntRange)
        and not EDGE <= space.share_of(cast("Any", chosen[name])) <= 1 - EDGE
    )
