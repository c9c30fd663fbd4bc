"""One fit from names to numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from whitebench.catalog import Catalog
from whitebench.errors import OptionError, UnknownNameError, WhitebenchError
from whitebench.fit import PREDICTIONS, TRACES, WEIGHTS, Answer, AskTest, FitPlan, Fitted, Message, Pruned
from whitebench.fitting import run_fit
from whitebench.result import Score, digest

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


def test_the_weights_on_disk_are_those_that_made_the_predictions(make_plan: MakePlan, catalog: Catalog) -> None:
    plan = make_plan(budget={"epochs": 8, "report": "chosen"})
    outcome = fitted(plan, catalog)
    assert outcome.reported_epoch < 8
    weights, predictions = load_file(plan.folder / WEIGHTS), load_file(plan.folder / PREDICTIONS)
    test = catalog.task("blobs").spec.data(None, "test")
    hidden = torch.relu(test.inputs.flatten(1) @ weights["hidden.weight"].T + weights["hidden.bias"])
    by_hand = hidden @ weights["head.weight"].T + weights["head.bias"]
    torch.testing.assert_close(predictions["logits"], by_hand)


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
