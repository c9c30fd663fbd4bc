"""What the ViTs with another attention share: the exchange, and an own term of the loss that outlives no use."""

import copy
import gc
import pickle
import weakref

import pytest
import torch
from torch import Tensor, nn

from whitebench import WhitebenchError
from whitebench_models.attention import Penalised, build_vit, own_term
from whitebench_models.vit import Attention, ViT, ViTConfig

SMALL = ViTConfig(dim=12, depth=3, heads=3, patch=2)


class Halved(Penalised):
    """Hands on half of each token, at the price of the largest."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.out = attention.out
        self.factor = nn.Parameter(torch.rand(1))

    def forward(self, tokens: Tensor) -> Tensor:
        self.term = tokens.max() if self.training else None
        halved: Tensor = self.factor * tokens
        return halved


def build() -> ViT:
    torch.manual_seed(0)
    return build_vit("halved-vit", SMALL, (1, 4, 4), 5, Halved)


def terms(model: nn.Module) -> list[Tensor | None]:
    return [module.term for module in model.modules() if isinstance(module, Penalised)]


def test_under_one_seed_whatever_two_models_share_starts_alike() -> None:
    torch.manual_seed(0)
    plain, ours = ViT(SMALL, (1, 4, 4), 5).state_dict(), build().state_dict()
    shared = [name for name in plain if name in ours]
    assert all(torch.equal(plain[name], ours[name]) for name in shared)
    assert {name for name in plain if name not in ours} == {
        f"blocks.{layer}.attention.qkv.{part}" for layer in range(3) for part in ("weight", "bias")
    }


def test_a_sample_that_cannot_be_cut_is_refused_in_the_models_own_name() -> None:
    with pytest.raises(WhitebenchError, match=r"halved-vit: an image of 5 x 4 pixels"):
        build_vit("halved-vit", SMALL, (1, 5, 4), 5, Halved)


def test_the_own_term_is_the_mean_over_layers_and_is_taken_once() -> None:
    model = build().train()
    model(torch.rand(2, 1, 4, 4))
    kept = [term for term in terms(model) if term is not None]
    assert len(kept) == 3
    assert own_term(model).item() == pytest.approx(sum(term.item() for term in kept) / 3)
    with pytest.raises(AssertionError, match="once"):
        own_term(model)


def test_no_graph_outlives_the_step_or_the_next_evaluation() -> None:
    model = build().train()
    model(torch.rand(2, 1, 4, 4))
    (kept, *_) = [weakref.ref(term) for term in terms(model) if term is not None]
    own_term(model).backward()  # type: ignore[no-untyped-call]
    gc.collect()
    assert kept() is None
    model(torch.rand(2, 1, 4, 4))
    model.eval()(torch.rand(2, 1, 4, 4))
    assert terms(model) == [None] * 3


def test_a_model_in_the_middle_of_a_step_can_be_copied_and_pickled() -> None:
    model = build().train()
    model(torch.rand(2, 1, 4, 4))
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert terms(copied) == [None] * 3
        assert all(torch.equal(one, two) for one, two in zip(copied.parameters(), model.parameters(), strict=True))
    assert own_term(model).requires_grad
