"""timm's models: refused in plain words where timm cannot be imported; where it can, they are what timm makes them."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.conftest import Type
from whitebench import Layout, MetricContext, Samples, WhitebenchError
from whitebench.catalog import load_catalog
from whitebench.evaluation import Subject, predict
from whitebench.scoring import score
from whitebench.testing import check_model
from whitebench.tracing import observe
from whitebench.weights import load_weights, match_weights
from whitebench_models.timm_models import TIMM, TimmConfig, TimmModel
from whitebench_models.vit import MLP

SHAPE, CLASSES = (3, 32, 32), 10


def test_neither_the_harness_nor_its_plugins_need_timm() -> None:
    # Nor torchvision: an import contract says so. Where it is installed, torchmetrics imports it by itself.
    ask = (
        "import sys\n"
        "sys.modules['timm'] = None  # so that an import of it fails\n"
        "import whitebench.cli, whitebench.fitting, whitebench_models\n"
        "from whitebench.catalog import load_catalog\n"
        "print(load_catalog().model('timm').spec.name)"
    )
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "timm"


SUITE = """
name = "timm"
version = 1
summary = "A model of timm."
primary = "accuracy"
tasks = ["digits"]
seeds = 1
metrics = ["accuracy"]
[budget]
epochs = 1
batch_size = 500
trials = 0
[recipes.plain]
learning_rate = { value = 1e-3 }
[[contestants]]
label = "resnet"
model = "timm[name=resnet18]"
"""


@pytest.mark.slow
def test_a_run_is_refused_while_timm_cannot_be_imported_and_nothing_is_left(tmp_path: Path, type_in: Type) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "timm.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "timm.toml").write_text(SUITE, encoding="utf-8")
    path = os.pathsep.join([str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")])
    refused = type_in("whitebench", "run", "timm.toml", env={"PYTHONPATH": path}, cwd=tmp_path / "work")
    assert (refused.returncode, refused.stdout) == (2, "")
    said = " ".join(refused.stderr.split())
    assert (
        "contestant resnet fits none of the tasks to be run: digits: timm cannot be imported: install it with "
        "pip install 'whitebench[timm]'; the torchvision it needs must be the build for torch "
        f"{torch.__version__} (RuntimeError: operator torchvision::nms does not exist). Change it"
    ) in said
    assert [one.name for one in (tmp_path / "work").iterdir()] == ["timm.toml"]


def test_without_timm_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)  # what Python itself does with a module that must not be found
    with pytest.raises(WhitebenchError, match=r"pip install 'whitebench\[timm\]'.*\(ModuleNotFoundError: .*timm"):
        TIMM.build(TimmConfig(), SHAPE, CLASSES)


def test_impossible_options_are_refused_before_timm_is_asked() -> None:
    with pytest.raises(WhitebenchError, match=r"timm\[patch=-1\]: patch must be 1 or more, or 0"):
        TimmConfig(patch=-1)
    with pytest.raises(WhitebenchError, match=r"timm: an image of 8 x 8 pixels cannot be cut into patches of 3 x 3"):
        TIMM.build(TimmConfig(patch=3), (1, 8, 8), CLASSES)
    with pytest.raises(WhitebenchError, match=r"timm: samples of shape \(13,\) are no images"):
        TIMM.build(TimmConfig(), (13,), CLASSES)


# The wrapper, around bodies of ours that name their parts as timm does


class Layer(nn.Module):
    """A block of a ViT's names, `mlp.act`, on tokens (B, N, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.mlp = MLP(4, 8)
        self.mlp.act = self.mlp.activation

    def forward(self, tokens: Tensor) -> Tensor:
        moved: Tensor = tokens + self.mlp(tokens)
        return moved


class TokensBody(nn.Module):
    """From (B, 1, 2, 2) to two tokens of width 4, and their mean."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(2, 4)
        self.blocks = nn.Sequential(Layer(), Layer())

    def forward(self, images: Tensor) -> Tensor:
        pooled: Tensor = self.blocks(self.embed(images.flatten(1, 2))).mean(dim=1)
        return pooled


class MapsBody(nn.Module):
    """From (B, 1, 2, 2) to maps of 4 channels, and their mean."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(nn.Conv2d(1, 4, 1), nn.Conv2d(4, 4, 1))

    def forward(self, images: Tensor) -> Tensor:
        pooled: Tensor = self.blocks(images).mean(dim=(2, 3))
        return pooled


def wrapped(body: nn.Module) -> TimmModel:
    torch.manual_seed(0)
    return TimmModel(body, width=4, classes=3).eval()


def test_tokens_and_codes_are_those_of_the_forward_pass_and_no_hook_stays() -> None:
    body, images = TokensBody(), torch.randn(5, 1, 2, 2)
    seen = observe(wrapped(body), images, head="head", trace=TIMM.trace, kinds=["tokens", "codes"])
    first, second = body.blocks
    start = body.embed(images.flatten(1, 2))
    tokens = [first(start), second(first(start))]
    codes = [nn.functional.gelu(one.mlp.expand(given)) for one, given in ((first, start), (second, tokens[0]))]  # type: ignore[operator]
    torch.testing.assert_close(list(seen.trace["tokens"]), [one.detach() for one in tokens])
    torch.testing.assert_close(list(seen.trace["codes"]), [one.detach() for one in codes])
    torch.testing.assert_close(seen.features, tokens[1].mean(dim=1).detach())
    assert not any(module._forward_hooks for module in body.modules())


@pytest.mark.parametrize("body", [MapsBody(), nn.Sequential(nn.Flatten())], ids=["maps", "no blocks"])
def test_a_model_without_tokens_offers_no_trace_and_loses_only_the_metrics_that_need_one(body: nn.Module) -> None:
    model = wrapped(body)
    samples = Samples(inputs=torch.randn(9, 1, 2, 2), labels=torch.arange(9) % 3)
    context = MetricContext(classes=3, shape=(1, 2, 2), layout=Layout())
    subject = Subject(module=model, spec=TIMM, context=context)
    catalog = load_catalog()
    metrics = [catalog.metric(name).spec for name in ("accuracy", "coding-rate", "sparsity", "subspace-coding-rate")]
    logits = predict(subject, samples.inputs, batch_size=4)
    accuracy, *others = score(subject, samples, logits, metrics, batch_size=4).scores
    assert accuracy.value == pytest.approx((logits.argmax(1) == samples.labels).double().mean().item())
    assert [(one.metric, one.unscored) for one in others] == [
        ("coding-rate", "model timm gives no trace of tokens (it gives none)"),
        ("sparsity", "model timm gives no trace of codes (it gives none)"),
        ("subspace-coding-rate", "model timm gives no trace of projections (it gives none)"),
    ]


@pytest.mark.parametrize("classifier", ["head", "fc", "classifier", "head.fc"])
def test_a_checkpoint_of_timms_fits_whatever_its_classifier_is_called(classifier: str) -> None:
    model = wrapped(TokensBody())
    theirs = dict(model.body.state_dict())
    theirs |= {f"{classifier}.{name}": one for name, one in model.head.state_dict().items()}
    match = match_weights(theirs, model, TIMM.released)
    assert (match.is_whole, match.unused) == (True, ())
    assert match.fits["head.bias"] == f"{classifier}.bias"
    assert match.fits["body.blocks.1.mlp.expand.weight"] == "blocks.1.mlp.expand.weight"


# With timm itself


@pytest.fixture(scope="module")
def timm() -> Any:
    """timm, where it can be imported."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import timm
    except Exception as error:  # torchvision beside another build of torch raises what it likes
        pytest.skip(f"timm cannot be imported here: {type(error).__name__}: {error}")
    return timm


KNOWN: dict[str, dict[str, Any]] = {
    "vit_tiny_patch16_224": {"patch": 4},
    "resnet18": {},
    "mobilenetv3_small_050": {},
    "convnext_atto": {},
}
"""Four whose classifiers are called head, fc, classifier and head.fc."""


@pytest.mark.parametrize("name", KNOWN)
def test_timms_models_keep_the_rules(timm: Any, name: str) -> None:
    check_model(TIMM, shape=SHAPE, classes=CLASSES, config=TimmConfig(name=name, **KNOWN[name]))


@pytest.mark.parametrize("name", KNOWN)
def test_with_the_weights_of_a_whole_timm_model_the_logits_are_its_own(timm: Any, tmp_path: Path, name: str) -> None:
    torch.manual_seed(0)
    sizes = {"img_size": SHAPE[1:], "patch_size": 4} if "patch" in KNOWN[name] else {}
    whole = timm.create_model(name, num_classes=CLASSES, **sizes).eval()
    torch.save(whole.state_dict(), tmp_path / "timm.pth")
    ours = TIMM.build(TimmConfig(name=name, **KNOWN[name]), SHAPE, CLASSES).eval()
    assert load_weights(tmp_path / "timm.pth", ours, TIMM.released, head=TIMM.head) == []
    images = torch.randn(4, *SHAPE)
    torch.testing.assert_close(ours(images), whole(images))


def test_a_vit_of_timms_has_the_published_number_of_parameters_and_shows_its_layers(timm: Any) -> None:
    model = TIMM.build(TimmConfig(), (3, 224, 224), 1000)
    assert sum(one.numel() for one in model.parameters()) == 5_717_416
    small = TIMM.build(TimmConfig(patch=8), SHAPE, CLASSES).eval()
    seen = observe(small, torch.randn(2, *SHAPE), head="head", trace=TIMM.trace, kinds=["tokens", "codes"])
    assert [tuple(one.shape) for one in seen.trace["tokens"]] == [(2, 17, 192)] * 12
    assert [tuple(one.shape) for one in seen.trace["codes"]] == [(2, 17, 768)] * 12


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv3_small_050"])
def test_a_convolutional_model_of_timms_offers_no_trace(timm: Any, name: str) -> None:
    model = TIMM.build(TimmConfig(name=name), SHAPE, CLASSES).eval()
    seen = observe(model, torch.randn(2, *SHAPE), head="head", trace=TIMM.trace, kinds=["tokens", "codes"])
    assert (dict(seen.trace), seen.offered) == ({}, frozenset())


def test_what_timm_cannot_give_is_refused_in_plain_words(timm: Any) -> None:
    with pytest.raises(WhitebenchError, match=r"timm\[name=resnet81\]: .* no such model, did you mean .*resnet18"):
        TIMM.build(TimmConfig(name="resnet81"), SHAPE, CLASSES)
    with pytest.raises(WhitebenchError, match=r"timm\[name=resnet18,patch=4\]: this model takes no patch"):
        TIMM.build(TimmConfig(name="resnet18", patch=4), SHAPE, CLASSES)
    with pytest.raises(WhitebenchError, match=r"8 x 8 pixels cannot be cut into patches of 16 x 16"):
        TIMM.build(TimmConfig(), (1, 8, 8), CLASSES)


def test_weights_that_cannot_be_fetched_are_said_to_be_so(timm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(timm, "create_model", unreachable)
    with pytest.raises(WhitebenchError, match=r"timm\[name=resnet18,pretrained=true\]: .*OSError: no route to host"):
        TIMM.build(TimmConfig(name="resnet18", pretrained=True), SHAPE, CLASSES)
