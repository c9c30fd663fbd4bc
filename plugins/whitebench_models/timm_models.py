"""Any model of timm by its name: `timm[name=vit_tiny_patch16_224]`, the models that people know, judged by our rules.

timm (Wightman, PyTorch Image Models, https://github.com/huggingface/pytorch-image-models) is taken as it is. Of each
model the classifier, whatever it is called there, is left out, and a linear layer of ours stands in its place:

    logits = body(x) W^T + b          body: the timm model, from images to pooled features

It is built for the task's channels and, where it takes these, for the task's height and width and for `patch`. W and b
start as torch starts them, the body as timm starts it.

Seen inside are the tokens after each of the body's `blocks` and the hidden activations in their MLPs, which is what
timm calls them in a ViT and its kin (DeiT, BEiT, EVA). A model built otherwise offers no trace. For other names,
register `dataclasses.replace(TIMM, name="mixer", trace={"codes": "body.blocks.*.mlp_channels.act"})`.

timm, and torchvision which it imports, come with `pip install 'whitebench[timm]'` and are imported only once such a
model is built.

B batch, N tokens, D width, F width of the features, C classes.
"""

from __future__ import annotations

import difflib
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from whitebench import ModelSpec, Reference, Shape, WhitebenchError
from whitebench_models.patches import count_patches

if TYPE_CHECKING:
    from whitebench import Trace


@dataclass(frozen=True, kw_only=True)
class TimmConfig:
    """Which of timm's models, and what it starts from."""

    name: str = "vit_tiny_patch16_224"
    """As timm calls it; a tag that follows, as in `resnet18.a1_in1k`, says which of its weights."""
    patch: int = 0
    """Side of a patch in pixels, for models that take one; 0 leaves the model its own."""
    pretrained: bool = False
    """Start from the weights that timm fetches from its hub. A contestant's `weights = FILE` needs no network, and its
    bytes count in a cell's identity."""

    def __post_init__(self) -> None:
        if self.patch < 0:
            raise WhitebenchError(f"timm[patch={self.patch}]: patch must be 1 or more, or 0 for the model's own")


class TimmModel(nn.Module):
    """A timm model without its classifier, and a linear layer, from images (B, channels, height, width) to (B, C)."""

    def __init__(self, body: nn.Module, width: int, classes: int) -> None:
        super().__init__()
        self.body = body
        self.head = nn.Linear(width, classes)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Return the logits, (B, C)."""
        features_BF = self.body(images_BCHW)
        logits_BC: Tensor = self.head(features_BF)
        return logits_BC


def build(config: TimmConfig, shape: Shape, classes: int) -> TimmModel:
    """Return the model for samples of `shape`.

    Raises:
        WhitebenchError: timm cannot be imported or has no such model; the samples are no images, or none that can be
            cut into its patches; it takes no `patch`; its weights cannot be had.
    """
    count_patches("timm", shape, config.patch or 1)
    timm = _import_timm()
    if not timm.is_model(config.name):
        near = difflib.get_close_matches(config.name.partition(".")[0], timm.list_models(), n=3)
        hint = f", did you mean {' or '.join(near)}?" if near else "; `timm.list_models()` has all names"
        raise WhitebenchError(f"timm[name={config.name}]: timm {timm.__version__} has no such model{hint}")
    body = _body(timm, config, shape)
    embed = getattr(body, "patch_embed", None)
    if isinstance(embed, timm.layers.PatchEmbed) and not embed.dynamic_img_pad:
        count_patches("timm", shape, max(embed.patch_size))
    # Of the two widths, where they differ (MobileNetV3), the head's is that of the features.
    return TimmModel(body, getattr(body, "head_hidden_size", None) or body.num_features, classes)


def _import_timm() -> Any:
    try:
        import timm
        import timm.layers
    except Exception as error:  # torchvision beside another build of torch raises a RuntimeError
        raise WhitebenchError(
            "timm cannot be imported: install it with pip install 'whitebench[timm]'; the torchvision it needs must be "
            f"the build for torch {torch.__version__} ({type(error).__name__}: {error})"
        ) from error
    return timm


def _body(timm: Any, config: TimmConfig, shape: Shape) -> Any:
    """Return the timm model without its classifier, of the sizes asked for: a ViT takes them, most CNNs do not."""
    create = partial(timm.create_model, config.name, pretrained=config.pretrained, num_classes=0, in_chans=shape[0])
    if config.patch:
        create = partial(create, patch_size=config.patch)
    try:
        try:
            return create(img_size=shape[1:])
        except TypeError as error:
            if "'img_size'" not in str(error):
                raise
            return create()
    except Exception as error:
        who = f"timm[name={config.name}"
        if isinstance(error, TypeError) and "'patch_size'" in str(error):
            raise WhitebenchError(f"{who},patch={config.patch}]: this model takes no patch; leave it out") from error
        if not config.pretrained:
            raise
        raise WhitebenchError(
            f"{who},pretrained=true]: its weights cannot be had ({type(error).__name__}: {error}); fetch them once, "
            f"with a network, by `python -c \"import timm; timm.create_model('{config.name}', pretrained=True)\"`, "
            "or give the contestant weights = FILE"
        ) from error


def look_inside(model: nn.Module, images_BCHW: Tensor) -> Trace:
    """Return the tokens (B, N, D) after each block, and the hidden activations in its MLP, where there are such.

    Convolutional stages may be called `blocks` too: what they yield, maps (B, D, height, width), are no tokens.
    """
    assert isinstance(model, TimmModel)
    blocks = list(getattr(model.body, "blocks", ()))
    activations = [getattr(getattr(block, "mlp", None), "act", None) for block in blocks]
    seen: dict[str, list[Any]] = {"tokens": [], "codes": []}
    with ExitStack() as hooks:
        for kind, modules in (("tokens", blocks), ("codes", activations)):
            for module in filter(None, modules):
                hooks.enter_context(module.register_forward_hook(partial(_keep, seen[kind])))
        model(images_BCHW)
    return {kind: layers for kind, layers in seen.items() if layers and all(map(_is_row_of_tokens, layers))}


def _keep(layers: list[Any], _module: nn.Module, _inputs: Any, output: Any) -> None:
    layers.append(output.clone() if isinstance(output, Tensor) else output)


def _is_row_of_tokens(layer: object) -> bool:
    return isinstance(layer, Tensor) and layer.ndim == 3


TIMM = ModelSpec(
    name="timm",
    summary="Any model of timm by its name (pip install 'whitebench[timm]')",
    config=TimmConfig,
    build=build,
    head="head",
    trace=look_inside,
    # timm's own checkpoints, with what their classifier is called in a ResNet, an EfficientNet and a ConvNeXt.
    released={"fc.*": "head.*", "classifier.*": "head.*", "head.fc.*": "head.*", "**": "body.**"},
    reference=Reference(title="PyTorch Image Models (timm)", url="https://github.com/huggingface/pytorch-image-models"),
)
