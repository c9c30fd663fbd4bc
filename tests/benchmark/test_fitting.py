"""One fit from names to numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from whitebench.catalog import Catalog, load_catalog
from whitebench.errors import MetricError, OptionError, UnknownNameError, WhitebenchError
from whitebench.events import EpochEnded
from whitebench.fit import PREDICTIONS, TRACES, WEIGHTS, Answer, AskTest, FitPlan, Fitted, Message, Pruned
from whitebench.fitting import run_fit
from whitebench.result import Score, digest
from whitebench.suite import Contestant

MakePlan = Callable[..., FitPlan]


def go(_: Message) -> Answer:
    return "go"


def values(scores: Sequence[Score]) -> dict[str, Any]:
    return {one.name: (one.value, one.unscored, tuple(one.profile)) for one in scores}


def fitted(plan: FitPlan, catalog: Catalog, hear: Callable[[Message], Answer] = go) -> Fitted:
    outcome = run_fit(plan, catalog, hear)
    assert isinstance(outcome, Fitted)
    return outcome


def test_a_cell_yields_scores_costs_and_files_that_agree_with_each_other(make_plan: MakePlan, catalog: Catalog) -> None:
    plan = make_plan(metrics=("error", "accuracy", "depths"))
    outcome = fitted(plan, catalog)
    predictions = load_file(plan.folder / PREDICTIONS)
    wrong = (predictions["logits"].argmax(1) != predictions["labels"]).double()
    scores = {one.name: one.value for one in outcome.scores}
    assert outcome.test_samples == len(wrong) == 30
    assert scores["error"] == pytest.approx(float(wrong.mean()))
    assert scores["accuracy"] == pytest.approx(1 - float(wrong.mean()))
    assert torch.equal(predictions["primary"], wrong)
    weights = load_file(plan.folder / WEIGHTS)
    assert {one.name: one.value for one in outcome.costs}["parameters"] == sum(one.numel() for one in weights.values())
    assert set(load_file(plan.folder / TRACES)) == {"index", "hidden/0"}
    assert outcome.predictions_sha256 == digest((plan.folder / PREDICTIONS).read_bytes())
    assert outcome.weights_sha256 == digest((plan.folder / WEIGHTS).read_bytes())


def test_the_null_of_a_metric_is_the_network_as_the_seed_drew_it(make_plan: MakePlan, catalog: Catalog) -> None:
    """The first weights of a fit that is seeded alike and not trained at all."""
    drawn = Contestant(model="tiny", epochs=0)
    trained = fitted(make_plan(metrics=("depths-null",)), catalog).scores[0]
    untrained = fitted(make_plan(metrics=("depths-null",), contestant=drawn, folder="drawn"), catalog).scores[0]
    assert trained.nulls["untrained"] == untrained.value == untrained.nulls["untrained"]
    assert tuple(trained.null_profiles["untrained"]) == tuple(untrained.profile)
    assert trained.value != untrained.value


def test_what_a_trace_function_leaves_out_neither_fails_the_fit_nor_costs_a_score(
    make_plan: MakePlan, catalog: Catalog
) -> None:
    plan = make_plan("functional", metrics=("error", "depths", "depths-missing"))
    scores = {one.name: one for one in fitted(plan, catalog).scores}
    plain = {one.name: one for one in fitted(make_plan(folder="plain", metrics=("depths",)), catalog).scores}
    assert scores["depths"].profile == plain["depths"].profile
    assert scores["depths-missing"].unscored == "model functional gives no trace of codes (it gives hidden)"
    assert set(load_file(plan.folder / TRACES)) == {"index", "hidden/0"}


def test_the_weights_on_disk_are_those_that_made_the_predictions(make_plan: MakePlan, catalog: Catalog) -> None:
    plan = make_plan(budget={"epochs": 8, "report": "chosen"})
    outcome = fitted(plan, catalog)
    assert outcome.reported_epoch < 8
    weights, predictions = load_file(plan.folder / WEIGHTS), load_file(plan.folder / PREDICTIONS)
    test = catalog.task("blobs").spec.data(None, "test")
    hidden = torch.relu(test.inputs.flatten(1) @ weights["hidden.weight"].T + weights["hidden.bias"])
    by_hand = hidden @ weights["head.weight"].T + weights["head.bias"]
    torch.testing.assert_close(predictions["logits"], by_hand)


def test_a_cell_in_bf16_is_predicted_scored_and_traced_in_bf16(make_plan: MakePlan, catalog: Catalog) -> None:
    plan = make_plan(budget={"precision": "bf16-mixed"}, metrics=("error", "depths"))
    outcome = fitted(plan, catalog)
    weights, predictions = load_file(plan.folder / WEIGHTS), load_file(plan.folder / PREDICTIONS)
    test = catalog.task("blobs").spec.data(None, "test")
    low = {name: weight.bfloat16() for name, weight in weights.items()}
    batches = torch.split(test.inputs.flatten(1).bfloat16(), plan.budget.batch_size)
    hidden = [F.linear(rows, low["hidden.weight"], low["hidden.bias"]) for rows in batches]
    logits = [F.linear(one.relu(), low["head.weight"], low["head.bias"]).float() for one in hidden]
    assert {weight.dtype for weight in weights.values()} == {torch.float32}
    torch.testing.assert_close(predictions["logits"], torch.cat(logits), rtol=0, atol=0)
    traces = load_file(plan.folder / TRACES)
    torch.testing.assert_close(traces["hidden/0"], torch.cat(hidden)[traces["index"]].float(), rtol=0, atol=0)
    [depths] = [one for one in outcome.scores if one.name == "depths"]
    looks = torch.split(torch.cat(hidden), [8, 16, 6])  # the first look is a small one
    by_hand = [sum(float(one.sum()) for one in looks), sum(float(one.abs().sum()) for one in looks)]
    assert list(depths.profile) == by_hand
    assert outcome.provenance.precision == "bf16-mixed"


@pytest.mark.parametrize("epochs", [1, 3])
def test_a_cells_costs_follow_from_its_epochs_and_its_model(make_plan: MakePlan, catalog: Catalog, epochs: int) -> None:
    seconds: list[float] = []

    def hear(message: Message) -> Answer:
        if isinstance(message, EpochEnded):
            seconds.append(message.seconds)
        return "go"

    outcome = fitted(make_plan(budget={"epochs": epochs}), catalog, hear)
    costs = {one.name: one for one in outcome.costs}
    steady = seconds[1:] or seconds  # the first epoch pays for warming up, unless there is no other
    assert costs["parameters"].value == (4 + 1) * 8 + (8 + 1) * 3
    assert costs["macs"].value == 4 * 8 + 8 * 3
    assert costs["training-rate"].value == pytest.approx(60 * len(steady) / sum(steady), rel=1e-12)
    assert costs["training-time"].value == outcome.training_seconds == pytest.approx(sum(seconds), rel=1e-12)
    assert costs["device-hours"].value == pytest.approx(sum(seconds) / 3600, rel=1e-12)  # of one device
    assert {name: (one.unit, one.direction) for name, one in costs.items()} == {
        "parameters": ("", "lower"),
        "macs": ("per sample", "lower"),
        "training-rate": ("samples/s", "higher"),
        "inference-rate": ("samples/s", "higher"),
        "peak-memory": ("bytes", "lower"),
        "training-time": ("s", "lower"),
        "device-hours": ("h", "lower"),
        "measuring-time": ("s", "none"),
        "measuring-memory": ("bytes", "none"),
    }


SLEEPY = """
from dataclasses import dataclass
import time, torch
from whitebench import ModelSpec, hookimpl


@dataclass(frozen=True, kw_only=True)
class Nothing:
    pass


class Sleepy(torch.nn.Sequential):
    def forward(self, x):
        if not self.training:
            time.sleep(0.02)
        return super().forward(x)


@hookimpl
def register_models():
    return [ModelSpec(name="sleepy", summary="takes 20 ms to answer", config=Nothing, head="1",
                      build=lambda config, shape, classes: Sleepy(torch.nn.Flatten(), torch.nn.Linear(4, classes)))]
"""


def test_the_inference_rate_is_that_of_a_batch_of_the_budgets_size(
    make_plan: MakePlan, plugin: Path, tmp_path: Path
) -> None:
    file = tmp_path / "sleepy.py"
    file.write_text(SLEEPY, encoding="utf-8")
    plan = make_plan("sleepy", plugins=[plugin, file], budget={"epochs": 1, "batch_size": 15})
    [rate] = [one.value for one in fitted(plan, load_catalog(plan.plugins)).costs if one.name == "inference-rate"]
    assert rate is not None
    assert 15 / 0.1 < rate <= 15 / 0.02


def test_the_same_plan_twice_gives_the_same_predictions_and_scores(make_plan: MakePlan, catalog: Catalog) -> None:
    first, second = (fitted(make_plan(folder=folder, metrics=("error", "depths")), catalog) for folder in ("a", "b"))
    assert first.predictions_sha256 == second.predictions_sha256
    assert first.weights_sha256 == second.weights_sha256
    assert values(first.scores) == values(second.scores)


def test_the_test_split_is_read_once_and_only_after_the_answer(
    make_plan: MakePlan, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    happened: list[str] = []
    task = catalog.task("blobs").spec

    def data(config: Any, split: Any) -> Any:
        happened.append(f"read {split}")
        return task.data(config, split)

    def hear(message: Message) -> Answer:
        if isinstance(message, AskTest):
            happened.append("asked")
            assert (plan.folder / WEIGHTS).exists()
        return "go"

    watched = dataclasses.replace(catalog.task("blobs"), spec=dataclasses.replace(task, data=data))
    plan = make_plan()
    entries = {**catalog.entries, "task": {**catalog.entries["task"], "blobs": watched}}
    fitted(plan, dataclasses.replace(catalog, entries=entries), hear)
    assert happened == ["read train", "read validation", "asked", "read test"]


def test_a_trial_never_asks_for_the_test_split(make_plan: MakePlan, catalog: Catalog) -> None:
    def hear(message: Message) -> Answer:
        assert not isinstance(message, AskTest)
        return "go"

    outcome = fitted(make_plan(purpose="trial"), catalog, hear)
    assert (outcome.scores, outcome.test_samples) == ((), 0)


def test_a_pruned_trial_says_after_which_epoch(make_plan: MakePlan, catalog: Catalog) -> None:
    assert run_fit(make_plan(purpose="trial"), catalog, lambda _: "prune") == Pruned(epoch=1)


def test_a_chosen_hyperparameter_of_the_model_reaches_its_options(make_plan: MakePlan, catalog: Catalog) -> None:
    chosen = {"learning_rate": 0.01, "weight_decay": 0.0, "model.rate": 0.4}
    tuned = fitted(make_plan("searching", "a", hyperparameters=chosen), catalog)
    stated = fitted(make_plan("searching[rate=0.4]", "b"), catalog)
    assert tuned.predictions_sha256 == stated.predictions_sha256


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"model": "tinny"}, UnknownNameError, "unknown model 'tinny', did you mean 'tiny'"),
        ({"model": "tiny[widht=3]"}, OptionError, "unknown option 'widht', did you mean 'width'"),
        ({"task": "blob"}, UnknownNameError, "unknown task 'blob', did you mean 'blobs'"),
        ({"primary": "depths"}, WhitebenchError, "metric 'depths' cannot rank a suite: it needs hidden"),
        ({"model": "faulty[how=7,mark=x]", "metrics": ("errror",)}, UnknownNameError, "unknown metric 'errror'"),
    ],
)
def test_a_plan_that_names_what_is_not_there_is_refused(
    make_plan: MakePlan, catalog: Catalog, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        run_fit(make_plan(**changes), catalog, go)


@pytest.fixture
def _as_it_was() -> Iterator[None]:
    yield
    torch.set_default_dtype(torch.float32)
    torch.set_num_threads(1)


@pytest.mark.usefixtures("_as_it_was")
@pytest.mark.parametrize(("kind", "name", "maker"), [("model", "tiny", "build"), ("task", "blobs", "data")])
def test_a_model_or_a_task_that_changes_what_everybody_computes_with_is_refused(
    make_plan: MakePlan, catalog: Catalog, kind: Any, name: str, maker: str
) -> None:
    entry = catalog.entries[kind][name]

    def make(*given: Any) -> Any:
        made = getattr(entry.spec, maker)(*given)
        torch.set_default_dtype(torch.float64)
        return made

    meddling = dataclasses.replace(entry, spec=dataclasses.replace(entry.spec, **{maker: make}))
    entries = {**catalog.entries, kind: {**catalog.entries[kind], name: meddling}}
    said = (
        f"{kind} {name} changed torch's default dtype from torch.float32 to torch.float64, which holds for everything"
    )
    with pytest.raises(WhitebenchError, match=said):
        run_fit(make_plan(), dataclasses.replace(catalog, entries=entries), go)


@pytest.mark.usefixtures("_as_it_was")
def test_so_is_one_that_does_it_while_it_is_trained(make_plan: MakePlan, catalog: Catalog) -> None:
    def hear(_: Message) -> Answer:
        torch.set_num_threads(2)
        return "go"

    with pytest.raises(WhitebenchError, match="the training of model tiny changed torch's number of threads from 1 to"):
        run_fit(make_plan(), catalog, hear)


def hidden_of(weights: dict[str, torch.Tensor], inputs: torch.Tensor) -> torch.Tensor:
    return torch.relu(inputs.flatten(1) @ weights["hidden.weight"].T + weights["hidden.bias"])


def nearest_mean(features: torch.Tensor, labels: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    means = torch.stack([features[labels == c].mean(dim=0) for c in range(3)])
    return -torch.cdist(new, means)


def splits(catalog: Catalog) -> dict[str, Any]:
    return {split: catalog.task("blobs").spec.data(None, split) for split in ("train", "validation", "test")}


def test_a_contestant_with_a_read_out_is_ranked_by_it(make_plan: MakePlan, catalog: Catalog) -> None:
    plan = make_plan(contestant=Contestant(model="tiny", readout="means"))
    outcome = fitted(plan, catalog)
    weights, predictions, data = load_file(plan.folder / WEIGHTS), load_file(plan.folder / PREDICTIONS), splits(catalog)
    train = hidden_of(weights, data["train"].inputs)
    by_hand = nearest_mean(train, data["train"].labels, hidden_of(weights, data["test"].inputs))
    torch.testing.assert_close(predictions["logits"], by_hand)
    seen = nearest_mean(train, data["train"].labels, hidden_of(weights, data["validation"].inputs))
    assert outcome.validation == pytest.approx((seen.argmax(1) != data["validation"].labels).double().mean().item())


def test_an_objective_that_never_sees_logits_leaves_the_head_as_it_was_drawn(
    make_plan: MakePlan, catalog: Catalog
) -> None:
    decayed = {"learning_rate": 0.05, "weight_decay": 0.5}
    plan = make_plan(contestant=Contestant(model="tiny", objective="spread[rate=2]"), hyperparameters=decayed)
    fitted(plan, catalog)
    untrained = make_plan(folder="other", contestant=Contestant(model="tiny", epochs=0))
    fitted(untrained, catalog)
    trained, drawn = load_file(plan.folder / WEIGHTS), load_file(untrained.folder / WEIGHTS)
    assert torch.equal(trained["head.weight"], drawn["head.weight"])
    assert not torch.equal(trained["hidden.weight"], drawn["hidden.weight"])


def test_the_suite_s_read_outs_score_features_and_raw_inputs(make_plan: MakePlan, catalog: Catalog) -> None:
    plan = make_plan(readouts=("means", "means[how=raise]"))
    outcome = fitted(plan, catalog)
    weights, data = load_file(plan.folder / WEIGHTS), splits(catalog)
    test = data["test"]

    def wrong(features: torch.Tensor, new: torch.Tensor) -> float:
        found = nearest_mean(features, data["train"].labels, new).argmax(1)
        return float((found != test.labels).double().mean())

    inside = wrong(hidden_of(weights, data["train"].inputs), hidden_of(weights, test.inputs))
    raw = wrong(data["train"].inputs.flatten(1), test.inputs.flatten(1))
    scores = {one.name: one for one in outcome.scores}
    assert scores["error/means"].value == pytest.approx(inside)
    assert scores["error/means"].nulls == {"raw inputs": pytest.approx(raw)}
    broken = scores["error/means[how=raise]"]
    assert (broken.value, dict(broken.nulls)) == (None, {})
    assert "readout 'means[how=raise]' raised ValueError: cannot take this" in (broken.unscored or "")


def test_a_read_out_that_ranks_and_raises_fails_the_fit(make_plan: MakePlan, catalog: Catalog) -> None:
    with pytest.raises(MetricError, match=r"readout 'means.how=raise.' raised ValueError: cannot take this"):
        fitted(make_plan(contestant=Contestant(model="tiny", readout="means[how=raise]")), catalog)


def test_without_epochs_a_model_is_scored_as_it_stands(make_plan: MakePlan, catalog: Catalog) -> None:
    plan = make_plan(contestant=Contestant(model="tiny", epochs=0))
    said: list[Message] = []

    def hear(message: Message) -> Answer:
        said.append(message)
        return "go"

    outcome = fitted(plan, catalog, hear)
    assert [type(one) for one in said] == [AskTest]
    assert (outcome.reported_epoch, outcome.validation_loss, outcome.training_seconds) == (0, None, 0)
    weights, data = load_file(plan.folder / WEIGHTS), splits(catalog)
    by_hand = hidden_of(weights, data["validation"].inputs) @ weights["head.weight"].T + weights["head.bias"]
    assert outcome.validation == pytest.approx((by_hand.argmax(1) != data["validation"].labels).double().mean().item())
    costs = {one.name: (one.value, one.unscored) for one in outcome.costs}
    assert costs["training-rate"] == costs["training-time"] == (None, "it was not trained here")
    assert costs["parameters"][0] == 67


def test_what_a_task_says_of_its_training_split_goes_with_the_result(make_plan: MakePlan, catalog: Catalog) -> None:
    outcome = fitted(
        make_plan(
            model="vit[dim=8,depth=1,heads=1]", task="digits[label_noise=0.3]", primary="accuracy", budget={"epochs": 1}
        ),
        catalog,
    )
    assert outcome.facts["label noise, nominal"] == 0.3
