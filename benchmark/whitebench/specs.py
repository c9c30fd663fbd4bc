"""What a plugin hands over: a Spec for each model, task, metric, objective and launcher, and the words they use.

A Spec is a frozen, keyword-only value. Nothing here imports torch, so that a plugin's Specs can be
listed without paying for it.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias, get_args

from typing_extensions import TypeVar

from whitebench.errors import PluginError, TaskDataError, near_misses
from whitebench.quotation import LONGEST, quote, told
from whitebench.reading import Direction, Reading
from whitebench.space import Space
from whitebench.wording import is_plain

if TYPE_CHECKING:
    import torch
    import torchmetrics
    from torch import Tensor

    from whitebench.launching import AnyLauncher, LaunchOptions

Shape: TypeAlias = tuple[int, ...]
"""One sample's shape without the batch, for images `(channels, height, width)`."""

Split: TypeAlias = Literal["train", "validation", "test"]

Manifest: TypeAlias = Mapping[Split, str]
"""Per split, the sha256 of the bytes served."""

PRESET = "preset"
"""The option that stands for several others."""

PATH = "path"
"""The option of a task that says where on this machine its data lie: no part of a cell's name or identity."""

WIDTH = ("dim", "heads")
"""What most models call their width, and what that is a multiple of."""

HEAD = "head"
"""The read-out that a model brings along: its own head."""

OBJECTIVE_NEEDS = ("features", "logits", "targets")
"""What an objective may ask for."""

TRUTH = "truth:"
"""How a metric's need begins for what only the task knows, `truth:class-subspaces`."""

SOLUTION = "solution"
"""What a metric needs that a task yields by itself, where it solves itself."""

Hyperparameters: TypeAlias = Mapping[str, float | int | str]
"""Chosen values by name, e.g. `{"learning_rate": 1e-3, "model.eta": 0.1}`."""


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Where a definition comes from, and what was published with it."""

    title: str
    url: str
    commit: str = ""
    """The commit of the released code that was read, where there is one."""
    published: Mapping[str, float] = field(default_factory=dict)
    """Published numbers by what they measure, the task's name first: `{"imagenet-1k top-1, T/16, %": 66.7}`.

    Boards of that task show them below their rows, unranked.
    """


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a model's traced tensors are to be read."""

    heads: int = 1
    scale: float = 1.0
    """What attention logits are multiplied by, usually 1/sqrt(head width)."""
    prefix_tokens: int = 0
    """How many tokens stand before the patches (a class token is one)."""
    is_tied: bool = False
    """Whether queries, keys and values share one projection."""


Trace: TypeAlias = "Mapping[str, Sequence[Tensor]]"
"""What a model let us see in one forward pass: per kind of tensor, one tensor per layer."""

TracePatterns: TypeAlias = Mapping[str, str]
"""Per kind of tensor, the pattern of the modules that yield it, e.g. `{"codes": "blocks.*.ista"}`.

`blocks.*.norm:in` means those modules' first input, `blocks.*.attention:weights()` what their method makes of it
once the pass is over, `blocks.*.attention.project.weight:param` a weight. A `*` stands for one part of a dotted name.
"""

TraceFunction: TypeAlias = "Callable[[torch.nn.Module, Tensor], Trace]"
"""For a model in which no module yields the tensor, or only its options say which: `(model, inputs) -> Trace`.

It may leave out kinds: what they would have told is unscored."""


@dataclass(frozen=True, kw_only=True)
class TraceSpec:
    """Where to look inside a network of one's own."""

    trace: TracePatterns | TraceFunction = field(default_factory=dict)
    """As a ModelSpec's: `{"tokens": "encoder.layers.*", "codes": "encoder.layers.*.linear1"}`."""
    layout: Layout = field(default_factory=Layout)
    """How per-head tensors are to be read."""
    head: str = ""
    """The submodule whose input is the features (B, D) and whose output is the logits; the last linear layer where
    not given."""


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """A model: how to build it from its options, where its features are, what can be seen inside."""

    name: str
    summary: str
    """One line, for `whitebench list`."""
    config: type
    """A frozen dataclass of the model's options, every one with a default."""
    build: Callable[[Any, Shape, int], torch.nn.Module]
    """`(config, sample shape, classes) -> module` whose forward maps a batch of inputs to logits (B, C)."""
    head: str
    """The submodule whose input is the features (B, D) and whose output is the logits; "" for what learns from no
    samples, and is taken by tasks that solve themselves alone: it then gets shape () and 0 classes."""
    search: Mapping[str, Space] = field(default_factory=dict)
    """The model's own hyperparameters: fields of `config`, never what sets its size."""
    penalty: Callable[[torch.nn.Module], Tensor] | None = None
    """An own term of the loss, a scalar, read off the module after each training forward."""
    is_penalty_additive: bool = True
    """Whether that of a batch is the mean of its samples', or of the weights alone: only then can several devices share
    a batch."""
    trace: TracePatterns | TraceFunction = field(default_factory=dict)
    layout: Callable[[Any, Shape], Layout] | None = None
    """`(config, sample shape) -> Layout`, needed where `trace` offers per-head tensors."""
    width: tuple[str, ...] | None = None
    """The option that says how wide it is, which a suite's `match` sets, and the one whose multiple that must be.
    `("dim", "heads")` where not given and its config has both; empty where there is none."""
    presets: Mapping[str, Mapping[str, float | int | str | bool]] = field(default_factory=dict)
    """Named sets of options, `{"neurips-tiny": {"dim": 384}}`: what `crate[preset=neurips-tiny]` stands for."""
    released: Mapping[str, str] = field(default_factory=dict)
    """How released checkpoints call the model's weights, pattern to pattern with a `*` for one part of a name and a
    `**` for one or more, the first that matches: `{"transformer.layers.*.1.fn.weight": "blocks.*.ista.dictionary"}`."""
    reference: Reference | None = None

    def __post_init__(self) -> None:
        _check_named("model", self)
        _check_config("model", self.name, self.config)
        _check_presets(self.name, self.config, self.presets)
        for theirs, ours in self.released.items():
            is_alike = re.findall(r"\*\*?", theirs) == re.findall(r"\*\*?", ours)
            _need("model", self.name, is_alike, f"released {quote(theirs)}: the same * and ** as in {quote(ours)}")
        if not self.head:
            strange = [one for one in ("search", "penalty", "trace", "layout", "released") if getattr(self, one)]
            message = f"without a head it learns from no samples: leave out {', '.join(strange)}"
            _need("model", self.name, not strange, message)
        fields = [one.name for one in dataclasses.fields(self.config)]
        for option in self.search:
            near = near_misses(option, fields)
            _need("model", self.name, option in fields, f"search names {quote(option)}, no field of its config{near}")
        if self.width is None:
            object.__setattr__(self, "width", WIDTH if set(WIDTH) <= set(fields) else ())
        is_width = type(self.width) is tuple and len(self.width) in (0, 2) and set(self.width) <= set(fields)
        message = f'width must be two fields of its config, as in ("dim", "heads"), got {quote(self.width)}'
        _need("model", self.name, is_width, message)


@dataclass(frozen=True, kw_only=True)
class Stream:
    """The images of a split that are read when they are asked for, in processes of their own too."""

    size: int
    """How many."""
    shape_of_one: Shape
    read: Callable[[Tensor], Tensor]
    """`(rows (B,)) -> images (B, *shape_of_one)`, uint8, on the CPU: the same whenever and wherever it is asked."""
    sha256: str
    """Of what decides the images, such as the files' own bytes."""
    workers: int = 0
    """Loader processes; the harness sets it."""

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, rows: slice | Tensor) -> Tensor:
        import torch

        asked = torch.arange(self.size)[rows] if isinstance(rows, slice) else rows
        return self.read(asked) if len(asked) else torch.empty(0, *self.shape_of_one, dtype=torch.uint8)

    @property
    def shape(self) -> Shape:
        """That of all of them together."""
        return (self.size, *self.shape_of_one)

    @property
    def nbytes(self) -> int:
        """What all of them would take in memory."""
        return math.prod(self.shape)


Held = TypeVar("Held", default="Tensor")
"""What the inputs of samples are: a tensor, but for a task that serves a Stream."""


@dataclass(frozen=True, kw_only=True)
class Samples(Generic[Held]):
    """One split of a task, whole; in memory, but for a Stream of images."""

    inputs: Held
    """(N, *shape): float32 as models see it, or uint8 images, of which they see x / 255."""
    labels: Tensor
    """(N,), int64 in [0, classes)."""
    facts: Mapping[str, float] = field(default_factory=dict)
    """What is to be said of these samples in numbers, e.g. `{"label noise, flipped": 0.27}`."""
    truth: Mapping[str, Tensor] = field(default_factory=dict)
    """What is known of where they come from and is no model's to see, by name: for metrics that need `truth:NAME`."""

    def __len__(self) -> int:
        return len(self.labels)


def _no_data(_: Any, split: Split) -> Samples[Any]:
    raise PluginError(f"a task that solves itself has no split {split!r}")


@dataclass(frozen=True, kw_only=True)
class Solution:
    """What a task that solves itself yields for one block of draws; a draw plays the part of a test sample."""

    draws: int
    """How many problems were drawn and solved: all of the block, none left out."""
    scores: Mapping[str, Reading]
    """By the name of a metric that needs `solution`, or `metric/part` where there are several."""
    per_sample: Mapping[str, Tensor] = field(default_factory=dict)
    """By name, what was found for each draw (draws,); under a metric's own name where the score is its mean: lets the
    board say how much of a difference the draws alone could make."""


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """What is learnt: data in three splits, the shape of one sample, the number of classes; or what solves itself."""

    name: str
    version: int
    """Raised whenever the samples served change, or the problems of what solves itself."""
    summary: str
    shape: Shape | Callable[[Any], Shape] = ()
    """One sample's shape, or `(config) -> shape` where an option sets it."""
    classes: int | Callable[[Any], int] = 0
    """How many, or `(config) -> classes` where the data say."""
    data: Callable[[Any, Split], Samples[Any]] = _no_data
    """`(config, split) -> Samples`; the harness asks for `test` once per cell, at its end."""
    solve: Callable[[Any, torch.nn.Module, int], Solution] | None = None
    """Instead of `data`, for problems with a known answer: `(config, what the contestant's model builds, block) ->
    Solution`. Block b, the cell's seed, is the b-th block of draws. No training, no splits, no tuning."""
    asks: tuple[str, ...] = ()
    """The methods that `solve` calls on the contestant's module: who lacks one is refused before anything runs."""
    config: type
    """A frozen dataclass of the task's options, every one with a default."""
    augment: Callable[[Any, Tensor, torch.Generator], Tensor] | None = None
    """`(config, inputs (B, *shape), generator) -> inputs`: the augmentation the task permits, on batches.

    The generator is on the inputs' device, where torch draws only if it is told so: `device=inputs.device`.
    """
    permits: tuple[str, ...] = ()
    """What a recipe may do to its images besides without making them another class: `flip`, left to right."""
    scaling: Callable[[Any], tuple[Sequence[float], Sequence[float]] | None] | None = None
    """`(config) -> (means, deviations)`, one of each per channel: models see (x - mean) / deviation, augmentation x."""
    prepare: Callable[[Any], Sequence[str]] | None = None
    """`(config) -> remarks` fetches and reads what is not on this machine, or not read yet; called before a run. Until
    then `manifest`, and `classes` where it is a function, may raise TaskDataError: what they say is not known here."""
    manifest: Manifest | Callable[[Any], Manifest] = field(default_factory=dict)
    """Per split, the sha256 of the bytes served (inputs, then labels, little-endian and contiguous), whatever
    the options; or `(config) -> manifest` where an option changes them, without the splits that it changes."""
    reference: Reference | None = None

    def __post_init__(self) -> None:
        _check_named("task", self)
        _check_config("task", self.name, self.config)
        is_learnt = self.data is not _no_data
        _need("task", self.name, is_learnt != (self.solve is not None), "give it data, or let it solve itself")
        if self.solve is not None:
            learnt = ("shape", "classes", "augment", "permits", "scaling", "prepare", "manifest")
            strange = [name for name in learnt if getattr(self, name)]
            _need("task", self.name, not strange, f"it solves itself, so leave out {', '.join(strange)}")
            message = f"asks must be a tuple of names, got {quote(self.asks)}"
            _need("task", self.name, isinstance(self.asks, tuple), message)
            return
        _need("task", self.name, not self.asks, "asks is for a task that solves itself")
        if not callable(self.shape):
            _check_shape(self.name, self.shape)
        if not callable(self.classes):
            _check_classes(self.name, self.classes)
        unknown = sorted(set(self.permits) - {"flip"})
        _need("task", self.name, not unknown, f"permits names {quote(unknown)}; known is 'flip'")
        if not callable(self.manifest):
            _check_manifest(self.name, self.manifest)

    def shape_of(self, config: Any) -> Shape:
        """Return one sample's shape with these options.

        Raises:
            PluginError: the Spec's function raised, or returned something else.
        """
        if not callable(self.shape):
            return self.shape
        shape: Shape = _answer(self.name, "shape", self.shape, config)
        _check_shape(self.name, shape)
        return shape

    def classes_of(self, config: Any) -> int:
        """Return how many classes there are with these options.

        Raises:
            PluginError: the Spec's function raised, or returned something else.
            TaskDataError: the data, which would say, have not been read on this machine.
        """
        if not callable(self.classes):
            return self.classes
        classes: int = _answer(self.name, "classes", self.classes, config)
        _check_classes(self.name, classes)
        return classes

    def manifest_of(self, config: Any) -> Manifest:
        """Return the sha256 of each split whose bytes are known with these options.

        Raises:
            PluginError: the Spec's function raised, or returned something else.
            TaskDataError: the data have not been read on this machine.
        """
        if not callable(self.manifest):
            return self.manifest
        manifest: Manifest = _answer(self.name, "manifest", self.manifest, config)
        _check_manifest(self.name, manifest)
        return manifest


@dataclass(frozen=True, kw_only=True)
class MetricContext:
    """What a metric may know of the contestant and the task before the first batch."""

    classes: int
    shape: Shape
    layout: Layout


def _not_built(_: MetricContext) -> torchmetrics.Metric:
    raise PluginError("what a task yields by itself is not built")


@dataclass(frozen=True, kw_only=True)
class MetricSpec:
    """A measure of predictions or of what happens inside, built on torchmetrics.

    Its states are sums, counts or a fixed sample, so that the result depends neither on the batch
    size nor on the number of processes.
    """

    name: str
    version: int
    """Raised whenever the definition changes."""
    summary: str
    direction: Direction
    needs: tuple[str, ...]
    """What `update` takes, in order: `logits` (B, C), `labels` (B,), `features` (B, D), `inputs` (B, *shape), `index`
    (B,), each sample's place in its split, or a kind of trace (`tokens`, `codes`, …): a list with one tensor per layer.
    `truth:NAME` comes whole with every batch, as the task's samples hold it. Where a model offers no such trace, or a
    task no such truth, the score is unscored and says so. Or `solution` alone, and no `build`: tasks
    that solve themselves yield it, the others do not."""
    build: Callable[[MetricContext], torchmetrics.Metric] = _not_built
    """`compute` returns a number, a Reading, or a mapping of name to either (scores `metric/name`)."""
    unit: str = ""
    untrained: bool = False
    """Whether the same is measured of the network as it was drawn, before it learnt anything: its null."""
    per_sample: Callable[[Tensor, Tensor], Tensor] | None = None
    """`(logits, labels) -> (B,)` where the metric is the mean of this over samples: lets the board
    say how much of a difference the test samples alone could make."""
    reference: Reference | None = None

    def __post_init__(self) -> None:
        _check_named("metric", self)
        _check_needs("metric", self.name, self.needs)
        is_yielded, is_built = SOLUTION in self.needs, self.build is not _not_built
        _need("metric", self.name, not is_yielded or self.needs == (SOLUTION,), f"needs {SOLUTION!r}, and so no other")
        _need("metric", self.name, is_built or is_yielded, "build must say how it is measured")
        is_bare = not (is_built or self.untrained or self.per_sample)
        _need("metric", self.name, is_bare or not is_yielded, "tasks yield it: leave out build, untrained, per_sample")
        known = get_args(Direction)
        got = quote(self.direction)
        _need("metric", self.name, self.direction in known, f"direction must be one of {known}, got {got}")
        _check_line("metric", self.name, "unit", self.unit)


@dataclass(frozen=True)
class NoOptions:
    """The config of what takes no options."""


@dataclass(frozen=True, kw_only=True)
class ObjectiveSpec:
    """What training minimises, and how the features it makes are read out as classes."""

    name: str
    version: int
    summary: str
    needs: tuple[str, ...]
    """What the module's forward takes, in order: `features` (B, D), `logits` (B, C), `targets` (B, C),
    rows of class probabilities that sum to one (one-hot, or smoothed by the recipe)."""
    build: Callable[[Any, int, int], torch.nn.Module]
    """`(config, classes, feature width) -> module` that returns the loss of each sample (B,) where `is_additive`,
    else one scalar for the whole batch."""
    config: type = NoOptions
    """A frozen dataclass of the objective's options, every one with a default."""
    readout: str = HEAD
    """How classes are read off the features where a contestant does not say: `head`, the model's own, or the
    name of a read-out, with options. An objective that does not need `logits` leaves the head untrained, and
    names one."""
    is_additive: bool = True
    """Whether the loss of a batch is the mean of its samples' losses (cross-entropy) or belongs to the batch as a whole
    (MCR2): then the module is given the whole of it, also where several devices share it."""
    reference: Reference | None = None

    def __post_init__(self) -> None:
        _check_named("objective", self)
        _check_config("objective", self.name, self.config)
        _check_needs("objective", self.name, self.needs)
        for one in self.needs:
            near = near_misses(one, OBJECTIVE_NEEDS) or f" (known: {', '.join(OBJECTIVE_NEEDS)})"
            _need("objective", self.name, one in OBJECTIVE_NEEDS, f"needs names {quote(one)}{near}")
        is_read = "logits" in self.needs or self.readout != HEAD
        message = "it never sees the logits, so the head stays untrained: name the readout that classes come from"
        _need("objective", self.name, is_read, message)


@dataclass(frozen=True, kw_only=True)
class ReadoutSpec:
    """How classes are read off features: fitted in one pass over the training split, without a gradient."""

    name: str
    version: int
    """Raised whenever the definition changes."""
    summary: str
    build: Callable[[Any, int, int], torchmetrics.Metric]
    """`(config, classes, feature width) -> metric` whose `update` takes features (B, D) and labels (B,) of the
    training split and whose `compute` returns a function from features (B, D) to logits (B, C). As with any
    metric here, its states are sums, so that neither batch size nor number of processes matters."""
    config: type = NoOptions
    """A frozen dataclass of the read-out's options, every one with a default."""
    reference: Reference | None = None

    def __post_init__(self) -> None:
        _check_named("readout", self)
        _check_config("readout", self.name, self.config)
        _need("readout", self.name, self.name != HEAD, "this name stands for the model's own head: choose another")


@dataclass(frozen=True, kw_only=True)
class LauncherSpec:
    """What starts fits: in processes of this machine, or on other machines."""

    name: str
    summary: str
    """One line, for `whitebench list`."""
    build: Callable[[Any, LaunchOptions], AnyLauncher]
    """`(config, what the run asks for) -> launcher`, as `whitebench.launching` says what one is. It imports what it
    needs when it is called, and raises a WhitebenchError where that is not installed or cannot be reached."""
    config: type = NoOptions
    """A frozen dataclass of the launcher's options, every one with a default: `ray[gpus=0.5]`."""
    reference: Reference | None = None

    def __post_init__(self) -> None:
        _check_named("launcher", self)
        _check_config("launcher", self.name, self.config)


Spec: TypeAlias = ModelSpec | TaskSpec | MetricSpec | ObjectiveSpec | ReadoutSpec | LauncherSpec


def is_frozen_dataclass(candidate: object) -> bool:
    """Return whether `candidate` is a frozen dataclass (the class, not an instance)."""
    if not (isinstance(candidate, type) and dataclasses.is_dataclass(candidate)):
        return False
    params: Any = candidate.__dataclass_params__  # type: ignore[attr-defined]  # CPython's own record
    return bool(params.frozen)


def _need(kind: str, name: object, condition: bool, message: str) -> None:  # noqa: FBT001  # reads as an assertion
    if not condition:
        raise PluginError(f"{kind} {quote(name)}: {message}")


def _check_named(kind: str, spec: Spec) -> None:
    name: object = spec.name
    # Of `str` itself: a subclass could say another name at every look.
    is_name = type(name) is str and re.fullmatch(r"[a-z0-9][a-z0-9.+-]{0,63}", name) is not None
    _need(kind, name, is_name, "a name is up to 64 lower-case letters, digits, '-', '+' and '.'")
    version: object = getattr(spec, "version", 1)
    _need(kind, name, isinstance(version, int) and version >= 1, f"version must be 1 or more, got {quote(version)}")
    _check_line(kind, spec.name, "summary", spec.summary)
    _check_reference(kind, spec.name, spec.reference)


def _check_line(kind: str, name: str, field: str, text: object) -> None:
    is_fit = type(text) is str and len(text) <= LONGEST and is_plain(text)
    _need(kind, name, is_fit, f"{field} must be one line of up to {LONGEST} printable characters, got {quote(text)}")


def _check_reference(kind: str, name: str, reference: object) -> None:
    if reference is None:
        return
    _need(kind, name, type(reference) is Reference, f"reference must be a Reference, got {quote(reference)}")
    for part in ("title", "url", "commit"):
        _check_line(kind, name, f"reference.{part}", getattr(reference, part))


def _check_presets(name: str, config: type, presets: Mapping[str, Mapping[str, object]]) -> None:
    fields = [one.name for one in dataclasses.fields(config)]
    _need("model", name, not (presets and PRESET in fields), f"its config has a field {PRESET!r}, which names a preset")
    for preset, options in presets.items():
        is_name = type(preset) is str and re.fullmatch(r"[a-z0-9][a-z0-9.+-]{0,63}", preset) is not None
        _need("model", name, is_name, f"preset {quote(preset)}: up to 64 lower-case letters, digits, '-', '+' and '.'")
        for option in options:
            near = near_misses(option, fields)
            _need("model", name, option in fields, f"preset {preset}: {quote(option)} is no field of its config{near}")


def _check_config(kind: str, name: str, config: object) -> None:
    _need(kind, name, is_frozen_dataclass(config), f"config must be a frozen dataclass, got {quote(config)}")


def _check_shape(name: str, shape: object) -> None:
    is_shape = isinstance(shape, tuple) and all(isinstance(one, int) and one > 0 for one in shape)
    _need("task", name, is_shape, f"shape must be a tuple of whole numbers above 0, got {quote(shape)}")


def _answer(name: str, field: str, ask: Callable[[Any], Any], config: object) -> Any:
    try:
        return ask(config)
    except TaskDataError:
        raise
    except Exception as error:  # a stranger's code
        raise PluginError(f"task {quote(name)}: {field} raised {told(error)}") from error


def _check_classes(name: str, classes: object) -> None:
    is_number = isinstance(classes, int) and classes >= 2
    _need("task", name, is_number, f"classes must be 2 or more, got {quote(classes)}")


def _check_manifest(name: str, manifest: Manifest) -> None:
    _need("task", name, isinstance(manifest, Mapping), f"manifest must be a mapping, got {quote(manifest)}")
    strange = sorted(set(manifest) - set(get_args(Split)))
    _need("task", name, not strange, f"manifest names {quote(strange)}; the splits are {get_args(Split)}")


def _check_needs(kind: str, name: str, needs: object) -> None:
    # A text is a sequence too: ("logits") without its comma would ask for six letters.
    is_names = isinstance(needs, tuple) and bool(needs) and all(isinstance(one, str) for one in needs)
    _need(kind, name, is_names, f'needs must be a tuple of names, as in ("logits",), got {quote(needs)}')
