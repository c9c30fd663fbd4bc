"""Looking inside a model: what patterns match, in which order, and what is said when they do not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from whitebench.errors import TraceError
from whitebench.tracing import Observation, observe, offered_kinds

if TYPE_CHECKING:
    from collections.abc import Collection

    from whitebench.specs import TraceFunction, TracePatterns

WIDTH, CLASSES, BATCH = 3, 2, 4


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.ista = nn.Linear(WIDTH, WIDTH)
        self.unused = nn.Identity()

    def forward(self, tokens: Tensor) -> Tensor:
        moved: Tensor = tokens + self.ista(self.norm(tokens))
        return moved


class Model(nn.Module):
    """Blocks, then a head: small enough that a test can redo the forward pass by hand."""

    def __init__(self, depth: int = 2) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(depth))
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        for block in self.blocks:
            inputs = block(inputs)
        logits: Tensor = self.head(inputs)
        return logits


def look(
    model: nn.Module,
    trace: TracePatterns | TraceFunction,
    kinds: Collection[str] | None = None,
    inputs: Tensor | None = None,
    head: str = "head",
) -> Observation:
    if kinds is None:
        kinds = offered_kinds(trace) or ()
    inputs = torch.arange(BATCH * WIDTH, dtype=torch.float32).reshape(BATCH, WIDTH) if inputs is None else inputs
    return observe(model, inputs, head=head, trace=trace, kinds=kinds)


def num_hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def test_outputs_inputs_and_weights_are_those_of_the_forward_pass() -> None:
    model, inputs = Model(), torch.randn(BATCH, WIDTH)
    patterns = {"tokens": "blocks.*", "compressed": "blocks.*.norm:in", "weights": "blocks.*.ista.weight:param"}
    seen = look(model, patterns, inputs=inputs)
    first = model.blocks[0](inputs)
    second = model.blocks[1](first)
    torch.testing.assert_close(list(seen.trace["tokens"]), [first.detach(), second.detach()])
    torch.testing.assert_close(list(seen.trace["compressed"]), [inputs, first.detach()])
    expected = [weight.detach() for name, weight in model.named_parameters() if name.endswith("ista.weight")]
    torch.testing.assert_close(list(seen.trace["weights"]), expected)
    torch.testing.assert_close(seen.features, second.detach())
    torch.testing.assert_close(seen.logits, model(inputs).detach())


def test_nothing_seen_carries_a_gradient_and_no_hook_stays() -> None:
    model = Model()
    seen = look(model, {"tokens": "blocks.*", "weights": "blocks.*.ista.weight:param"})
    tensors = [seen.logits, seen.features, *seen.trace["tokens"], *seen.trace["weights"]]
    assert not any(tensor.requires_grad for tensor in tensors)
    assert num_hooks(model) == 0


def test_twelve_layers_come_in_their_numeric_order() -> None:
    model = Model(depth=12)
    for place, block in enumerate(model.blocks):
        nn.init.zeros_(block.ista.weight)  # type: ignore[union-attr, arg-type]
        nn.init.constant_(block.ista.bias, 10.0**place)  # type: ignore[union-attr, arg-type]
    seen = look(model, {"codes": "blocks.*.ista"})
    assert [float(layer[0, 0]) for layer in seen.trace["codes"]] == pytest.approx([10.0**n for n in range(12)])


def test_a_star_stands_for_exactly_one_part_of_a_name() -> None:
    with pytest.raises(TraceError, match=r"no module matches '\*\.ista'"):
        look(Model(), {"codes": "*.ista"})


def test_only_the_kinds_asked_for_are_looked_at() -> None:
    seen = look(Model(), {"tokens": "blocks.*", "broken": "nowhere"}, kinds=["tokens"])
    assert set(seen.trace) == {"tokens"}


def test_a_kind_that_is_not_offered_is_answered_with_those_that_are() -> None:
    with pytest.raises(TraceError, match=r"no trace 'token', did you mean 'tokens'\? \(offered: tokens\)"):
        look(Model(), {"tokens": "blocks.*"}, kinds=["token"])


def test_a_pattern_without_a_match_names_itself_its_kind_and_near_misses() -> None:
    with pytest.raises(
        TraceError, match=r"'codes': no module matches 'blocks\.\*\.isat', did you mean 'blocks\.\*\.ista'"
    ):
        look(Model(), {"codes": "blocks.*.isat"})
    with pytest.raises(TraceError, match=r"no parameter matches 'head\.wait', did you mean 'head\.weight'"):
        look(Model(), {"codes": "head.wait:param"})


@pytest.mark.parametrize("suffix", ["out", "()"])
def test_an_unknown_suffix_is_refused(suffix: str) -> None:
    with pytest.raises(TraceError, match=r"unknown suffix; known are :in, :param and :method\(\)"):
        look(Model(), {"codes": f"blocks.*.ista:{suffix}"})


class Doubling(Block):
    """A block that can also say what it makes of tokens otherwise."""

    def doubled(self, tokens: Tensor) -> Tensor:
        normed: Tensor = self.norm(tokens)
        return 2 * normed

    def named(self, tokens: Tensor) -> dict[str, Tensor]:
        return {"tokens": tokens}


def doubling() -> Model:
    model = Model()
    model.blocks = nn.ModuleList(Doubling() for _ in range(2))
    return model


def test_a_method_is_given_the_input_of_each_module_once_the_pass_is_over() -> None:
    model, inputs = doubling(), torch.randn(BATCH, WIDTH)
    patterns = {"doubled": "blocks.*:doubled()", "normed": "blocks.*.norm"}
    seen = look(model, patterns, inputs=inputs)
    second = model.blocks[0](inputs)
    expected = [2 * model.blocks[0].norm(inputs), 2 * model.blocks[1].norm(second)]  # type: ignore[operator]
    torch.testing.assert_close(list(seen.trace["doubled"]), [one.detach() for one in expected])
    assert len(seen.trace["normed"]) == 2  # what the method calls is no part of the pass
    assert not any(layer.requires_grad for layer in seen.trace["doubled"])
    assert num_hooks(model) == 0


def test_a_method_that_is_missing_or_gives_no_tensor_is_named() -> None:
    with pytest.raises(TraceError, match=r"'blocks\.0' has no method 'doubles', did you mean .*'doubled'"):
        look(doubling(), {"doubled": "blocks.*:doubles()"})
    with pytest.raises(TraceError, match=r"named\(\) of module 'blocks\.0' returns a dict, no tensor"):
        look(doubling(), {"doubled": "blocks.*:named()"})


def test_a_module_that_the_forward_pass_does_not_reach_is_named() -> None:
    with pytest.raises(TraceError, match=r"'blocks\.0\.unused', 'blocks\.1\.unused', which the forward pass"):
        look(Model(), {"codes": "blocks.*.unused"})


def test_a_shared_module_yields_one_tensor_per_call_in_the_order_of_the_calls() -> None:
    class Shared(Model):
        def forward(self, inputs: Tensor) -> Tensor:
            for _ in range(2):
                for block in self.blocks:
                    inputs = block(inputs)
            logits: Tensor = self.head(inputs)
            return logits

    model, expected = Shared(), []
    tokens = torch.randn(BATCH, WIDTH)
    seen = look(model, {"tokens": "blocks.*"}, inputs=tokens)
    for block in [*model.blocks, *model.blocks]:
        tokens = block(tokens)
        expected.append(tokens.detach())
    torch.testing.assert_close(list(seen.trace["tokens"]), expected)


def test_one_module_under_two_names_is_seen_once_per_call() -> None:
    model = Model()
    model.blocks[1] = model.blocks[0]
    assert len(look(model, {"tokens": "blocks.*"}).trace["tokens"]) == 2


def test_a_later_change_in_place_does_not_reach_what_was_seen() -> None:
    class InPlace(Model):
        def forward(self, inputs: Tensor) -> Tensor:
            tokens = self.blocks[0](inputs)
            tokens *= 0
            logits: Tensor = self.head(tokens)
            return logits

    seen = look(InPlace(), {"tokens": "blocks.0"})
    assert seen.trace["tokens"][0].abs().sum() > 0


def test_the_first_of_several_outputs_counts_and_an_output_without_a_tensor_is_refused() -> None:
    class Attention(nn.Module):
        def forward(self, inputs: Tensor) -> tuple[Tensor, None]:
            return inputs + 1, None

    class Names(nn.Module):
        def forward(self, inputs: Tensor) -> dict[str, Tensor]:
            return {"tokens": inputs}

    class Both(Model):
        def __init__(self) -> None:
            super().__init__()
            self.attention, self.names = Attention(), Names()

        def forward(self, inputs: Tensor) -> Tensor:
            logits: Tensor = self.head(self.names(self.attention(inputs)[0])["tokens"])
            return logits

    inputs = torch.zeros(BATCH, WIDTH)
    assert look(Both(), {"tokens": "attention"}, inputs=inputs).trace["tokens"][0].eq(1).all()
    with pytest.raises(TraceError, match="'names' yields a dict, no tensor"):
        look(Both(), {"tokens": "names"})


def test_hooks_are_removed_when_the_forward_pass_raises() -> None:
    model = Model()
    with pytest.raises(RuntimeError):
        look(model, {"tokens": "blocks.*"}, inputs=torch.zeros(BATCH, WIDTH + 1))
    assert num_hooks(model) == 0


@pytest.mark.parametrize("where", ["whole", "in place", "one block"])
def test_a_compiled_model_is_seen_like_the_plain_one(where: str) -> None:
    model = doubling()
    patterns = {"tokens": "blocks.*", "weights": "blocks.*.ista.weight:param", "doubled": "blocks.*:doubled()"}
    plain = look(model, patterns)
    compiled: Any = model
    if where == "whole":
        compiled = torch.compile(model, backend="eager")
    elif where == "in place":
        model.compile(backend="eager")
    else:
        model.blocks[0] = torch.compile(model.blocks[0], backend="eager")  # type: ignore[assignment]
    seen = look(compiled, patterns)
    for kind in patterns:
        torch.testing.assert_close(list(seen.trace[kind]), list(plain.trace[kind]))


def test_a_model_wrapped_for_several_devices_is_seen_like_the_plain_one() -> None:
    model, patterns = Model(), {"tokens": "blocks.*"}
    wrapped = nn.DataParallel(model)
    inputs = torch.randn(BATCH, WIDTH, device=next(model.parameters()).device)  # to a GPU, where there is one
    torch.testing.assert_close(
        list(look(wrapped, patterns, inputs=inputs).trace["tokens"]),
        list(look(model, patterns, inputs=inputs).trace["tokens"]),
    )


def test_the_head_must_be_called_once_with_one_row_per_sample() -> None:
    with pytest.raises(TraceError, match=r"with \(4, 5, 3\)"):
        look(Model(), {}, inputs=torch.zeros(BATCH, 5, WIDTH))
    with pytest.raises(TraceError, match=r"head 'haed': the model has no such module, did you mean 'head'"):
        look(Model(), {}, head="haed")


def test_a_trace_function_is_called_and_held_to_its_kinds() -> None:
    def trace(model: nn.Module, inputs: Tensor) -> dict[str, list[Tensor]]:
        return {"tokens": [model.get_submodule("head")(inputs)], "codes": []}

    model, inputs = Model(), torch.randn(BATCH, WIDTH)
    assert offered_kinds(trace) is None
    seen = look(model, trace, kinds=["tokens"], inputs=inputs)
    torch.testing.assert_close(seen.trace["tokens"][0], model.head(inputs).detach())
    assert set(seen.trace) == {"tokens"}
    with pytest.raises(TraceError, match="'codes': the model's trace function must return a list"):
        look(model, trace, kinds=["codes"])


def test_a_trace_function_may_leave_a_kind_out_and_says_by_its_answer_what_it_offers() -> None:
    def trace(model: nn.Module, inputs: Tensor) -> dict[str, list[Tensor]]:
        return {"tokens": [inputs]}

    seen = look(Model(), trace, kinds=["tokens", "codes"])
    assert set(seen.trace) == set(seen.offered) == {"tokens"}
    assert look(Model(), {"tokens": "blocks.*", "codes": "blocks.*.ista"}, kinds=[]).offered == {"tokens", "codes"}
    with pytest.raises(TraceError, match="trace function returns a list; it must return a mapping"):
        look(Model(), lambda model, inputs: [inputs], kinds=["tokens"])  # type: ignore[arg-type, return-value]


class Torchs(nn.Module):
    """A network of torch's own layers."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, **options)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(8, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.head(self.encoder(tokens).mean(dim=1))
        return logits


TORCHS = {
    "attention-inputs": "encoder.layers.*.self_attn:in",
    "attention-logits": "encoder.layers.*.self_attn:logits()",
    "attention": "encoder.layers.*.self_attn:weights()",
    "attention-forms": "encoder.layers.*.self_attn:forms()",
}


@pytest.mark.parametrize("options", [{}, {"norm_first": True}, {"bias": False}])
def test_torchs_own_attention_is_looked_into_by_the_same_words(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    network, tokens = Torchs(**options).eval(), torch.randn(3, 5, 8)
    for weight in network.parameters():
        nn.init.normal_(weight, std=0.4)  # torch starts biases from zero
    seen = observe(network, tokens, head="head", trace=TORCHS, kinds=None).trace
    for place, layer in enumerate(network.encoder.layers):
        assert isinstance(layer, nn.TransformerEncoderLayer)
        inputs = seen["attention-inputs"][place]
        _, expected = layer.self_attn(inputs, inputs, inputs, average_attn_weights=False)
        torch.testing.assert_close(seen["attention"][place], expected.detach(), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(
            seen["attention-logits"][place].softmax(dim=-1), expected.detach(), rtol=1e-4, atol=1e-6
        )
        assert seen["attention-forms"][place].shape == (2, 8, 9)


def test_torchs_own_attention_is_said_to_be_out_of_sight_where_it_is() -> None:
    network = Torchs()
    network.encoder.layers[0] = nn.TransformerEncoderLayer(8, 2, 16)
    with pytest.raises(TraceError, match="only self-attention with batch_first=True"):
        observe(network, torch.randn(3, 5, 8), head="head", trace=TORCHS, kinds=["attention"])
