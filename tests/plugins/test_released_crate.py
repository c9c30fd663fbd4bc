"""Released checkpoints of CRATE: read from a file, scored as they stand, trained on, recognised by the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from tests.conftest import Type
from tests.plugins import textbook
from whitebench.catalog import load_catalog
from whitebench.weights import load_weights
from whitebench_models.crate import CRATE, CRATE_SPEC, CRATEConfig

Sizes = tuple[int, int, int, int]
"""Width, layers, heads, side of a patch."""
TINY: Sizes = (384, 12, 6, 16)


def released_shapes(sizes: Sizes, *, numbers: int, patches: int, classes: int) -> dict[str, tuple[int, ...]]:
    """Return the shape of every weight of a released checkpoint by the name it has there."""
    dim, depth, *_ = sizes
    shapes: dict[str, tuple[int, ...]] = {"pos_embedding": (1, patches + 1, dim), "cls_token": (1, 1, dim)}
    shapes |= {f"to_patch_embedding.1.{part}": (numbers,) for part in ("weight", "bias")}
    shapes |= {"to_patch_embedding.2.weight": (dim, numbers), "to_patch_embedding.2.bias": (dim,)}
    shapes |= {f"to_patch_embedding.3.{part}": (dim,) for part in ("weight", "bias")}
    for layer in (f"transformer.layers.{index}" for index in range(depth)):
        shapes |= {f"{layer}.{half}.norm.{part}": (dim,) for half in (0, 1) for part in ("weight", "bias")}
        shapes |= {f"{layer}.0.fn.qkv.weight": (dim, dim), f"{layer}.1.fn.weight": (dim, dim)}
        shapes |= {f"{layer}.0.fn.to_out.0.weight": (dim, dim), f"{layer}.0.fn.to_out.0.bias": (dim,)}
    shapes |= {f"mlp_head.0.{part}": (dim,) for part in ("weight", "bias")}
    return shapes | {"mlp_head.1.weight": (classes, dim), "mlp_head.1.bias": (classes,)}


def released_logits(images: Tensor, weights: dict[str, Tensor], sizes: Sizes) -> Tensor:
    """Return what the released code makes of images (B, channels, height, width) with such weights.

    Its steps as they stand there: patches in the order row, column, channel; three products in ISTA; the class token
    first and read out.
    """
    dim, depth, heads, side = sizes

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"])

    logits = []
    for image in images:
        x = norm(textbook.patches_of(image, side), "to_patch_embedding.1")
        x = F.linear(x, weights["to_patch_embedding.2.weight"], weights["to_patch_embedding.2.bias"])
        x = torch.cat([weights["cls_token"][0], norm(x, "to_patch_embedding.3")]) + weights["pos_embedding"][0]
        for layer in (f"transformer.layers.{index}" for index in range(depth)):
            w = F.linear(norm(x, f"{layer}.0.norm"), weights[f"{layer}.0.fn.qkv.weight"])
            mixed = [torch.softmax(own @ own.T * (dim // heads) ** -0.5, dim=-1) @ own for own in w.chunk(heads, dim=1)]
            out = f"{layer}.0.fn.to_out.0"
            x = x + F.linear(torch.cat(mixed, dim=1), weights[f"{out}.weight"], weights[f"{out}.bias"])
            x, D = norm(x, f"{layer}.1.norm"), weights[f"{layer}.1.fn.weight"]
            lasso = F.linear(x, D.t()) - F.linear(F.linear(x, D), D.t())
            x = F.relu(x + 0.1 * lasso - 0.1 * 0.1)
        logits.append(F.linear(norm(x[0], "mlp_head.0"), weights["mlp_head.1.weight"], weights["mlp_head.1.bias"]))
    return torch.stack(logits)


def drawn(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: 0.5 * torch.randn(shape, generator=generator).double() for name, shape in shapes.items()}


def save_as_released(weights: dict[str, Tensor], file: Path) -> Path:
    """Save a checkpoint as the released code does in training on several devices."""
    facts = {"epoch": 150, "arch": "CRATE_tiny", "best_acc1": torch.tensor(66.7), "optimizer": {"state": {}}}
    torch.save({**facts, "state_dict": {f"module.{name}": one for name, one in weights.items()}}, file)
    return file


def test_a_released_checkpoint_gives_the_released_codes_logits(tmp_path: Path) -> None:
    sizes: Sizes = (12, 2, 3, 2)
    weights = drawn(released_shapes(sizes, numbers=3 * 2 * 2, patches=6, classes=5))
    model = CRATE(CRATEConfig(dim=12, depth=2, heads=3, patch=2), (3, 4, 6), 5).double()
    file = save_as_released(weights, tmp_path / "crate.pth")
    assert load_weights(file, model, CRATE_SPEC.released, head=CRATE_SPEC.head) == []
    images = torch.randn(4, 3, 4, 6, dtype=torch.float64)
    torch.testing.assert_close(model(images), released_logits(images, weights, sizes), rtol=1e-12, atol=1e-12)


def test_a_checkpoint_with_one_weight_less_is_refused_by_that_weights_name(tmp_path: Path) -> None:
    weights = drawn(released_shapes((12, 2, 3, 2), numbers=3 * 2 * 2, patches=6, classes=5))
    del weights["transformer.layers.1.1.fn.weight"]
    model = CRATE(CRATEConfig(dim=12, depth=2, heads=3, patch=2), (3, 4, 6), 5)
    file = save_as_released(weights, tmp_path / "crate.pth")
    with pytest.raises(ValueError, match=r"1 of the model's 28 weights .* it has no blocks\.1\.ista\.dictionary"):
        load_weights(file, model, CRATE_SPEC.released, head=CRATE_SPEC.head)


SUITE = """
name = "given"
version = 1
summary = "A released checkpoint, as it stands and trained on."
primary = "accuracy"
tasks = ["digits"]
seeds = 1
metrics = ["accuracy", "sparsity"]
[budget]
epochs = 1
batch_size = 2000
trials = 0
[recipes.plain]
learning_rate = { value = 1e-5 }
weight_decay = { value = 0.0 }
warmup_epochs = 0
[[contestants]]
label = "as-it-stands"
model = "crate[dim=12,depth=2,heads=3,patch=4]"
weights = "crate.pth"
epochs = 0
[[contestants]]
label = "trained-on"
model = "crate[dim=12,depth=2,heads=3,patch=4]"
weights = "crate.pth"
"""


@pytest.mark.slow
def test_a_run_scores_the_released_weights_as_they_stand_and_trains_on_from_them(
    tmp_path: Path, type_here: Type
) -> None:
    sizes: Sizes = (12, 2, 3, 4)
    weights = drawn(released_shapes(sizes, numbers=1 * 4 * 4, patches=4, classes=10))
    save_as_released(weights, tmp_path / "crate.pth")
    (tmp_path / "given.toml").write_text(SUITE, encoding="utf-8")
    done = type_here("whitebench", "run", "given.toml")
    assert done.returncode == 0, done.stdout + done.stderr
    stored = {is_trained(file): file.parent for file in tmp_path.rglob("identity.json")}
    digits = load_catalog().task("digits").spec
    expected = released_logits(digits.data(digits.config(), "test").inputs.double(), weights, sizes)
    logits = load_file(stored[False] / "predictions.safetensors")["logits"]
    torch.testing.assert_close(logits.double(), expected, rtol=1e-5, atol=1e-5)  # the fit computes in float32
    given, trained = (load_file(stored[one] / "weights.safetensors") for one in (False, True))
    # One batch holds all samples, and the first step of Adam moves no weight by more than the learning rate.
    moved = max(float((trained[name] - given[name]).abs().max()) for name in given)
    assert moved == pytest.approx(1e-5, rel=0.02)
    board = json.loads(type_here("whitebench", "board", "given.toml", "--json").stdout)
    assert {one["contestant"]: one["is_trained_elsewhere"] for one in board["entries"]} == {
        "as-it-stands": True,
        "trained-on": False,
    }


def is_trained(identity: Path) -> bool:
    return bool(json.loads(identity.read_text(encoding="utf-8"))["contestant"]["is_trained"])


def test_the_command_recognises_the_size_of_a_released_checkpoint(tmp_path: Path, type_here: Type) -> None:
    shapes = released_shapes(TINY, numbers=3 * 16 * 16, patches=14 * 14, classes=1000)
    # One number, shown in every shape: the file holds 4 bytes for each weight.
    save_as_released({name: torch.zeros(1).expand(shape) for name, shape in shapes.items()}, tmp_path / "crate.pth")
    done = type_here("whitebench", "weights", "crate.pth", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["model"] == "crate[preset=neurips-tiny]"
    assert (found["is_whole"], found["unused"], found["tensors"]) == (True, [], len(shapes))
