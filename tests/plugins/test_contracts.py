"""The public rules, over everything that is registered: ours and strangers' alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from whitebench import MetricSpec, ModelSpec, ObjectiveSpec, ReadoutSpec, TaskSpec, WhitebenchError
from whitebench.catalog import load_catalog
from whitebench.names import configure
from whitebench.testing import check_metric, check_model, check_objective, check_readout, check_task, items

EXAMPLES = [Path(__file__).parents[2] / "examples" / "my_model.py"]
MODELS = [spec for spec in items("model", EXAMPLES) if spec.name != "timm"]
"""All but those of an optional extra, which are checked where it is installed: test_timm_models.py."""
LEARNERS = [spec for spec in MODELS if spec.head]
"""Those that learn from samples."""


def suited(spec: ModelSpec) -> TaskSpec:
    """Return the first registered task whose samples the model takes."""
    refusals = []
    for task in items("task"):
        if task.solve is not None or task.prepare is not None:  # whose data are elsewhere
            continue
        try:
            spec.build(spec.config(), task.shape_of(task.config()), task.classes_of(task.config()))
        except (WhitebenchError, ValueError) as error:
            refusals.append(f"{task.name}: {error}")
        else:
            return task  # type: ignore[no-any-return]  # items gives the Specs of the kind asked for
    raise AssertionError(f"model {spec.name!r} takes no registered task: {'; '.join(refusals)}")


def by_name(spec: Any) -> str:
    return str(spec.name)


def test_no_registered_plugin_is_turned_away() -> None:
    catalog = load_catalog(EXAMPLES)
    assert (catalog.quarantined, catalog.disputed) == ((), {})


@pytest.mark.parametrize("spec", MODELS, ids=by_name)
def test_models_keep_the_rules(spec: ModelSpec) -> None:
    if not spec.head:
        check_model(spec)
        return
    task = suited(spec)
    check_model(spec, shape=task.shape_of(task.config()), classes=task.classes_of(task.config()))


@pytest.mark.parametrize("spec", LEARNERS, ids=by_name)
def test_a_few_steps_lower_every_model_s_loss(spec: ModelSpec) -> None:
    task = suited(spec)
    samples = task.data(task.config(), "train")
    inputs, labels = samples.inputs[:64], samples.labels[:64]
    torch.manual_seed(0)
    model = spec.build(spec.config(), task.shape_of(task.config()), task.classes_of(task.config()))
    model.train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(4):
        loss = F.cross_entropy(model(inputs), labels)
        total = loss if spec.penalty is None else loss + spec.penalty(model)
        optimiser.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("spec", LEARNERS, ids=by_name)
def test_every_model_can_be_compiled(spec: ModelSpec) -> None:
    task = suited(spec)
    torch.manual_seed(0)
    model = spec.build(spec.config(), task.shape_of(task.config()), task.classes_of(task.config())).eval()
    inputs = task.data(task.config(), "train").inputs[:8]
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(model, backend="eager")(inputs), model(inputs), rtol=1e-4, atol=1e-5)


HERE = [spec for spec in items("task", EXAMPLES) if spec.name != "sparse-codes" and spec.prepare is None]
"""Tasks whose data come along; test_images.py checks the others on data of its own."""


@pytest.mark.parametrize("spec", HERE, ids=by_name)
def test_tasks_keep_the_rules(spec: TaskSpec) -> None:
    check_task(spec)


def test_a_task_that_learns_for_a_minute_keeps_the_rules_in_small() -> None:
    catalog = load_catalog()
    task, model = catalog.task("sparse-codes").spec, catalog.model("sparse-coder").spec
    learner = model.build(configure("sparse-coder", model.config, {"steps": 30}), (), 0)
    config = configure("sparse-codes", task.config, {"draws": 2, "train": 300, "test": 100})
    check_task(task, config=config, contestant=learner)


@pytest.mark.parametrize("spec", items("metric", EXAMPLES), ids=by_name)
def test_metrics_keep_the_rules(spec: MetricSpec) -> None:
    check_metric(spec)


@pytest.mark.parametrize("spec", items("objective", EXAMPLES), ids=by_name)
def test_objectives_keep_the_rules(spec: ObjectiveSpec) -> None:
    check_objective(spec)


@pytest.mark.parametrize("spec", items("readout", EXAMPLES), ids=by_name)
def test_readouts_keep_the_rules(spec: ReadoutSpec) -> None:
    check_readout(spec)


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("vit", {"depth": 1, "heads": 1}),
        ("vit", {"patch": 8}),
        ("crate", {"pool": "mean"}),
        ("crate", {"heads": 1, "depth": 1}),
        ("crate", {"output": "tied"}),
        ("crate", {"output": "tied", "heads": 1, "eps": 1.0, "pool": "mean"}),
        ("crate", {"softmax": "plain"}),
        ("mssa-ista", {"heads": 1, "depth": 1}),
        ("mssa-mlp", {"heads": 1, "mlp_ratio": 1}),
        ("mhsa-ista", {"pool": "mean", "eta": 0.5, "lam": 0.0}),
        ("mhsa-mlp", {"pool": "mean", "mlp_ratio": 2}),
    ],
)
def test_our_models_keep_the_rules_with_other_options_too(model: str, options: dict[str, Any]) -> None:
    spec = load_catalog().model(model).spec
    check_model(spec, config=configure(model, spec.config, options))


@pytest.mark.parametrize(
    ("task", "options"),
    [
        ("digits", {"shift": 1}),
        ("digits", {"label_noise": 0.3}),
        ("glyphs", {"side": "32", "train": "620", "test": "620"}),
        ("glyphs", {"faces": "shared", "label_noise": 0.3, "train": 620, "test": 620, "seed": 1}),
    ],
)
def test_our_tasks_keep_the_rules_with_other_options_too(task: str, options: dict[str, Any]) -> None:
    spec = load_catalog().task(task).spec
    check_task(spec, config=configure(task, spec.config, options))
