"""The suites of pictures: what they ask of whom, and that they are planned where none of their data are."""

from __future__ import annotations

from pathlib import Path

import pytest

from whitebench.catalog import Catalog, load_catalog
from whitebench.ledger import plan_cells, published_of
from whitebench.suite import load_suite


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return load_catalog()


@pytest.mark.parametrize(("name", "cells", "repository"), [
    ("cifar10", 21, "uoft-cs/cifar10"), ("finetune-cifar10", 12, "uoft-cs/cifar10"),
    ("imagenet1k", 6, "ILSVRC/imagenet-1k"),
])  # fmt: skip
def test_a_suite_is_planned_where_its_data_are_not_and_says_what_to_fetch(
    name: str, cells: int, repository: str, catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    planned = plan_cells(load_suite(name), catalog)
    assert len(planned) == cells
    for cell in planned:
        assert f"`hf download {repository} --repo-type dataset" in cell.identity.unknown
        assert f"--set paths.{cell.name.task.partition('[')[0]}=FOLDER" in cell.identity.unknown


def test_contestants_of_cifar10_have_five_million_parameters_each(catalog: Catalog) -> None:
    """To a fortieth: the widths that are multiples of four heads lie no closer for the smallest."""
    from whitebench.cost import count_parameters
    from whitebench.names import configured, parse_name

    cells = [cell for cell in plan_cells(load_suite("cifar10"), catalog) if cell.name.seed == 0]
    assert len(cells) == 7
    for cell in cells:
        spec = catalog.model(parse_name(cell.contestant.model)[0]).spec
        built = spec.build(configured("model", cell.contestant.model, spec.config, spec.presets), (3, 32, 32), 10)
        assert count_parameters(built) == pytest.approx(5e6, rel=0.025)


def test_imagenet1k_is_crate_s_recipe_with_the_paper_s_numbers_beside(catalog: Catalog) -> None:
    """arXiv 2306.01129, section 3.2 and table 1."""
    suite = load_suite("imagenet1k")
    recipe = suite.recipes["plain"]
    assert (recipe.optimiser, recipe.learning_rate.value, recipe.weight_decay.value) == ("lion", 2.4e-4, 0.5)
    assert (suite.budget.batch_size, suite.budget.epochs, recipe.warmup_epochs, recipe.schedule) == (
        2048,
        150,
        5,
        "cosine",
    )
    assert (recipe.label_smoothing, recipe.resized_crop > 0, recipe.flip) == (0.1, True, True)
    published = {one.what: one.value for one in published_of(suite, catalog) if one.model == "crate"}
    assert {66.7, 69.2, 70.8, 71.3} <= set(published.values())


def test_finetune_cifar10_takes_released_weights_at_the_size_and_colours_they_were_trained_at(catalog: Catalog) -> None:
    suite = load_suite("finetune-cifar10")
    (task,) = suite.tasks
    spec = catalog.task("cifar10").spec
    from whitebench.names import configured_task

    options = configured_task(task, spec.config, "")
    assert spec.shape_of(options) == (3, 224, 224)
    assert spec.scaling is not None
    assert spec.scaling(options) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert all(one.weights for one in suite.contestants)
