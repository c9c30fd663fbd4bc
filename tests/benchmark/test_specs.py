"""A Spec that says something impossible is refused where it is written."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import pytest

from whitebench import FloatRange, MetricSpec, ModelSpec, ObjectiveSpec, TaskSpec
from whitebench.errors import PluginError
from whitebench.specs import Spec, is_frozen_dataclass


@dataclass(frozen=True, kw_only=True)
class Options:
    size: int = 4


@dataclass
class Thawed:
    size: int = 4


@dataclass(frozen=True)
class Preset:
    preset: str = ""


def nothing(*_: object) -> Any:
    raise AssertionError("never called")


MODEL = ModelSpec(name="m", summary="", config=Options, build=nothing, head="head")
TASK = TaskSpec(name="t", version=1, summary="", shape=(1, 8, 8), classes=2, data=nothing, config=Options)
METRIC = MetricSpec(name="a", version=1, summary="", direction="higher", needs=("logits",), build=nothing)
SOLVED = TaskSpec(name="s", version=1, summary="", solve=nothing, config=Options)
YIELDED = MetricSpec(name="y", version=1, summary="", direction="higher", needs=("solution",))
OBJECTIVE = ObjectiveSpec(name="o", version=1, summary="", needs=("logits", "targets"), build=nothing)

REFUSED: list[tuple[Spec, dict[str, Any], str]] = [
    (MODEL, {"name": "My Model"}, r"model 'My Model': a name is up to 64 lower-case letters"),
    (MODEL, {"name": "crate[dim=2]"}, "a name is"),
    (MODEL, {"name": "a/b"}, "a name is"),
    (MODEL, {"name": ""}, "a name is"),
    (MODEL, {"name": "a" * 65}, "a name is"),
    (MODEL, {"config": Thawed}, "model 'm': config must be a frozen dataclass"),
    (MODEL, {"config": Options()}, "config must be a frozen dataclass"),
    (MODEL, {"config": dict}, "config must be a frozen dataclass"),
    (MODEL, {"head": "", "trace": {"tokens": "a"}}, "model 'm': without a head it learns from no .*: leave out trace"),
    (MODEL, {"search": {"sise": FloatRange(low=1, high=2)}}, "search names 'sise', .* did you mean 'size'"),
    (MODEL, {"presets": {"paper-tiny": {"sise": 1}}}, "preset paper-tiny: 'sise' is no field .* did you mean 'size'"),
    (MODEL, {"presets": {"Tiny": {}}}, "preset 'Tiny': up to 64 lower-case letters"),
    (MODEL, {"presets": {"tiny": {}}, "config": Preset}, "its config has a field 'preset'"),
    (MODEL, {"released": {"a.*": "b"}}, r"released 'a\.\*': the same \* and \*\* as in 'b'"),
    (MODEL, {"released": {"a.**": "b.*.*"}}, r"released 'a\.\*\*': the same \* and \*\* as in 'b\.\*\.\*'"),
    (MODEL, {"width": ("size",)}, "model 'm': width must be two fields of its config"),
    (MODEL, {"width": ("size", "heads")}, r"width must be two fields of its config, as in \(\"dim\", \"heads\"\)"),
    (TASK, {"version": 0}, "task 't': version must be 1 or more, got 0"),
    (TASK, {"shape": [1, 8, 8]}, "shape must be a tuple of whole numbers above 0"),
    (TASK, {"shape": (1, 0)}, "shape must be"),
    (TASK, {"classes": 1}, "classes must be 2 or more"),
    (TASK, {"manifest": {"training": "0"}}, "manifest names .'training'.; the splits are"),
    (TASK, {"manifest": ["train"]}, "manifest must be a mapping"),
    (TASK, {"solve": nothing}, "task 't': give it data, or let it solve itself"),
    (TASK, {"asks": ("descend",)}, "asks is for a task that solves itself"),
    (SOLVED, {"solve": None}, "give it data, or let it solve itself"),
    (SOLVED, {"classes": 2, "shape": (1,)}, "it solves itself, so leave out shape, classes"),
    (SOLVED, {"asks": "descend"}, "asks must be a tuple of names"),
    (YIELDED, {"build": nothing}, "tasks yield it: leave out build, untrained, per_sample"),
    (YIELDED, {"untrained": True}, "tasks yield it: leave out"),
    (YIELDED, {"needs": ("solution", "logits")}, "needs 'solution', and so no other"),
    (YIELDED, {"needs": ("logits",)}, "metric 'y': build must say how it is measured"),
    (METRIC, {"direction": "up"}, "metric 'a': direction must be one of .*, got 'up'"),
    (METRIC, {"needs": ("logits")}, r'needs must be a tuple of names, as in \("logits",\), got \'logits\''),
    (METRIC, {"needs": ()}, "needs must be"),
    (METRIC, {"version": "1"}, "version must be 1 or more, got '1'"),
    (OBJECTIVE, {"needs": ("logit",)}, "objective 'o': needs names 'logit', did you mean 'logits'"),
    (OBJECTIVE, {"needs": ("x",)}, r"needs names 'x' \(known: features, logits, targets\)"),
]


def in_short(value: object) -> str:
    return str(value).partition(" at 0x")[0][:40]  # where a function lies differs between processes


@pytest.mark.parametrize(("spec", "change", "message"), REFUSED, ids=in_short)
def test_it_is_refused_with_its_kind_its_name_and_the_reason(spec: Spec, change: dict[str, Any], message: str) -> None:
    with pytest.raises(PluginError, match=message):
        dataclasses.replace(spec, **change)


def test_a_task_s_shape_and_manifest_may_follow_from_its_options() -> None:
    task = dataclasses.replace(
        TASK,
        shape=lambda options: (options.size,),
        manifest=lambda options: {"train": "0"} if options.size == 2 else {},
    )
    assert (task.shape_of(Options(size=2)), task.shape_of(Options(size=3))) == ((2,), (3,))
    assert (task.manifest_of(Options(size=2)), task.manifest_of(Options(size=3))) == ({"train": "0"}, {})


def test_a_task_s_shape_and_manifest_are_otherwise_the_same_for_all_options() -> None:
    task = dataclasses.replace(TASK, manifest={"test": "0"})
    assert task.shape_of(Options(size=7)) == (1, 8, 8)
    assert task.manifest_of(Options(size=7)) == {"test": "0"}


def zero_division(_: object) -> Any:
    return 1 / 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": lambda _: (0,)}, r"task 't': shape must be a tuple of whole numbers above 0, got \(0,\)"),
        ({"shape": zero_division}, "task 't': shape raised ZeroDivisionError: division by zero"),
    ],
)
def test_a_function_that_gives_no_shape_is_refused_when_it_is_asked(change: dict[str, Any], message: str) -> None:
    task = dataclasses.replace(TASK, **change)
    with pytest.raises(PluginError, match=message):
        task.shape_of(Options())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"manifest": lambda _: {"training": "0"}}, "manifest names .'training'.; the splits are"),
        ({"manifest": lambda _: None}, "task 't': manifest must be a mapping, got None"),
        ({"manifest": zero_division}, "task 't': manifest raised ZeroDivisionError: division by zero"),
    ],
)
def test_a_function_that_gives_no_manifest_is_refused_when_it_is_asked(change: dict[str, Any], message: str) -> None:
    task = dataclasses.replace(TASK, **change)
    with pytest.raises(PluginError, match=message):
        task.manifest_of(Options())


@pytest.mark.parametrize("spec", [MODEL, TASK, METRIC, OBJECTIVE], ids=lambda spec: type(spec).__name__)
def test_a_spec_is_a_frozen_value(spec: Spec) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.name = "other"  # type: ignore[misc]


def test_only_a_frozen_dataclass_is_a_config() -> None:
    assert is_frozen_dataclass(Options)
    assert not any(map(is_frozen_dataclass, (Thawed, Options(), int, None)))
