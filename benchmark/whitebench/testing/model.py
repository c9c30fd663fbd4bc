"""The rules for models. Legend: B batch, C classes, D width of the features."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from whitebench.names import configure
from whitebench.specs import Layout, ModelSpec, Shape
from whitebench.testing.rule import attempt, is_close, rule
from whitebench.tracing import observe

BATCH = 6


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model with its options, on samples of one shape."""

    spec: ModelSpec
    config: Any
    shape: Shape
    classes: int

    @property
    def who(self) -> str:
        """Whom a broken rule names."""
        return f"model {self.spec.name!r}"

    def build(self, *, seed: int) -> nn.Module:
        """Return the model, its weights drawn from torch's generator at `seed`."""
        torch.manual_seed(seed)
        mend = "or check it with the shape of a task it is meant for"
        with attempt(self.who, f"build for samples of shape {self.shape}", mend):
            return self.spec.build(self.config, self.shape, self.classes)


def check_model(spec: ModelSpec, *, shape: Shape = (1, 8, 8), classes: int = 10, config: Any = None) -> None:
    """Check a model with its default options, or those of `config`, on samples of `shape`.

    Of one without a head only that it is built, the same by the same seed: what it can do is its task's to check.

    Raises:
        AssertionError: the first rule that it breaks.
    """
    case = Case(spec=spec, config=spec.config() if config is None else config, shape=shape, classes=classes)
    if not spec.head:
        with torch.random.fork_rng(devices=[]):
            bare = dataclasses.replace(case, shape=(), classes=0)
            _check_build(bare, bare.build(seed=0))
        return
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand(BATCH, *shape, generator=generator)
    labels = torch.randint(classes, (BATCH,), generator=generator)
    with torch.random.fork_rng(devices=[]):
        model = case.build(seed=0)
        _check_build(case, model)
        _check_forward(case.who, model, inputs, classes)
        _check_head(case.who, spec, model, inputs)
        _check_gradients(case.who, spec, model, inputs, labels)
        _check_state(case.who, model, case.build(seed=1), inputs)
        _check_search(case, model)
        _check_trace(case, model, inputs)


def _check_build(case: Case, model: object) -> None:
    rule(isinstance(model, nn.Module), case.who, f"build returned a {type(model).__name__}", "return a torch.nn.Module")
    assert isinstance(model, nn.Module)
    first, again = model.state_dict(), case.build(seed=0).state_dict()
    differing = [name for name in first if not torch.equal(first[name], again[name])]
    mend = "draw from torch's own generator"
    rule(not differing, case.who, f"the same seed gave {differing[:3]} twice differently", mend)


def _check_forward(who: str, model: nn.Module, inputs: Tensor, classes: int) -> None:
    model.eval()
    with torch.no_grad():
        with attempt(who, "forward", "map a batch of inputs to logits (B, C)"):
            logits: object = model(inputs)
        seen = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        rule(seen == (BATCH, classes), who, f"forward gave {seen}", f"return logits ({BATCH}, {classes})")
        assert isinstance(logits, Tensor)
        rule(bool(logits.isfinite().all()), who, "logits are not all finite numbers", "mend its initial weights")
        again = model(inputs)
        rule(torch.equal(again, logits), who, "two evaluations differ", "switch off what is random in eval mode")
        alone = torch.cat([model(inputs[:1]), model(inputs[1:])])
        rule(is_close(alone, logits), who, "a sample's logits depend on its batch", "keep samples apart in eval mode")


def _check_head(who: str, spec: ModelSpec, model: nn.Module, inputs: Tensor) -> None:
    with attempt(who, "watching its head", "let `head` name the submodule from features (B, D) to logits"):
        seen = observe(model, inputs, head=spec.head, trace={}, kinds=())
        logits = model.get_submodule(spec.head)(seen.features)
    rule(is_close(logits, seen.logits), who, f"head {spec.head!r} does not yield the logits", "name the last layer")


def _check_gradients(who: str, spec: ModelSpec, model: nn.Module, inputs: Tensor, labels: Tensor) -> None:
    for precision in ("float32", "bfloat16"):
        model.train()
        model.zero_grad(set_to_none=True)
        mend = f"let it train in {precision}"
        with (
            attempt(who, f"a training step in {precision}", mend),
            torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"),
        ):
            loss = F.cross_entropy(model(inputs).float(), labels)
            if spec.penalty is not None:
                penalty = _penalty(who, spec.penalty(model))
                loss = loss + penalty
            loss.backward()  # type: ignore[no-untyped-call]
        for name, weight in model.named_parameters():
            if weight.requires_grad:
                rule(weight.grad is not None, who, f"{name} has no gradient", "use it, or freeze it")
                assert weight.grad is not None
                rule(bool(weight.grad.isfinite().all()), who, f"the gradient of {name} is not finite", mend)
    model.zero_grad(set_to_none=True)
    model.eval()


def _penalty(who: str, penalty: object) -> Tensor:
    what = f"a tensor {tuple(penalty.shape)}" if isinstance(penalty, Tensor) else f"a {type(penalty).__name__}"
    is_scalar = isinstance(penalty, Tensor) and penalty.ndim == 0
    rule(is_scalar, who, f"penalty gave {what}", "return a scalar tensor")
    assert isinstance(penalty, Tensor)
    rule(bool(penalty.isfinite()), who, f"penalty gave {penalty.item()}", "mend its formula")
    return penalty


def _check_state(who: str, model: nn.Module, other: nn.Module, inputs: Tensor) -> None:
    mend = "keep all that sets its output in parameters and buffers of a fixed shape"
    with attempt(who, "loading its own state", mend), torch.no_grad():
        other.load_state_dict(model.state_dict())
        one, two = model.eval()(inputs), other.eval()(inputs)
    rule(torch.equal(one, two), who, "a copy with the same state gives other logits", mend)


def _check_search(case: Case, model: nn.Module) -> None:
    size = sum(weight.numel() for weight in model.parameters())
    options = {one.name: getattr(case.config, one.name) for one in dataclasses.fields(case.config)}
    for name, space in case.spec.search.items():
        for share in (0.0, 0.5, 1.0):
            value = space.at(share)
            who = f"{case.who} at {name}={value}"
            with attempt(who, "its config", "search only values that it takes"):
                tried = configure(who, case.spec.config, {**options, name: value})
            now = sum(weight.numel() for weight in dataclasses.replace(case, config=tried).build(seed=0).parameters())
            rule(now == size, who, f"it has {now} parameters instead of {size}", "search nothing that sets its size")


def _layout(case: Case) -> Layout:
    layout: object = case.spec.layout(case.config, case.shape) if case.spec.layout else Layout()
    rule(isinstance(layout, Layout), case.who, f"layout gave a {type(layout).__name__}", "return a Layout")
    assert isinstance(layout, Layout)
    return layout


def _check_trace(case: Case, model: nn.Module, inputs: Tensor) -> None:
    who, spec, layout = case.who, case.spec, _layout(case)
    whole, part = _traces(who, spec, model, inputs), _traces(who, spec, model, inputs[:2])
    for kind, layers in whole.items():
        about = f"{who}, trace {kind!r}"
        rule(len(layers) > 0, about, "it has no layer", "name modules that are called")
        rule(
            len(layers) == len(part[kind]), about, "the number of layers depends on the batch", "yield every layer once"
        )
        for layer in layers:
            rule(bool(layer.isfinite().all()), about, "it holds what is no finite number", "mend the model")
        if _is_weight(layers, part[kind]):
            continue
        shapes = [tuple(layer.shape) for layer in layers]
        rule(all(one[0] == len(inputs) for one in shapes), about, f"it gave {shapes}", "put the batch first")
        for layer, alone in zip(layers, part[kind], strict=True):
            rule(is_close(layer[:2], alone), about, "a sample's tensors depend on its batch", "keep samples apart")
        if kind == "projections":
            fits = all(len(one) == 3 and one[2] % layout.heads == 0 for one in shapes)
            rule(fits, about, f"it gave {shapes} for {layout.heads} heads", "yield (B, N, heads x head width)")


def _is_weight(layers: Sequence[Tensor], of_fewer: Sequence[Tensor]) -> bool:
    """Return whether what was traced is the same for fewer samples, as a weight is and nothing of a sample."""
    return all(torch.equal(layer, other) for layer, other in zip(layers, of_fewer, strict=True))


def _traces(who: str, spec: ModelSpec, model: nn.Module, inputs: Tensor) -> Mapping[str, Sequence[Tensor]]:
    with attempt(who, "tracing", "name modules that the forward pass calls"), torch.no_grad():
        kinds = list(spec.trace) if isinstance(spec.trace, Mapping) else list(spec.trace(model, inputs))
        seen = observe(model, inputs, head=spec.head, trace=spec.trace, kinds=kinds)
        unseen = model(inputs)
    rule(torch.equal(seen.logits, unseen), who, "being looked at changes its logits", "let no hook change a tensor")
    return seen.trace
