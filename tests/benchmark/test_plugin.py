"""Which modules an item is made of."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from whitebench.catalog import load_catalog

PACKAGE = {
    "__init__.py": "from whitebench import hookimpl\nfrom {name}.specs import SPECS\n"
    "@hookimpl\ndef register_models():\n    return SPECS\n",
    "net.py": "def build(config, shape, classes): ...\n",
    "options.py": "from dataclasses import dataclass\n@dataclass(frozen=True)\nclass Config:\n    size: int = 4\n",
    "specs.py": "import functools, math\nfrom whitebench import ModelSpec\nfrom {name}.net import build\n"
    "from {name}.options import Config\n"
    "def spec(name, build): return ModelSpec(name=name, summary='', config=Config, build=build, head='h')\n"
    "SPECS = [spec('plain', build), spec('partial', functools.partial(functools.partial(build), shape=1)),\n"
    "         spec('foreign', math.hypot), spec('inline', lambda *_: None)]\n",
}


@pytest.mark.parametrize(
    ("model", "modules"),
    [
        ("plain", ["net", "options"]),
        ("partial", ["net", "options"]),
        ("foreign", ["options"]),
        ("inline", ["options", "specs"]),
    ],
)
def test_an_item_is_made_of_the_modules_of_its_own_package_that_its_parts_come_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, modules: list[str]
) -> None:
    name = f"package_of_{model}"
    (tmp_path / name).mkdir()
    for file, text in PACKAGE.items():
        (tmp_path / name / file).write_text(text.format(name=name), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    plugin = tmp_path / "plugin.py"
    plugin.write_text(f"from {name} import register_models\n", encoding="utf-8")
    entry = load_catalog([plugin]).model(model)
    assert entry.modules == tuple(f"{name}.{module}" for module in modules)
    for loaded in [one for one in sys.modules if one.startswith(name)]:
        monkeypatch.delitem(sys.modules, loaded)
