"""Wine: 13 chemical measurements of 178 wines from three growers (UCI, in scikit-learn).

In their published order, which is by grower, of every five wines the fourth is validation and the fifth
test. Measurements are scaled by the smallest and largest of the training split to [0, 1], which needs no
sums and so gives the same bytes everywhere.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch

from whitebench import Reference, Samples, Split, TaskSpec


@dataclass(frozen=True, kw_only=True)
class WineOptions:
    """None."""


@functools.lru_cache
def _data(_: WineOptions, split: Split) -> Samples:
    from sklearn.datasets import load_wine

    wine = load_wine()
    place = torch.arange(len(wine.target)) % 5
    is_in = {"train": place < 3, "validation": place == 3, "test": place == 4}
    inputs = torch.from_numpy(wine.data)
    low, high = inputs[is_in["train"]].amin(dim=0), inputs[is_in["train"]].amax(dim=0)
    scaled = ((inputs - low) / (high - low)).float()
    return Samples(inputs=scaled[is_in[split]], labels=torch.from_numpy(wine.target).long()[is_in[split]])


WINE = TaskSpec(
    name="wine",
    version=1,
    summary="178 wines by 13 measurements: a task that serves no images",
    shape=(13,),
    classes=3,
    data=_data,
    config=WineOptions,
    manifest={
        "train": "43f3a4c4c8f2bcae7a48d8a296a50d4ffaf8e6beb054ed8175c00e920e374241",
        "validation": "06b3e87ba0d5b64aec404b7e1f516bcd3c0e42384826ebbd33caf3de27abd2c5",
        "test": "adaed391bbc26be8ae15c371414fcdd0045a874f0a513a56d55befd51c319f33",
    },
    reference=Reference(title="Wine (UCI), as sklearn.datasets.load_wine", url="https://doi.org/10.24432/C5PC7J"),
)
