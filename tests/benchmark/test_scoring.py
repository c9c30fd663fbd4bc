"""Scoring: every metric on its own."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torchmetrics
from torch import nn

from whitebench import scoring
from whitebench.catalog import Catalog
from whitebench.evaluation import Subject, predict, trace_sample
from whitebench.needs import unmet_need
from whitebench.reading import Picture, Reading
from whitebench.result import Score
from whitebench.scoring import score, score_predictions
from whitebench.specs import Layout, MetricContext, MetricSpec, Samples


@pytest.fixture
def subject(catalog: Catalog) -> Subject:
    spec = catalog.model("tiny").spec
    torch.manual_seed(0)
    context = MetricContext(classes=3, shape=(1, 2, 2), layout=Layout())
    return Subject(module=spec.build(spec.config(), (1, 2, 2), 3), spec=spec, context=context)


@pytest.fixture
def samples(catalog: Catalog) -> Samples:
    found: Samples = catalog.task("blobs").spec.data(None, "test")
    return found


def scores_of(subject: Subject, samples: Samples, catalog: Catalog, *names: str, batch_size: int = 7) -> list[Score]:
    logits = predict(subject, samples.inputs, batch_size=batch_size)
    metrics = [catalog.metric(name).spec for name in names]
    return score(subject, samples, logits, metrics, batch_size=batch_size).scores


def test_scores_stand_in_the_order_of_the_metrics(subject: Subject, samples: Samples, catalog: Catalog) -> None:
    names = ("depths", "error", "depths-missing", "accuracy")
    assert tuple(one.name for one in scores_of(subject, samples, catalog, *names)) == names


@pytest.mark.parametrize(
    ("metric", "reason"),
    [
        ("depths-missing", "model tiny gives no trace of codes"),
        ("depths-raises", "the metric raised ValueError: no such layer"),
        ("depths-text", "the metric raised WhitebenchError: compute returned str"),
        ("depths-hole", "layer 2 is nan"),
        ("error-raises", "the metric raised ValueError: cannot take this"),
        ("error-nan", "the value is nan"),
    ],
)
def test_a_metric_that_gives_nothing_is_unscored_with_its_reason_and_costs_no_other_its_score(
    subject: Subject, samples: Samples, catalog: Catalog, metric: str, reason: str
) -> None:
    first, broken, last = scores_of(subject, samples, catalog, "error", metric, "depths")
    assert broken.value is None
    assert broken.unscored is not None
    assert broken.unscored.startswith(reason)
    assert (broken.profile, broken.spread) == ((), ())
    assert first.value is not None
    assert last.value is not None


def test_a_reading_becomes_plain_finite_numbers(subject: Subject, samples: Samples, catalog: Catalog) -> None:
    [found] = scores_of(subject, samples, catalog, "depths")
    assert [type(value) for value in (found.value, *found.profile)] == [float] * 3
    assert (dict(found.nulls), found.spread) == ({"noise": 1.5}, ())  # neither NaN nor infinity can be stored


def test_a_look_inside_sees_every_sample_once(subject: Subject, samples: Samples, catalog: Catalog) -> None:
    [found] = scores_of(subject, samples, catalog, "depths")
    hidden = subject.module.get_submodule("hidden")(samples.inputs.flatten(1)).detach()
    assert found.profile == pytest.approx([float(hidden.sum()), float(hidden.abs().sum())], rel=1e-5)


def test_a_metric_on_predictions_needs_no_model(subject: Subject, catalog: Catalog) -> None:
    logits = torch.tensor([[2.0, 1, 0], [0, 1, 2], [0, 2, 1], [2, 0, 1]])
    [found] = score_predictions(catalog.metric("error").spec, subject.context, logits, torch.tensor([0, 2, 2, 1]))
    assert found.value == 0.5


@pytest.mark.parametrize(("precision", "dtype"), [("32", torch.float32), ("bf16-mixed", torch.bfloat16)])
def test_every_look_at_a_model_computes_in_the_budgets_precision(
    subject: Subject, samples: Samples, catalog: Catalog, precision: str, dtype: torch.dtype
) -> None:
    seen: list[torch.dtype] = []
    subject.module.get_submodule("hidden").register_forward_hook(lambda _layer, _given, out: seen.append(out.dtype))
    logits = predict(subject, samples.inputs, batch_size=30, precision=precision)
    score(subject, samples, logits, [catalog.metric("depths").spec], batch_size=30, precision=precision)
    traces = trace_sample(subject, samples, frozenset({"hidden"}), precision=precision)
    assert seen == [dtype] * 5  # one batch predicted, two looks for the metric, two for what is kept
    assert (logits.dtype, traces["hidden/0"].dtype) == (torch.float32, torch.float32)  # what is stored


def test_a_model_whose_trace_is_a_function_is_asked_for_everything(subject: Subject, catalog: Catalog) -> None:
    functional = dataclasses.replace(subject.spec, trace=lambda module, inputs: {})
    assert unmet_need(catalog.metric("depths-missing").spec, functional) is None


def test_a_kind_that_a_trace_function_leaves_out_costs_no_other_metric_its_score(
    subject: Subject, samples: Samples, catalog: Catalog
) -> None:
    asked: list[int] = []

    def trace(module: nn.Module, inputs: torch.Tensor) -> dict[str, list[torch.Tensor]]:
        asked.append(len(inputs))
        return {"hidden": [module.get_submodule("hidden")(inputs.flatten(1))]}

    functional = dataclasses.replace(subject, spec=dataclasses.replace(subject.spec, trace=trace))
    [expected] = scores_of(subject, samples, catalog, "depths")
    error, missing, depths = scores_of(functional, samples, catalog, "error", "depths-missing", "depths")
    assert missing.unscored == "model tiny gives no trace of codes (it gives hidden)"
    assert error.value is not None
    assert depths.profile == pytest.approx(expected.profile, rel=1e-6)
    assert asked == [7, 7, 7, 7, 2]
    stored = trace_sample(functional, samples, frozenset({"hidden", "codes"}))
    assert set(stored) == {"index", "hidden/0"}


def test_a_model_is_looked_into_no_further_once_nobody_needs_it(
    subject: Subject, samples: Samples, catalog: Catalog
) -> None:
    asked: list[int] = []

    def trace(module: nn.Module, inputs: torch.Tensor) -> dict[str, list[torch.Tensor]]:
        asked.append(len(inputs))
        return {}

    blank = dataclasses.replace(subject, spec=dataclasses.replace(subject.spec, trace=trace))
    [missing] = scores_of(blank, samples, catalog, "depths-missing")
    assert missing.unscored == "model tiny gives no trace of codes (it gives none)"
    assert asked == [7]


class Firsts(torchmetrics.Metric):
    """The largest hidden unit over all samples, with a picture, and how many samples were seen in which order."""

    seen: torch.Tensor
    order: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("seen", torch.zeros(0), dist_reduce_fx="cat")
        self.add_state("order", torch.zeros(0, dtype=torch.int64), dist_reduce_fx="cat")

    def update(self, layers: list[torch.Tensor], index: torch.Tensor) -> None:
        self.seen = torch.cat([self.seen, layers[0][:, 0]])
        self.order = torch.cat([self.order, index])

    def compute(self) -> Reading:
        picture = Picture(kind="histogram", title="hidden", x="first unit", y="samples", series={"net": self.seen})
        profile = [float(self.seen.mean()), float(self.order.sum())]
        return Reading(value=profile[0], profile=profile, pictures={"units": picture})


FIRSTS = MetricSpec(
    name="firsts", version=1, summary="", direction="none", needs=("hidden", "index"), build=lambda context: Firsts()
)


def drawn(subject: Subject, seed: int) -> Subject:
    torch.manual_seed(seed)
    return dataclasses.replace(subject, module=subject.spec.build(subject.spec.config(), (1, 2, 2), 3))


def test_the_untrained_network_stands_beside_what_asks_for_it_and_beside_nothing_else(
    subject: Subject, samples: Samples, catalog: Catalog
) -> None:
    blank = drawn(subject, 7)
    logits = predict(subject, samples.inputs, batch_size=7)
    metrics = [catalog.metric("error").spec, dataclasses.replace(FIRSTS, untrained=True)]
    found = score(subject, samples, logits, metrics, batch_size=7, untrained=lambda: blank)
    error, firsts = found.scores
    [alone] = score(blank, samples, logits, [FIRSTS], batch_size=30).scores
    assert dict(error.nulls) == {}
    assert dict(firsts.nulls) == {"untrained": pytest.approx(alone.value)}
    assert firsts.null_profiles["untrained"] == pytest.approx(alone.profile)
    assert firsts.value != firsts.nulls["untrained"]
    picture = found.pictures["firsts/units"]
    assert list(picture.series) == ["net", "net, untrained"]
    hidden = blank.module.get_submodule("hidden")(samples.inputs.flatten(1)).detach()
    torch.testing.assert_close(picture.series["net, untrained"], hidden[:, 0])


def test_a_null_of_the_metric_s_own_is_drawn_once_for_both_networks(subject: Subject, samples: Samples) -> None:
    class WithNull(Firsts):
        def compute(self) -> Reading:
            reading = super().compute()
            units = reading.pictures["units"]
            with_null = dataclasses.replace(units, series={**units.series, "noise": torch.ones(3)})
            return dataclasses.replace(reading, pictures={"units": with_null})

    asking = dataclasses.replace(FIRSTS, build=lambda _: WithNull(), untrained=True)
    logits = predict(subject, samples.inputs, batch_size=7)
    found = score(subject, samples, logits, [asking], batch_size=7, untrained=lambda: drawn(subject, 7))
    assert list(found.pictures["firsts/units"].series) == ["net", "noise", "net, untrained"]


def test_nobody_draws_a_network_that_no_metric_asks_for(subject: Subject, samples: Samples) -> None:
    def draw() -> Subject:
        raise AssertionError("drawn for nothing")

    logits = predict(subject, samples.inputs, batch_size=7)
    assert score(subject, samples, logits, [FIRSTS], batch_size=7, untrained=draw).scores[0].value is not None


def test_a_null_that_cannot_be_had_costs_no_score(
    subject: Subject, samples: Samples, caplog: pytest.LogCaptureFixture
) -> None:
    def draw() -> Subject:
        raise ValueError("no weights today")

    logits = predict(subject, samples.inputs, batch_size=7)
    asking = dataclasses.replace(FIRSTS, untrained=True)
    [firsts] = score(subject, samples, logits, [asking], batch_size=7, untrained=draw).scores
    assert (firsts.value is not None, dict(firsts.nulls)) == (True, {})
    assert "no weights today" in caplog.text


def test_every_sample_comes_with_its_place_in_the_split(subject: Subject, samples: Samples) -> None:
    logits = predict(subject, samples.inputs, batch_size=7)
    [firsts] = score(subject, samples, logits, [FIRSTS], batch_size=7).scores
    assert firsts.profile[1] == sum(range(30))


def test_a_look_takes_no_more_memory_than_it_may(
    subject: Subject, samples: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    subject.module.get_submodule("hidden").register_forward_hook(lambda _l, given, _o: asked.append(len(given[0])))
    logits = predict(subject, samples.inputs, batch_size=30)
    width = len(subject.module.get_parameter("hidden.bias"))
    monkeypatch.setattr(scoring, "TRACED_BYTES", 5 * 4 * width)
    asked.clear()
    small = score(subject, samples, logits, [FIRSTS], batch_size=30).scores
    assert asked == [8, 5, 5, 5, 5, 2]
    monkeypatch.undo()
    large = score(subject, samples, logits, [FIRSTS], batch_size=30).scores
    assert asked[6:] == [8, 22]
    assert small[0].value == pytest.approx(large[0].value, rel=1e-6)


def test_a_picture_that_cannot_be_drawn_unscores_its_metric_and_says_why(subject: Subject, samples: Samples) -> None:
    class Odd(Firsts):
        def compute(self) -> Reading:
            reading = super().compute()
            picture = dataclasses.replace(reading.pictures["units"], kind="matrix")
            return dataclasses.replace(reading, pictures={"units": picture})

    odd = dataclasses.replace(FIRSTS, build=lambda context: Odd())
    logits = predict(subject, samples.inputs, batch_size=7)
    found = score(subject, samples, logits, [odd], batch_size=7)
    assert found.scores[0].unscored is not None
    assert "picture 'units': series 'net' of shape (30,) is none of matrix" in found.scores[0].unscored
    assert found.pictures == {}


class FromCentres(torchmetrics.Metric):
    """The mean distance of inputs to the true centre of their class."""

    total: torch.Tensor
    count: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, inputs: torch.Tensor, labels: torch.Tensor, centres: torch.Tensor) -> None:
        self.total += (inputs.flatten(1) - centres[labels]).norm(dim=1).sum()
        self.count += len(inputs)

    def compute(self) -> torch.Tensor:
        return self.total / self.count


def told(*needs: str) -> MetricSpec:
    return MetricSpec(
        name="told", version=1, summary="", direction="lower", needs=needs, build=lambda context: FromCentres()
    )


def test_what_only_the_task_knows_comes_whole_with_every_batch(subject: Subject, samples: Samples) -> None:
    centres = 2 * torch.eye(4)[:3]
    known = dataclasses.replace(samples, truth={"centres": centres})
    metric, logits = told("inputs", "labels", "truth:centres"), predict(subject, samples.inputs, batch_size=30)
    for batch_size in (1, 7, 30):
        [found] = score(subject, known, logits, [metric], batch_size=batch_size).scores
        by_hand = (samples.inputs.flatten(1) - centres[samples.labels]).norm(dim=1).mean()
        assert found.value == pytest.approx(float(by_hand), rel=1e-5)


def test_where_the_task_does_not_know_it_the_score_is_unscored(subject: Subject, samples: Samples) -> None:
    logits = predict(subject, samples.inputs, batch_size=30)
    [found] = score(subject, samples, logits, [told("inputs", "truth:centres")], batch_size=30).scores
    assert (found.value, found.unscored) == (None, "this task knows no true centres")
