"""A network of one's own, looked at in three lines: no suite, no store, no trainer."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import whitebench
from whitebench import Layout, Samples, TraceSpec, WhitebenchError
from whitebench.errors import TraceError, UnknownNameError
from whitebench.evaluation import Subject, predict
from whitebench.scoring import score
from whitebench.specs import MetricContext
from whitebench_metrics import register_metrics
from whitebench_models.crate import CRATE_SPEC, CRATEConfig


class Own(nn.Module):
    """Somebody's transformer: torch's own layers, a mean over tokens, a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(4, 16)
        layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
        self.head = nn.Linear(16, 5)

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.head(self.encoder(self.embed(tokens)).mean(dim=1))
        return logits


SPEC = TraceSpec(trace={"tokens": "encoder.layers.*"}, layout=Layout(heads=2))


@pytest.fixture
def own() -> Own:
    torch.manual_seed(0)
    return Own()


@pytest.fixture
def data() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(40, 6, 4), torch.randint(5, (40,))


def test_a_trace_is_what_the_layers_hand_on(own: Own, data: tuple[Tensor, Tensor]) -> None:
    own.eval()
    seen = whitebench.trace(own, data[0], SPEC)
    assert list(seen) == ["tokens"]
    tokens = own.embed(data[0])
    for layer, found in zip(own.encoder.layers, seen["tokens"], strict=True):
        tokens = layer(tokens)
        torch.testing.assert_close(found, tokens.detach())


def test_a_trace_function_gives_all_it_has(own: Own, data: tuple[Tensor, Tensor]) -> None:
    spec = TraceSpec(trace=lambda model, inputs: {"tokens": [inputs], "codes": [inputs, inputs]})
    assert {kind: len(layers) for kind, layers in whitebench.trace(own, data[0], spec).items()} == {
        "tokens": 1,
        "codes": 2,
    }
    assert set(whitebench.trace(own, data[0], spec, kinds=["codes"])) == {"codes"}


def test_the_scores_are_those_of_the_harness(data: tuple[Tensor, Tensor]) -> None:
    torch.manual_seed(2)
    config = CRATEConfig(dim=16, depth=2, heads=2, patch=2)
    model = CRATE_SPEC.build(config, (1, 4, 4), 5)
    images, labels = torch.randn(40, 1, 4, 4), data[1]
    metrics = ["accuracy", "coding-rate", "subspace-coding-rate", "sparsity"]
    found = whitebench.score(model, (images, labels), metrics, "crate[dim=16,depth=2,heads=2,patch=2]", batch_size=7)
    layout = CRATE_SPEC.layout
    assert layout is not None
    context = MetricContext(classes=5, shape=(1, 4, 4), layout=layout(config, (1, 4, 4)))
    subject = Subject(module=model, spec=CRATE_SPEC, context=context)
    specs = [next(one for one in register_metrics() if one.name == name) for name in metrics]
    samples = Samples(inputs=images, labels=labels)
    expected = score(subject, samples, predict(subject, images, batch_size=40), specs, batch_size=40).scores
    assert [one.name for one in found.scores] == [one.name for one in expected]
    assert [one.value for one in found.scores] == pytest.approx([one.value for one in expected], rel=1e-6)


def test_data_come_as_samples_a_pair_or_batches(own: Own, data: tuple[Tensor, Tensor]) -> None:
    given = (
        Samples(inputs=data[0], labels=data[1]),
        data,
        DataLoader(TensorDataset(*data), batch_size=9),
    )
    values = [whitebench.score(own, one, ["cross-entropy"], SPEC)["cross-entropy"].value for one in given]
    expected = float(nn.functional.cross_entropy(own.eval()(data[0]), data[1]).detach())
    assert values == pytest.approx([expected] * 3, rel=1e-6)


def test_the_network_is_left_in_the_mode_it_was_in(own: Own, data: tuple[Tensor, Tensor]) -> None:
    own.train()
    own.encoder.layers[1].eval()
    whitebench.score(own, data, ["accuracy", "coding-rate"], SPEC, untrained=Own())
    assert [module.training for module in (own, own.encoder.layers[0], own.encoder.layers[1])] == [True, True, False]


def test_the_untrained_network_is_the_null_of_metrics_that_ask_for_it(own: Own, data: tuple[Tensor, Tensor]) -> None:
    blank = Own()
    metric = next(one for one in register_metrics() if one.name == "coding-rate")
    asking = dataclasses.replace(metric, untrained=True)
    found = whitebench.score(own, data, [asking], SPEC, untrained=blank)["coding-rate/normalised"]
    alone = whitebench.score(blank, data, ["coding-rate"], SPEC)["coding-rate/normalised"]
    assert found.nulls["untrained"] == pytest.approx(alone.value)


def test_what_does_not_apply_is_unscored_and_printed_with_its_reason(own: Own, data: tuple[Tensor, Tensor]) -> None:
    found = whitebench.score(own, data, ["accuracy", "sparsity"], SPEC)
    accuracy, sparsity = repr(found).splitlines()
    assert accuracy.startswith(f"accuracy  {found['accuracy'].value:.4g} share")
    assert sparsity == "sparsity  unscored: model own gives no trace of codes (it gives tokens)"
    with pytest.raises(UnknownNameError, match="did you mean 'accuracy'"):
        found["acuracy"]


def test_a_network_without_a_linear_layer_has_no_head_to_take() -> None:
    flat = nn.Sequential(nn.Flatten(), nn.Tanh())
    with pytest.raises(TraceError, match="no linear layer to take for its head: give the TraceSpec a head"):
        whitebench.trace(flat, torch.ones(2, 3), TraceSpec())


@pytest.mark.parametrize(
    "wrong", [torch.ones(3), [torch.ones(3)], [], (torch.ones(3, 2), torch.ones(2)), [(torch.ones(2), 1)]]
)
def test_what_is_no_data_is_refused(own: Own, wrong: object) -> None:
    with pytest.raises(WhitebenchError, match=r"^data must be "):
        whitebench.score(own, wrong, ["accuracy"], SPEC)  # type: ignore[arg-type]


def test_what_is_no_metric_is_refused_and_not_left_out(own: Own, data: tuple[Tensor, Tensor]) -> None:
    with pytest.raises(WhitebenchError, match="metrics are names or MetricSpecs, got 7"):
        whitebench.score(own, data, ["accuracy", 7], SPEC)  # type: ignore[list-item]


def test_a_network_may_be_called_what_no_spec_may(data: tuple[Tensor, Tensor]) -> None:
    private = type("_Größe", (Own,), {})
    found = whitebench.score(private(), data, ["sparsity"], SPEC)["sparsity"]
    assert found.unscored == "model gr-e gives no trace of codes (it gives tokens)"


def test_an_unknown_metric_is_said(own: Own, data: tuple[Tensor, Tensor]) -> None:
    with pytest.raises(UnknownNameError, match="unknown metric 'sparsty', did you mean 'sparsity'"):
        whitebench.score(own, data, ["sparsty"], SPEC)


def test_looking_costs_neither_lightning_nor_mlflow_nor_a_file(tmp_path: object) -> None:
    code = """
import os, sys, torch, whitebench
net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
spec = whitebench.TraceSpec(trace={"codes": "1"})
print(whitebench.score(net, (torch.randn(9, 4), torch.zeros(9).long()), ["sparsity"], spec)["sparsity/nonzero"].value)
print({"lightning", "mlflow", "optuna"} & set(sys.modules), os.listdir())
"""
    told = subprocess.run([sys.executable, "-c", code], cwd=str(tmp_path), capture_output=True, text=True, check=True)
    value, others = told.stdout.splitlines()
    assert 0 < float(value) < 1
    assert others == "set() []"
