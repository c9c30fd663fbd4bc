"""Plugins at the door: who comes in, who is turned away and why, and who else suffers from it (nobody)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from whitebench.catalog import Catalog, listing, load_catalog
from whitebench.errors import DuplicateNameError, PluginError, UnknownNameError
from whitebench.events import SuiteEnded

HEAD = """\
from __future__ import annotations
from dataclasses import dataclass
from whitebench import ModelSpec, MetricSpec, hookimpl

@dataclass(frozen=True, kw_only=True)
class Config:
    size: int = 4

def build(config, shape, classes):
    raise AssertionError("listing builds nothing")

def spec(name="mine"):
    return ModelSpec(name=name, summary="A model.", config=Config, build=build, head="head")
"""
GOOD = HEAD + "@hookimpl\ndef register_models():\n    return [spec()]\n"

Load = Callable[..., Catalog]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Return a function that writes each text into a plugin file and loads them all."""

    def write_and_load(*texts: str) -> Catalog:
        paths = [tmp_path / f"plugin_{number}.py" for number in range(len(texts))]
        for path, text in zip(paths, texts, strict=True):
            path.write_text(text, encoding="utf-8")
        return load_catalog(paths)

    return write_and_load


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    """Return a function that puts a distribution with an entry point, and perhaps its module, on the path."""
    monkeypatch.syspath_prepend(tmp_path)
    names = []

    def put(name: str, text: str | None) -> None:
        names.append(f"{name}_module")
        info = tmp_path / f"{name}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n", encoding="utf-8")
        (info / "entry_points.txt").write_text(f"[whitebench]\nplugin = {name}_module\n", encoding="utf-8")
        if text is not None:
            (tmp_path / f"{name}_module.py").write_text(text, encoding="utf-8")

    yield put
    for name in names:  # and not what they imported: torch bears being imported once
        sys.modules.pop(name, None)


def test_a_local_file_brings_its_model_and_is_its_own_owner(load: Load, tmp_path: Path) -> None:
    entry = load(GOOD).model("mine")
    assert entry.spec.summary == "A model."
    assert str(entry.owner) == f"local file ({tmp_path / 'plugin_0.py'})"


def test_an_installed_distribution_is_found_by_its_entry_point_alone(install: Callable[..., None]) -> None:
    install("strange", GOOD)
    entry = load_catalog().model("mine")
    assert (entry.owner.distribution, entry.owner.version, entry.owner.plugin) == ("strange", "1.2", "strange_module")
    assert entry.modules == ("strange_module",)


def test_the_first_party_plugins_come_in_by_the_same_door() -> None:
    catalog = load_catalog()
    assert {catalog.model("vit").owner.plugin, catalog.task("digits").owner.plugin} == {
        "whitebench_models",
        "whitebench_tasks",
    }


def test_the_order_of_files_changes_nothing_but_their_own(load: Load, tmp_path: Path) -> None:
    load(GOOD, GOOD.replace("spec()", "spec('other')"))
    paths = [tmp_path / "plugin_0.py", tmp_path / "plugin_1.py"]
    assert load_catalog(paths).entries == load_catalog(paths[::-1]).entries
    assert load_catalog([paths[0], paths[0]]).disputed == {}


NO_HOOK = (
    "it implements no hook (hooks: register_models, register_tasks, register_metrics, register_objectives, "
    "register_readouts, register_launchers, observe)"
)

QUARANTINED = [
    ("raise RuntimeError('boom')", "RuntimeError: boom"),
    ("raise KeyError", "KeyError"),
    ("import nowhere_to_be_found", "ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
    ("def (", "SyntaxError: "),
    ("import sys; sys.exit(3)", "it called sys.exit(3) while being loaded"),
    ("", NO_HOOK),
    (GOOD.replace("@hookimpl\n", ""), "register_models is not marked as a hook: write @hookimpl above it"),
    (
        GOOD.replace("@hookimpl\n", "").replace("register_models", "register_model"),
        NO_HOOK + "; register_model looks like one, did you mean 'register_models'",
    ),
    (GOOD + "def register_tasks(): return []\n", "register_tasks is not marked as a hook"),
    (GOOD.replace("register_models", "register_model"), "there is no hook 'register_model', did you mean"),
    (GOOD.replace("return [spec()]", "return None"), "register_models returned a NoneType: it must return a list"),
    (GOOD.replace("[spec()]", "spec()"), "register_models returned a ModelSpec: it must return a list of ModelSpec"),
    (GOOD.replace("return [spec()]", "yield spec()"), "register_models returned a generator: it must return a list"),
    (GOOD.replace("[spec()]", "[spec(), build]"), "register_models returned a list with a function, which is no"),
    (GOOD.replace("models", "metrics"), "register_metrics returned a list with a ModelSpec, which is no MetricSpec"),
    (GOOD.replace("register_models()", "register_models(config)"), "PluginValidationError: "),
    (GOOD.replace("spec()]", "spec('My Model')]"), "model 'My Model': a name is up to 64 lower-case letters"),
    (GOOD.replace("head=", "presets={'b': {'size': 'x'}}, head="), "model 'mine' with its preset b: option size=x: in"),
    (GOOD.replace("size: int = 4", "size: int"), "model 'mine' with its defaults: option size: missing"),
    (GOOD.replace("size: int", "size: Tensor"), "model 'mine' with its defaults: its config raised "),
    (GOOD.replace("(frozen=True, kw_only=True)", ""), "model 'mine': config must be a frozen dataclass"),
    (GOOD.replace("[spec()]", "1 / 0"), "ZeroDivisionError: division by zero"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "reason"), QUARANTINED, ids=[reason[:50] for _, reason in QUARANTINED])
def test_a_plugin_that_fails_is_quarantined_with_its_reason_and_costs_no_other_anything(
    load: Load, text: str, reason: str
) -> None:
    catalog = load(text, GOOD.replace("spec()", "spec('neighbour')"))
    (quarantined,) = catalog.quarantined
    assert quarantined.reason.startswith(reason)
    assert "\n" not in quarantined.reason
    assert "Traceback" in quarantined.traceback
    assert quarantined.owner.plugin.endswith("plugin_0.py")
    assert catalog.model("neighbour").spec.name == "neighbour"
    assert "mine" not in catalog.entries["model"]
    assert catalog.model("vit").owner.distribution == "whitebench"


def test_an_entry_point_without_its_module_is_quarantined_by_distribution_and_version(
    install: Callable[..., None],
) -> None:
    install("hollow", None)
    (quarantined,) = load_catalog().quarantined
    assert str(quarantined.owner) == "hollow 1.2 (hollow_module)"
    assert quarantined.reason == "ModuleNotFoundError: No module named 'hollow_module'"


def test_an_installed_plugin_of_a_stranger_is_tried_in_a_process_of_its_own(install: Callable[..., None]) -> None:
    install("deadly", "import os; os._exit(3)")
    (quarantined,) = load_catalog().quarantined
    assert str(quarantined.owner) == "deadly 1.2 (deadly_module)"
    assert quarantined.reason == "it ended the process with exit code 3 while being loaded"


def test_a_distribution_that_does_not_say_its_name_is_unknown(install: Callable[..., None], tmp_path: Path) -> None:
    install("nameless", GOOD)
    (tmp_path / "nameless-1.2.dist-info" / "METADATA").unlink()
    assert str(load_catalog().model("mine").owner) == "unknown (nameless_module)"


def test_an_unknown_name_names_the_near_misses_and_the_plugins_that_were_turned_away(load: Load) -> None:
    with pytest.raises(UnknownNameError, match=r"unknown model 'vitt', did you mean 'vit'.*known: .*crate") as unknown:
        load("raise RuntimeError('boom')").model("vitt")
    assert "plugins that failed to load: local file" in str(unknown.value)
    assert "RuntimeError: boom" in str(unknown.value)
    with pytest.raises(UnknownNameError, match="unknown metric 'acuracy', did you mean 'accuracy'"):
        load_catalog().metric("acuracy")


def test_two_owners_of_one_name_are_both_named_and_neither_wins(load: Load, tmp_path: Path) -> None:
    catalog = load(GOOD, GOOD)
    with pytest.raises(DuplicateNameError) as disputed:
        catalog.model("mine")
    assert str(disputed.value) == (
        f"model 'mine' has 2 owners, local file ({tmp_path / 'plugin_0.py'}) "
        f"and local file ({tmp_path / 'plugin_1.py'}): uninstall one of them or rename its model"
    )
    assert "mine" not in catalog.entries["model"]
    assert catalog.quarantined == ()


def test_a_first_party_name_cannot_be_taken_over(load: Load) -> None:
    with pytest.raises(DuplicateNameError, match=r"2 owners, whitebench .* and local file"):
        load(GOOD.replace("spec()", "spec('vit')")).model("vit")


def test_a_plugin_that_registers_a_name_twice_is_told_so(load: Load) -> None:
    with pytest.raises(
        DuplicateNameError, match=r"'mine' is registered 2 times by local file \(.*\): rename all but one"
    ):
        load(GOOD.replace("[spec()]", "[spec(), spec()]")).model("mine")


def test_one_name_may_stand_for_things_of_several_kinds(load: Load) -> None:
    catalog = load(GOOD.replace("spec()", "spec('accuracy')"))
    assert catalog.model("accuracy").spec.name == catalog.metric("accuracy").spec.name


def test_a_file_that_is_not_there_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match=r"--plugin .*none\.py: no such file"):
        load_catalog([tmp_path / "none.py"])
    with pytest.raises(PluginError, match="no such file"):
        load_catalog([tmp_path])


def test_a_file_that_is_no_python_is_quarantined(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text(GOOD, encoding="utf-8")
    (quarantined,) = load_catalog([tmp_path / "notes.txt"]).quarantined
    assert quarantined.reason == "it is no Python file: its name must end in .py"


OBSERVER = """\
from pathlib import Path
from whitebench import hookimpl
@hookimpl
def observe(event):
    Path(__file__).with_suffix(".heard").write_text(event.suite)
    {then}
"""


def test_observers_hear_every_event_and_one_that_raises_stops_nobody(load: Load, tmp_path: Path) -> None:
    catalog = load(*(OBSERVER.format(then=then) for then in ("1 / 0", "import sys; sys.exit()", "")))
    complaints = catalog.tell(SuiteEnded(suite="tiny", finished=1, failed=0, is_interrupted=False, seconds=1.0))
    said = [text.rpartition(" raised ")[2] for text in complaints]
    assert said == ["ZeroDivisionError: division by zero", "SystemExit"]
    assert [(tmp_path / f"plugin_{number}.heard").read_text(encoding="utf-8") for number in range(3)] == ["tiny"] * 3


def test_the_listing_has_a_row_for_each_item_with_its_owner(load: Load, tmp_path: Path) -> None:
    rows = {row["name"]: row for row in listing(load(GOOD), ["model"])}
    assert rows["mine"] == {
        "kind": "model",
        "name": "mine",
        "summary": "A model.",
        "distribution": "local file",
        "version": "",
        "plugin": str(tmp_path / "plugin_0.py"),
    }
