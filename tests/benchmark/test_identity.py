"""Whatever can change a cell's numbers changes its identity, and nothing else does."""

from __future__ import annotations

import ast
import dataclasses
import json
import sys
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from whitebench import identity as identity_room
from whitebench.budget import Budget, Limits, Tuning
from whitebench.catalog import Catalog, load_catalog
from whitebench.errors import OptionError, TaskDataError, UnknownNameError, WhitebenchError
from whitebench.identity import CellName, Identity, canonical, digest_of, identify, study_parts
from whitebench.plugin import Entry
from whitebench.recipe import RandAugment, Recipe, Tuned
from whitebench.source import normal_form
from whitebench.suite import Contestant, Suite

VIT = Contestant(model="vit[dim=8,heads=2]")
RATE = Tuned(value=1e-3, low=1e-4, high=1e-2, log=True)
SUITE = Suite(
    name="tiny",
    version=1,
    summary="",
    primary="accuracy",
    tasks=("digits",),
    seeds=(0, 1),
    metrics=("accuracy", "sparsity"),
    budget=Budget(epochs=2, batch_size=32, trials=1),
    recipes={"plain": Recipe(learning_rate=RATE), "other": Recipe(learning_rate=RATE)},
    contestants=(VIT,),
)


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return load_catalog()


def identity(
    catalog: Catalog, *, contestant: Contestant = VIT, task: str = "digits", seed: int = 0, **suite: Any
) -> Identity:
    return identify(dataclasses.replace(SUITE, **suite), contestant, task, seed, catalog)


def with_recipe(**change: Any) -> dict[str, Any]:
    recipe = dataclasses.replace(SUITE.recipes["plain"], **change)
    return {"recipes": {**SUITE.recipes, "plain": recipe}}


def with_budget(**change: Any) -> dict[str, Any]:
    return {"budget": dataclasses.replace(SUITE.budget, **change)}


OTHER: dict[str, dict[str, Any]] = {
    "epochs": with_budget(epochs=3),
    "batch size": with_budget(batch_size=64),
    "trials": with_budget(trials=2),
    "precision": with_budget(precision="bf16-mixed"),
    "threads": with_budget(threads=2),
    "reported epoch": with_budget(report="chosen"),
    "optimiser": with_recipe(optimiser="lion"),
    "learning rate": with_recipe(learning_rate=dataclasses.replace(RATE, value=2e-3)),
    "search space": with_recipe(learning_rate=dataclasses.replace(RATE, high=2e-2)),
    "weight decay": with_recipe(weight_decay=Tuned(value=0.1)),
    "betas": with_recipe(betas=(0.9, 0.95)),
    "schedule": with_recipe(schedule="constant"),
    "warm-up": with_recipe(warmup_epochs=0.5),
    "label smoothing": with_recipe(label_smoothing=0.1),
    "clipping": with_recipe(clip_norm=0.5),
    "augmentation": with_recipe(augment=False),
    "crop": with_recipe(crop=1),
    "resized crop": with_recipe(resized_crop=0.5),
    "flip": with_recipe(flip=True),
    "RandAugment": with_recipe(randaugment=RandAugment(magnitude=5)),
    "erasing": with_recipe(erasing=0.1),
    "mixup": with_recipe(mixup=0.2),
    "compilation": with_budget(compile=True),
    "tuning seed": {"tuning": Tuning(seed=1)},
    "sampler": {"tuning": Tuning(sampler="tpe")},
    "pruning": {"tuning": Tuning(pruning="median")},
    "primary": {"primary": "sparsity"},
    "metrics": {"metrics": ("accuracy",)},
    "model option": {"contestant": Contestant(model="vit[dim=16,heads=2]")},
    "model": {"contestant": Contestant(model="crate[dim=8,heads=2]")},
    "read-out": {"contestant": dataclasses.replace(VIT, readout="linear-probe")},
    "read-out's option": {"contestant": dataclasses.replace(VIT, readout="linear-probe[ridge=0.1]")},
    "objective's option": {"contestant": dataclasses.replace(VIT, objective="mcr2[eps2=0.1]")},
    "read-outs besides": {"readouts": ("linear-probe",)},
    "no training": {"contestant": dataclasses.replace(VIT, epochs=0)},
    "task option": {"task": "digits[shift=1]"},
    "seed": {"seed": 1},
}

SAME: dict[str, dict[str, Any]] = {
    "the suite's name": {"name": "other"},
    "the suite's version": {"version": 2},
    "the suite's summary": {"summary": "Other words."},
    "the label": {"contestant": dataclasses.replace(VIT, label="mine")},
    "the order of options": {"contestant": Contestant(model="vit[heads=2,dim=8]")},
    "a default, said": {"contestant": Contestant(model="vit[dim=8,heads=2,depth=4]")},
    "a task's default, said": {"task": "digits[shift=0]"},
    "another recipe of the same content": {"contestant": dataclasses.replace(VIT, recipe="other")},
    "other seeds": {"seeds": (0, 1, 2, 3)},
    "other tasks": {"tasks": ("digits", "digits[shift=1]")},
    "other contestants": {"contestants": (VIT, Contestant(model="crate"))},
    "the head, said": {"contestant": dataclasses.replace(VIT, readout="head")},
    "limits": {
        "limits": Limits(fit_minutes=1.0, stall_minutes=1.0, memory_gib=1.0, log_mib=1.0, data_gib=0.0, workers=0)
    },
    "the order of metrics": {"metrics": ("sparsity", "accuracy")},
}


@pytest.mark.parametrize("change", OTHER.values(), ids=OTHER)
def test_what_can_change_a_number_changes_the_identity(catalog: Catalog, change: dict[str, Any]) -> None:
    assert identity(catalog, **change).digest != identity(catalog).digest


@pytest.mark.parametrize("change", SAME.values(), ids=SAME)
def test_what_cannot_change_a_number_does_not(catalog: Catalog, change: dict[str, Any]) -> None:
    assert identity(catalog, **change).digest == identity(catalog).digest


def with_spec(catalog: Catalog, kind: str, name: str, **change: Any) -> Catalog:
    """Return the catalog with one item's Spec changed."""
    entries: dict[Any, dict[str, Entry[Any]]] = {kind: dict(names) for kind, names in catalog.entries.items()}
    entry = entries[kind][name]
    entries[kind][name] = dataclasses.replace(entry, spec=dataclasses.replace(entry.spec, **change))
    return dataclasses.replace(catalog, entries=MappingProxyType(entries))


@pytest.mark.parametrize(
    ("kind", "name", "change"),
    [
        ("metric", "sparsity", {"version": 99}),
        ("metric", "accuracy", {"direction": "lower"}),
        ("objective", "cross-entropy", {"version": 99}),
        ("task", "digits", {"version": 99}),
        ("task", "digits", {"manifest": {}}),
        ("model", "vit", {"head": "blocks"}),
        ("model", "vit", {"trace": {"tokens": "blocks.*:in"}}),
    ],
)
def test_a_spec_that_states_something_else_changes_the_identity(
    catalog: Catalog, kind: str, name: str, change: dict[str, Any]
) -> None:
    other = with_spec(catalog, kind, name, **change)
    assert identity(other).digest != identity(catalog).digest


def test_a_preset_is_the_options_it_stands_for(catalog: Catalog) -> None:
    preset = with_spec(catalog, "model", "vit", presets={"tiny": {"dim": 8, "heads": 2}})
    assert identity(preset, contestant=Contestant(model="vit[preset=tiny]")).digest == identity(catalog).digest
    assert identity(preset, contestant=Contestant(model="vit[dim=16,preset=tiny]")).digest != identity(catalog).digest


def test_a_manifest_is_that_of_the_task_s_options(catalog: Catalog) -> None:
    clean, noisy = (
        identity(catalog, task=f"digits[label_noise={share}]").parts["task"]["manifest"] for share in (0.0, 0.1)
    )
    assert set(clean) == {"train", "validation", "test"}
    assert noisy == {split: sha for split, sha in clean.items() if split != "train"}


@pytest.mark.parametrize("change", [{"summary": "Other words."}, {"reference": None}])
def test_words_about_an_item_change_nothing(catalog: Catalog, change: dict[str, Any]) -> None:
    assert identity(with_spec(catalog, "model", "vit", **change)).digest == identity(catalog).digest


def test_a_plugin_that_the_cell_does_not_use_changes_nothing(catalog: Catalog) -> None:
    example = Path(__file__).parents[2] / "examples" / "my_model.py"
    assert identity(load_catalog([example])).digest == identity(catalog).digest


def test_the_parts_are_plain_json_that_reads_back_to_the_same_digest(catalog: Catalog) -> None:
    now = identity(catalog)
    stored = json.loads(canonical(now.parts))
    assert digest_of(stored) == now.digest
    assert now.differences(stored) == []


def test_differences_say_where_and_from_what_to_what(catalog: Catalog) -> None:
    stored = identity(catalog, **with_budget(epochs=5), task="digits[shift=1]").parts
    assert identity(catalog).differences(stored) == ["budget.epochs: 5 -> 2", "task.options.shift: 1 -> 0"]


def test_differences_name_what_has_come_and_what_has_gone_and_shorten_digests() -> None:
    now = Identity(parts={"sources": {"model vit": "a" * 64}, "new": 1})
    stored = {"sources": {"model vit": "b" * 64}, "old": "x"}
    assert now.differences(stored) == [
        "new: none -> 1",
        'old: "x" -> none',
        "sources.model vit: bbbbbbbb -> aaaaaaaa",
    ]


def test_the_digest_is_the_sha256_of_sorted_json_without_spaces() -> None:
    # printf '{"a":[1,2.5],"b":null}' | sha256sum
    assert canonical({"b": None, "a": (1, 2.5)}) == '{"a":[1,2.5],"b":null}'
    assert digest_of({"b": None, "a": (1, 2.5)}) == "f66b2c50ccae61e3f2445d2439f42efc245581b18ed184ce5d3c22fb58eed9c4"


def test_what_is_not_a_number_has_no_identity() -> None:
    with pytest.raises(ValueError, match="Out of range float"):
        canonical(float("nan"))


def test_a_study_is_shared_by_seeds_and_by_metrics_that_do_not_rank(catalog: Catalog) -> None:
    study = study_parts(identity(catalog).parts)
    assert study == study_parts(identity(catalog, seed=1).parts)
    assert study == study_parts(identity(with_spec(catalog, "metric", "sparsity", version=99)).parts)
    assert study == study_parts(identity(catalog, metrics=("accuracy", "calibration-error")).parts)
    assert study != study_parts(identity(with_spec(catalog, "metric", "accuracy", version=99)).parts)
    assert study != study_parts(identity(catalog, **with_budget(epochs=3)).parts)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"contestant": Contestant(model="vitt")}, UnknownNameError, "unknown model 'vitt', did you mean 'vit'"),
        ({"contestant": Contestant(model="vit[dmi=8]")}, OptionError, "model vit.*: unknown option 'dmi'"),
        ({"contestant": Contestant(model="vit[dim=x]")}, OptionError, "option dim=x"),
        ({"contestant": Contestant(model="vit", objective="mcr")}, UnknownNameError, "unknown objective 'mcr'"),
        ({"task": "digit"}, UnknownNameError, "unknown task 'digit', did you mean 'digits'"),
        ({"task": "digits[shift=9]"}, OptionError, "task digits.shift=9.: "),
        ({"metrics": ("accuracy", "sparsty")}, UnknownNameError, "unknown metric 'sparsty'"),
    ],
)
def test_what_a_suite_names_in_vain_is_said(
    catalog: Catalog, change: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        identity(catalog, **change)


@pytest.mark.parametrize("text", ["smoke/vit/digits/0", "smoke/crate[dim=64,depth=4]/digits[shift=1]/12"])
def test_a_cell_s_name_reads_back(text: str) -> None:
    assert str(CellName.parse(text)) == text


@pytest.mark.parametrize(
    "text", ["", "smoke", "smoke/vit/digits", "smoke/vit/digits/x", "smoke/vit/digits/-1", "a/b/c/d/0"]
)
def test_what_is_no_cell_is_refused(text: str) -> None:
    with pytest.raises(WhitebenchError, match="is no cell: write SUITE/CONTESTANT/TASK/SEED"):
        CellName.parse(text)


NUMBERS = (
    "augmentation", "cost", "course", "evaluation", "exam", "feed", "fitting", "footing", "group", "module",
    "multihead", "needs", "optimisation", "readout", "rehearsal", "samples", "scoring", "seeds", "sequence", "solving",
    "tracing", "training", "tuning", "weights",
)  # fmt: skip
"""The rooms of the harness whose code decides what a cell's numbers are."""


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="code is written out differently by other Pythons")
def test_the_rules_version_was_thought_of_when_the_code_that_decides_numbers_changed() -> None:
    """Where this fails: raise RULES_VERSION if any cell's numbers can differ, then put in the new digest."""
    folder = Path(identity_room.__file__).parent
    code = {name: normal_form(ast.parse((folder / f"{name}.py").read_bytes())) for name in NUMBERS}
    assert (identity_room.RULES_VERSION, digest_of(code)[:16]) == (2, "9c585bcb7ec4ca9e")


def test_settings_that_came_later_count_where_they_are_used_alone(catalog: Catalog) -> None:
    """So that what was run before they were there is not run again."""
    plain, cropped, resized = (
        identity(catalog, **change).parts["recipe"]
        for change in ({}, with_recipe(crop=1), with_recipe(resized_crop=0.5))
    )
    assert {"resized_crop", "crops"}.isdisjoint(plain)
    assert (cropped["crops"], resized["resized_crop"]) == (identity_room.CROPS_VERSION, 0.5)


IMAGES = Contestant(model="vit[dim=8,heads=2]")


def with_images(catalog: Catalog, manifest: Any) -> Catalog:
    """Return the catalog with image folders that are what `manifest` says."""
    return with_spec(catalog, "task", "imagefolder", manifest=manifest, classes=10)


def of_images(catalog: Catalog, path: str) -> Identity:
    task = "imagefolder[size=8]"
    return identify(dataclasses.replace(SUITE, tasks=(task,), paths={task: path}), IMAGES, task, 0, catalog)


def test_where_data_lie_is_no_part_of_an_identity_and_what_they_are_is(catalog: Catalog) -> None:
    one, two = (with_images(catalog, {"train": sha * 64}) for sha in "12")
    assert of_images(one, "/a").digest == of_images(one, "/b").digest
    assert of_images(one, "/a").digest != of_images(two, "/a").digest
    assert "/a" not in canonical(of_images(one, "/a").parts)


def test_an_identity_whose_data_are_not_known_here_takes_theirs_from_what_is_stored(catalog: Catalog) -> None:
    def nowhere(_: object) -> Any:
        raise TaskDataError("not read here")

    stored = of_images(with_images(catalog, {"train": "1" * 64}), "/a")
    here = of_images(with_images(catalog, nowhere), "/a")
    assert here.parts["task"]["manifest"] is None
    unknown = dataclasses.replace(here, unknown="not read here")
    # The Spec that is not the same one counts; but for that they are one.
    assert {line.partition(":")[0] for line in unknown.as_stored(stored.parts).differences(stored.parts)} <= {
        "sources.task imagefolder"
    }
    assert here.as_stored(stored.parts) is here


def test_versions_of_the_engines_are_in_every_identity(catalog: Catalog) -> None:
    assert set(identity(catalog).parts["packages"]) >= {
        "lightning", "lion-pytorch", "numpy", "optuna", "scipy", "torch", "torchmetrics",
    }  # fmt: skip
