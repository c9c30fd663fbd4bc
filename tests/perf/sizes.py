"""How many images a second the published sizes take on a GPU, beside timm's ViT in the same run: `docs/performance.md`.

224 x 224 pixels, synthetic images, bf16 under torch's autocast, plain and compiled: forward passes and training steps
(AdamW) by their images a second, the step's peak memory, and what share of the rate of torch's own square products the
multiply-accumulates of a forward pass reach. Prints Markdown. Where there is no GPU, or no timm, it says so.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from tests.perf.gpu import PRODUCT, forward_pass, measured_in_turns, peak_of, training_step
from tests.perf.models import CLASSES, SHAPE, compiled
from whitebench.catalog import load_catalog
from whitebench.cost import count_macs
from whitebench.names import configure, parse_name, with_preset

SIZES = {
    "crate[preset=neurips-tiny]": 512,
    "crate[preset=neurips-small]": 256,
    "crate[preset=neurips-base]": 128,
    "vit[preset=deit-tiny]": 512,
    "vit[preset=deit-small]": 256,
    "timm[name=deit_tiny_patch16_224]": 512,
    "timm[name=deit_small_patch16_224]": 256,
}
"""Images a step, by model."""

HEAD = (
    "| model | parameters | batch | images/s, forward | compiled | images/s, training | compiled | GiB, training |"
    " compiled | of the products' rate | compiled |"
)


def main() -> None:
    """Measure one model after the other, and print a row for each as soon as it is known."""
    if not torch.cuda.is_available():
        print("sizes on a GPU: not measured, torch sees none here")
        return
    factor = torch.randn(PRODUCT, PRODUCT, device="cuda", dtype=torch.bfloat16)
    [product] = measured_in_turns(lambda: torch.mm(factor, factor))
    rate = PRODUCT**3 / statistics.median(product)
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, bf16; square products of {PRODUCT}: "
          f"{2 * rate / 1e12:.0f} TFLOP/s\n")  # fmt: skip
    print(f"{HEAD}\n|:--|{'--:|' * (HEAD.count('|') - 2)}")
    wanted = sys.argv[1:] or list(SIZES)
    for name in wanted:
        try:
            print(_row(name, SIZES[name], rate), flush=True)
        except ImportError as error:
            print(f"| {name} | not measured: {error} |{' |' * (HEAD.count('|') - 3)}", flush=True)


def _row(name: str, batch: int, rate: float) -> str:
    torch.manual_seed(0)
    plain, options = parse_name(name)
    spec = load_catalog([]).model(plain).spec
    chosen = with_preset(plain, spec.presets, options)
    model = spec.build(configure(plain, spec.config, chosen), SHAPE, CLASSES).cuda()
    macs = count_macs(model, SHAPE)
    images = torch.randn(batch, *SHAPE, device="cuda")
    both: list[nn.Module] = [model, compiled(model)]
    forwards: list[Callable[[], object]] = [partial(forward_pass, one, images) for one in both]
    steps = [training_step(one, images) for one in both]
    forward, step = ([statistics.median(one) for one in measured_in_turns(*works)] for works in (forwards, steps))
    peaks = [peak_of(one) for one in steps]
    parameters = sum(one.numel() for one in model.parameters())
    numbers = [f"{batch / seconds:,.0f}" for seconds in (*forward, *step)] + [f"{peak:.1f}" for peak in peaks]
    numbers += [f"{macs * batch / seconds / rate:.2f}" for seconds in forward]
    return f"| `{name}` | {parameters / 1e6:.1f} M | {batch} | {' | '.join(numbers)} |"


if __name__ == "__main__":
    main()
