"""Contestants of one size: whose width is scaled, how near it comes, and who is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from whitebench.budget import Budget
from whitebench.catalog import Catalog, load_catalog
from whitebench.cost import count_parameters
from whitebench.errors import SuiteError
from whitebench.ledger import ledger_of, plan_cells
from whitebench.matching import match_width
from whitebench.names import configured
from whitebench.recipe import Recipe, Tuned
from whitebench.suite import Contestant, Match, Suite

VIT = Contestant(model="vit[depth=2,heads=4]", label="vit")
CRATE = Contestant(model="crate[depth=2,heads=4]", label="crate")


def suite(*contestants: Contestant, parameters: float = 1e5, tolerance: float = 0.05, task: str = "digits") -> Suite:
    return Suite(
        name="sized",
        version=1,
        summary="",
        primary="accuracy",
        tasks=(task,),
        seeds=(0,),
        metrics=("accuracy",),
        budget=Budget(epochs=1, batch_size=32, trials=0),
        recipes={"plain": Recipe(learning_rate=Tuned(value=1e-3))},
        match=Match(parameters=parameters, tolerance=tolerance),
        contestants=contestants,
    )


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return load_catalog()


def parameters_of(model: str, catalog: Catalog) -> int:
    """Count those of the network that is built for real."""
    spec = catalog.model(model.partition("[")[0]).spec
    return count_parameters(spec.build(configured("model", model, spec.config, spec.presets), (1, 8, 8), 10))


@pytest.mark.parametrize("contestant", [VIT, CRATE], ids=["vit", "crate"])
def test_no_width_in_steps_of_the_heads_comes_nearer_than_the_one_taken(
    contestant: Contestant, catalog: Catalog
) -> None:
    found = match_width(suite(contestant), contestant, "digits", catalog).model
    bare = contestant.model.removesuffix("]")
    every = {f"{bare},dim={dim}]": parameters_of(f"{bare},dim={dim}]", catalog) for dim in range(4, 260, 4)}
    assert found == min(every, key=lambda model: abs(every[model] - 1e5))
    assert abs(every[found] - 1e5) < 5e3


def test_the_width_stands_among_the_options_of_the_cell_and_of_its_identity(catalog: Catalog) -> None:
    vit, crate = plan_cells(suite(VIT, CRATE), catalog)
    assert (vit.name.contestant, crate.name.contestant) == ("vit", "crate")
    for cell in (vit, crate):
        width = cell.identity.parts["contestant"]["options"]["dim"]
        assert cell.contestant.model.endswith(f",dim={width}]")
    assert vit.identity.parts["contestant"]["options"]["dim"] < crate.identity.parts["contestant"]["options"]["dim"]


def test_a_width_that_is_written_down_is_the_same_cell(catalog: Catalog) -> None:
    matched = plan_cells(suite(VIT), catalog)[0]
    written = dataclasses.replace(suite(matched.contestant), match=None)
    assert plan_cells(written, catalog)[0].identity.digest == matched.identity.digest


@pytest.mark.parametrize("heads", [3, 6])
def test_heads_need_not_split_the_width_that_a_model_has_by_default(heads: int, catalog: Catalog) -> None:
    [cell] = plan_cells(suite(Contestant(model=f"vit[depth=2,heads={heads}]"), parameters=3e5), catalog)
    dim = configured("model", cell.contestant.model, catalog.model("vit").spec.config).dim
    assert dim % heads == 0
    assert abs(parameters_of(cell.contestant.model, catalog) / 3e5 - 1) < 0.05


def test_data_that_are_not_here_yet_wait_for_their_width_whatever_the_heads(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    whole = dataclasses.replace(
        suite(Contestant(model="vit[depth=2,heads=3]"), task="imagefolder[size=8]"),
        paths={"imagefolder[size=8]": str(tmp_path / "pets")},
    )
    planned = plan_cells(whole, catalog)
    assert "pets" in planned[0].identity.unknown
    assert ledger_of(whole, catalog, None, planned=planned).matched == {}


def test_each_task_has_a_width_of_its_own(catalog: Catalog) -> None:
    """Twice as many classes and more patches take parameters."""
    few, many = (match_width(suite(CRATE, task=task), CRATE, task, catalog).model for task in ("digits", "glyphs"))
    assert int(few.rpartition("=")[2].strip("]")) > int(many.rpartition("=")[2].strip("]"))


def test_who_is_scored_as_it_stands_is_left_alone(catalog: Catalog) -> None:
    pixels = Contestant(model="pixels", readout="nearest-subspace", epochs=0)
    assert match_width(suite(pixels), pixels, "digits", catalog) is pixels


@pytest.mark.parametrize(("model", "changes", "message"), [
    ("vit[dim=64]", {}, r"its dim is given, and match sets it: leave dim out of vit\[dim=64\]"),
    ("vit[preset=deit-tiny]", {}, "its dim is given by preset=deit-tiny, and match sets it: give the preset's other "
     "options in its place"),
    ("timm", {}, "model timm has no width to scale: leave it out"),
    ("vit[depth=2,heads=32]", {"tolerance": 0.01},
     r"the nearest width, dim=\d+ in steps of 32, has [\d,]+ parameters, [+-][\d.]+% of the 100,000 wanted, and 1.0% "
     "is allowed: ask for another number or depth, fewer heads, or more tolerance"),
    ("vit[depth=2]", {"parameters": 10}, r"dim=4 in steps of 4, has [\d,]+ parameters"),
    ("tost[stem=conv,patch=8,heads=1]", {}, r"tost\[stem=conv,dim=1,patch=8\]: the first convolution is dim / 4 wide"),
])  # fmt: skip
def test_who_cannot_be_matched_is_refused_in_planning_with_what_to_do(
    model: str, changes: dict[str, Any], message: str, catalog: Catalog
) -> None:
    with pytest.raises(SuiteError, match=rf"suite sized: match: contestant .*{message}"):
        plan_cells(suite(Contestant(model=model), **changes), catalog)


def test_planning_draws_nothing_from_torch_s_generator(catalog: Catalog) -> None:
    import torch

    torch.manual_seed(0)
    before = torch.get_rng_state()
    match_width(suite(VIT, parameters=123_456), VIT, "digits", catalog)
    assert torch.equal(torch.get_rng_state(), before)
