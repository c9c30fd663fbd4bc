"""Looking inside: one forward pass, and what named modules took in and gave out on the way.

A model contains no benchmark code. Hooks stand on its modules for one pass and are taken off again, also
when the pass raises. Legend: B batch, C classes, D width of the features.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from whitebench.errors import TraceError, near_misses
from whitebench.multihead import METHODS

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle

    from whitebench.specs import Trace, TraceFunction, TracePatterns

SUFFIXES = ("", "in", "param")
METHOD = "()"
"""What a suffix ends in that names a method of the module."""
MOST_NAMES_SHOWN = 30


@dataclass(frozen=True, kw_only=True, eq=False)
class Observation:
    """One batch as metrics see it; every tensor is detached and no later operation changes it."""

    logits: Tensor
    """(B, C)"""
    features: Tensor
    """(B, D): what the head takes."""
    trace: Trace
    """Per kind asked for, one tensor per layer; without those that a trace function leaves out."""
    offered: frozenset[str]
    """The kinds of trace on offer."""


def observe(
    model: nn.Module,
    inputs: Tensor,
    *,
    head: str,
    trace: TracePatterns | TraceFunction,
    kinds: Collection[str] | None,
) -> Observation:
    """Return what `model`, in the mode it is in, makes of one batch, with the traces asked for in `kinds` (None: all).

    Layers stand in the order in which the model names its modules; where a module is called several
    times (shared weights), it yields one tensor per call and all stand in the order of the calls.
    A trace function has the batch to itself: it is called after the pass that yields the logits. Only its call can
    tell which kinds it gives, so that one it leaves out is no mistake.

    Raises:
        TraceError: a kind is not among the patterns; a pattern matches no module; a module that matches was not
            reached, or yields something other than a tensor; the head is not called once with (B, D).
    """
    inner = _uncompiled(model)
    if head not in (names := [name.replace("._orig_mod", "") for name, _ in inner.named_modules() if name]):
        raise TraceError(f"head {head!r}: the model has no such module{near_misses(head, names)}")
    head_watch = _watch_modules("features", f"{head}:in", inner)
    watches: dict[str, _Watch] = {}
    weights: dict[str, Sequence[Tensor]] = {}
    if isinstance(trace, Mapping):
        for kind in trace if kinds is None else kinds:
            pattern = trace.get(kind)
            if pattern is None:
                raise TraceError(_not_offered(kind, trace))
            if pattern.endswith(":param"):
                weights[kind] = _parameters(kind, pattern, inner)
            else:
                watches[kind] = _watch_modules(kind, pattern, inner)

    # Hooks on a compiled model are skipped in silence, hence the stance.
    with ExitStack() as hooks, torch.no_grad(), torch.compiler.set_stance("force_eager"):
        for watch in (head_watch, *watches.values()):
            for handle in watch.attach():
                hooks.enter_context(handle)
        logits = inner(inputs)
    if not isinstance(logits, Tensor):
        raise TraceError(
            f"the model's forward returns a {type(logits).__name__}; it must return logits, one tensor (B, C)"
        )
    seen: dict[str, Sequence[Tensor]] = {kind: watch.layers() for kind, watch in watches.items()}
    is_called = not isinstance(trace, Mapping) and (kinds is None or len(kinds) > 0)
    called = _call(trace, inner, inputs) if is_called and not isinstance(trace, Mapping) else {}
    wanted = called if kinds is None else kinds
    return Observation(
        logits=logits.detach(),
        features=_features(head, [tensor for _, tensor in head_watch.calls]),
        trace={**seen, **weights, **{kind: _layers(kind, called[kind]) for kind in wanted if kind in called}},
        offered=frozenset(trace if isinstance(trace, Mapping) else called),
    )


def offered_kinds(trace: TracePatterns | TraceFunction) -> frozenset[str] | None:
    """Return the kinds of trace on offer; None for a function, which only its call can tell."""
    return frozenset(trace) if isinstance(trace, Mapping) else None


@dataclass(kw_only=True)
class _Watch:
    """The modules that yield one kind of tensor, and what each call of them yielded."""

    kind: str
    pattern: str
    modules: Mapping[str, nn.Module]
    takes_input: bool
    method: str = ""
    """What the modules' input is given to, after the pass; empty where it is the tensor itself."""
    calls: list[tuple[int, Tensor]] = field(default_factory=list)
    """The module's place among `modules`, and its tensor, in the order of the calls."""

    def attach(self) -> Iterator[RemovableHandle]:
        """Put a hook on every module and yield its handle."""
        for place, (name, module) in enumerate(self.modules.items()):
            keep = self._keeper(place, name)
            if self.takes_input:
                yield module.register_forward_pre_hook(
                    lambda _, args, named, keep=keep: keep(next(iter((*args, *named.values())), None)),
                    with_kwargs=True,
                )
            else:
                yield module.register_forward_hook(lambda _, __, output, keep=keep: keep(output))

    def _keeper(self, place: int, name: str) -> Callable[[Any], None]:
        def keep(value: Any) -> None:
            found = value[0] if isinstance(value, tuple | list) and value else value
            if not isinstance(found, Tensor):
                what = "takes" if self.takes_input else "yields"
                raise TraceError(f"trace {self.kind!r}: module {name!r} {what} a {type(found).__name__}, no tensor")
            # A copy, because a later in-place operation (`x += ...`) would change what was seen.
            self.calls.append((place, found.detach().clone()))

        return keep

    def layers(self) -> list[Tensor]:
        """Return one tensor per layer.

        Raises:
            TraceError: a module was not reached.
        """
        places = [place for place, _ in self.calls]
        if missed := [repr(name) for place, name in enumerate(self.modules) if place not in set(places)]:
            raise TraceError(
                f"trace {self.kind!r}: {self.pattern!r} matches {', '.join(missed)}, which the forward pass "
                "did not reach; name a module that is called, or give the Spec a trace function"
            )
        in_order = self.calls if len(set(places)) < len(places) else sorted(self.calls, key=lambda call: call[0])
        return [self._made(place, tensor) for place, tensor in in_order]

    def _made(self, place: int, tensor: Tensor) -> Tensor:
        if not self.method:
            return tensor
        name, module = list(self.modules.items())[place]
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):
            made: object = _method(module, self.method)(tensor)
        if not isinstance(made, Tensor):
            raise TraceError(
                f"trace {self.kind!r}: {self.method}() of module {name!r} returns a {type(made).__name__}, no tensor"
            )
        return made.detach()


def _uncompiled(model: nn.Module) -> nn.Module:
    """Return the module inside torch's wrappers for several devices and for compilation, in any order."""
    while True:
        if isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
            model = model.module
        elif isinstance(compiled := getattr(model, "_orig_mod", None), nn.Module):
            model = compiled
        else:
            return model


def _watch_modules(kind: str, pattern: str, model: nn.Module) -> _Watch:
    name, _, suffix = pattern.partition(":")
    method = suffix.removesuffix(METHOD) if suffix.endswith(METHOD) else ""
    if suffix not in SUFFIXES and not method:
        raise TraceError(f"trace {kind!r}: {pattern!r} ends in an unknown suffix; known are :in, :param and :method()")
    # A block compiled on its own is `blocks.0`, and what is inside `blocks.0._orig_mod`: the latter counts.
    named = {
        name.replace("._orig_mod", ""): module for name, module in model.named_modules(remove_duplicate=False) if name
    }
    chosen = {found: named[found] for found in _matching(kind, "module", name, named)}
    once = {id(module): found for found, module in reversed(chosen.items())}  # the first name of a module with several
    unique = {found: module for found, module in chosen.items() if once[id(module)] == found}
    for found, module in unique.items() if method else ():
        if not callable(_method(module, method)):
            near = near_misses(method, [one for one in dir(module) if not one.startswith("_")])
            raise TraceError(f"trace {kind!r}: module {found!r} has no method {method!r}{near}")
    takes_input = suffix == "in" or bool(method)
    return _Watch(kind=kind, pattern=pattern, modules=unique, takes_input=takes_input, method=method)


def _method(module: nn.Module, name: str) -> Any:
    """Return a method of the module, or what stands for it where the module is torch's own attention."""
    if isinstance(module, nn.MultiheadAttention) and name in METHODS:
        return partial(METHODS[name], module)
    return getattr(module, name, None)


def _parameters(kind: str, pattern: str, model: nn.Module) -> list[Tensor]:
    # Duplicates stay: layers that share a weight have it once each.
    named = {name.replace("_orig_mod.", ""): weight for name, weight in model.named_parameters(remove_duplicate=False)}
    return [named[found].detach() for found in _matching(kind, "parameter", pattern.partition(":")[0], named)]


def _matching(kind: str, what: str, pattern: str, names: Collection[str]) -> list[str]:
    wanted = re.compile(re.escape(pattern).replace(r"\*", "[^.]+"))
    if found := [name for name in names if wanted.fullmatch(name)]:
        return found
    # Suggested as patterns are written: twelve blocks are one line.
    known = list(dict.fromkeys(re.sub(r"(?<![^.])\d+(?![^.])", "*", name) for name in names if "*" in pattern) or names)
    shown = ", ".join(known[:MOST_NAMES_SHOWN]) + (", …" if len(known) > MOST_NAMES_SHOWN else "")
    raise TraceError(f"trace {kind!r}: no {what} matches {pattern!r}{near_misses(pattern, known)} (known: {shown})")


def _features(head: str, taken: Sequence[Tensor]) -> Tensor:
    if len(taken) != 1 or taken[0].ndim != 2:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in taken)
        was = f"it was called with {shapes}" if taken else "the forward pass did not reach it"
        raise TraceError(f"head {head!r} must be called once with features (B, D); {was}")
    return taken[0]


def _call(trace: TraceFunction, model: nn.Module, inputs: Tensor) -> Mapping[str, Any]:
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        found: object = trace(model, inputs)
    if not isinstance(found, Mapping):
        raise TraceError(
            f"the model's trace function returns a {type(found).__name__}; it must return a mapping, "
            "of kinds to lists with one tensor per layer"
        )
    return found


def _layers(kind: str, layers: Any) -> list[Tensor]:
    if isinstance(layers, Tensor) or not layers or not all(isinstance(layer, Tensor) for layer in layers):
        raise TraceError(f"trace {kind!r}: the model's trace function must return a list with one tensor per layer")
    return [layer.detach() for layer in layers]


def _not_offered(kind: str, offered: Collection[str]) -> str:
    listing = ", ".join(sorted(offered)) or "none"
    return f"the model offers no trace {kind!r}{near_misses(kind, offered)} (offered: {listing})"
