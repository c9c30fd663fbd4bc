"""What looking inside takes: every registered metric on CRATE-T at 224 x 224 pixels, 512 images. Part of `make perf`.

Its memory is the peak above what is held when looking begins, the images apart. Each metric is scored alone for its
seconds, so that the pass through the network is in each.
"""

from __future__ import annotations

import sys
import time

import torch

import whitebench
from tests.perf.line import Line, print_each
from whitebench.cost import PeakMemory
from whitebench.names import configure
from whitebench.testing import items
from whitebench_models.crate import CRATE_SPEC

IMAGES, CLASSES = 512, 1000
AIM_GB = 2.0
PLAN = "crate[preset=neurips-tiny]"


def main() -> None:
    """Measure and print; a number says how many images instead of 512."""
    images = int(sys.argv[1]) if len(sys.argv) > 1 else IMAGES
    print(f"looking inside, torch with {torch.get_num_threads()} threads\n")
    print_each([lambda: measure(images)])


def measure(count: int) -> list[Line | str]:
    """Score `count` synthetic images with every metric at once, then with each alone on a sixteenth of them."""
    torch.manual_seed(0)
    model = CRATE_SPEC.build(
        configure("crate", CRATE_SPEC.config, CRATE_SPEC.presets["neurips-tiny"]), (3, 224, 224), CLASSES
    )
    data = (torch.randn(count, 3, 224, 224), torch.randint(CLASSES, (count,)))
    metrics = items("metric")
    some = max(count // 16, 1)
    few = (data[0][:some], data[1][:some])
    whitebench.score(model, few, metrics[:1], PLAN)
    memory, started = PeakMemory(), time.monotonic()
    found = whitebench.score(model, data, metrics, PLAN)
    seconds, peak = time.monotonic() - started, memory.above_start() / 1e9
    what = f"every metric on CRATE-T, {count} images: peak memory / {AIM_GB:g} GB"
    unscored = [f"    {one.name}: {one.unscored}" for one in found.scores if one.value is None]
    lines: list[Line | str] = [
        Line(
            what=what,
            aim=1.0,
            first=[peak],
            second=[AIM_GB],
            unit="GB",
            note=f"; {seconds:.0f} s, {len(found.scores)} scores",
        ),
        *unscored,
    ]
    for metric in metrics:
        started = time.monotonic()
        whitebench.score(model, few, [metric], PLAN)
        lines.append(f"    {metric.name:24} {time.monotonic() - started:6.1f} s for {some} images")
    return lines


if __name__ == "__main__":
    main()
