"""What counts as an item's code, and what does not."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from whitebench.catalog import load_catalog
from whitebench.plugin import LOCAL_PREFIX
from whitebench.source import Source, _providers, normal_form, source_of, versions_of

PLUGIN = '''\
"""A docstring."""
import math
from dataclasses import dataclass
import torch
from whitebench import ModelSpec, hookimpl
from {helper} import double

@dataclass(frozen=True)
class Config:
    """Options."""
    size: int = 4
    """How large."""

def build(config, shape, classes):
    # a comment
    return double(torch.nn.Linear(config.size, classes))

@hookimpl
def register_models():
    return [ModelSpec(name="mine", summary="A model.", config=Config, build=build, head="head",
                      trace={{"tokens": "blocks.*"}})]
'''
HELPER = "def double(layer):\n    return layer\n"

SourceOf = Callable[..., Source]


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SourceOf]:
    """Return a function that writes plugin and helper into a new folder and returns the model's source."""
    folders = iter(range(99))

    def read(plugin: str = PLUGIN, helper: str = HELPER, name: str = "plugin") -> Source:
        folder = tmp_path / str(next(folders))
        folder.mkdir()
        # The helper's name is part of the code, hence always the same; each folder's is loaded anew.
        sys.modules.pop("helper_of_mine", None)
        (folder / "helper_of_mine.py").write_text(helper, encoding="utf-8")
        (folder / f"{name}.py").write_text(plugin.format(helper="helper_of_mine"), encoding="utf-8")
        with monkeypatch.context() as patch:
            patch.syspath_prepend(folder)
            return source_of(load_catalog([folder / f"{name}.py"]).model("mine"))

    yield read
    # Theirs alone: torch does not survive being loaded a second time.
    for name in [one for one in sys.modules if one == "helper_of_mine" or one.startswith(LOCAL_PREFIX)]:
        del sys.modules[name]


def test_the_same_code_elsewhere_under_another_name_is_the_same(source: SourceOf) -> None:
    assert source() == source(name="renamed")


SAME = [
    ("# a comment", "# another comment"),
    ('"""A docstring."""', '"""Another docstring."""'),
    ('    """Options."""\n', ""),
    ('    """How large."""\n', ""),
    ("def build(config, shape, classes):", "def build(\n    config,\n    shape,\n    classes,\n):"),
    ("size: int = 4", "size : int=4"),
    ('"tokens"', "'tokens'"),
]

OTHER = [
    ("config.size, classes", "config.size, 2 * classes"),
    ("size: int = 4", "size: int = 5"),
    ('head="head"', 'head="neck"'),
    ('"blocks.*"', '"blocks.*:in"'),
    ("double(", "(lambda layer: layer)("),
]


@pytest.mark.parametrize(("old", "new"), SAME, ids=[old for old, _ in SAME])
def test_comments_docstrings_and_layout_are_no_code(source: SourceOf, old: str, new: str) -> None:
    assert old in PLUGIN
    assert source() == source(PLUGIN.replace(old, new))


@pytest.mark.parametrize(("old", "new"), OTHER, ids=[old for old, _ in OTHER])
def test_what_computes_and_what_the_spec_states_is_code(source: SourceOf, old: str, new: str) -> None:
    assert old in PLUGIN
    assert source() != source(PLUGIN.replace(old, new))


def test_a_module_beside_it_that_it_imports_is_code_too(source: SourceOf) -> None:
    assert source() != source(helper=HELPER.replace("return layer", "return 2 * layer"))
    assert source() == source(helper="# first\n" + HELPER)


def test_a_spec_written_apart_from_what_it_builds_still_counts(source: SourceOf) -> None:
    apart = (
        "import functools\nfrom whitebench import ModelSpec, hookimpl\nfrom {helper} import Config, build\n"
        "@hookimpl\ndef register_models():\n"
        "    return [ModelSpec(name='mine', summary='', config=Config, build=build, head='HEAD')]\n"
    )
    helper = PLUGIN.partition("@hookimpl")[0].replace("from {helper} import double\n", "double = id\n")
    assert source(apart, helper) != source(apart.replace("HEAD", "head"), helper)


def test_third_party_packages_are_named_and_the_standard_library_and_the_harness_are_not(source: SourceOf) -> None:
    assert source().packages == {"torch"}


def test_a_model_s_source_is_its_own_modules_and_not_its_neighbours() -> None:
    catalog = load_catalog()
    vit, crate = source_of(catalog.model("vit")), source_of(catalog.model("crate"))
    shared = ("patches", "selection")
    assert set(vit.code["modules"]) == {f"whitebench_models.{name}" for name in ("vit", *shared)}
    assert set(crate.code["modules"]) == {f"whitebench_models.{name}" for name in ("crate", "frame", *shared)}


def test_relative_imports_are_followed_within_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "package_of_relatives"
    (package / "deep").mkdir(parents=True)
    (package / "__init__.py").write_text("", encoding="utf-8")
    (package / "constants.py").write_text("SIZE = 4\n", encoding="utf-8")
    (package / "unused.py").write_text("SIZE = 5\n", encoding="utf-8")
    (package / "deep" / "__init__.py").write_text("from .net import *\n", encoding="utf-8")
    (package / "deep" / "net.py").write_text(
        PLUGIN.format(helper="?").replace("from ? import double", "from ..constants import SIZE as double"),
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "plugin.py"
    file.write_text("from package_of_relatives.deep.net import register_models\n", encoding="utf-8")
    code = source_of(load_catalog([file]).model("mine")).code["modules"]
    assert set(code) == {
        "package_of_relatives.constants",
        "package_of_relatives.deep.net",
    }
    for name in [name for name in sys.modules if name.startswith("package_of_relatives")]:
        monkeypatch.delitem(sys.modules, name)


def test_a_body_of_nothing_but_text_has_a_normal_form() -> None:
    assert normal_form(ast.parse('class A:\n    """Only this."""\n')) == normal_form(ast.parse("class A:\n    'x'\n"))


def test_versions_are_of_distributions_without_their_build_tag() -> None:
    import torch

    found = versions_of(frozenset({"torch", "sklearn", "no_such_package"}))
    assert found["torch"] == torch.__version__.partition("+")[0]
    assert list(found) == ["scikit-learn", "torch"]


def test_who_provides_a_package_is_what_pythons_own_slower_way_says() -> None:
    expected = {package: set(names) for package, names in packages_distributions().items()}
    assert {package: {one.name for one in found} for package, found in _providers.__wrapped__().items()} == expected
