"""The command line: quick to help, plain in its mistakes, exact in its exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import resources
from importlib.metadata import EntryPoint
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from whitebench import cli
from whitebench.errors import WhitebenchError


def printed(*arguments: str) -> str:
    done = CliRunner().invoke(cli.cli, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_help_loads_neither_torch_nor_plugins_nor_anything_else_that_is_slow() -> None:
    ask = (
        "import sys; sys.argv = ['whitebench', '--help']\n"
        "from whitebench.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print([name for name in ('torch', 'mlflow', 'optuna', 'lightning', 'pydantic', 'rich', 'numpy',"
        " 'whitebench_models', 'whitebench_metrics') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_every_command_has_an_example_in_its_help() -> None:
    context = click.Context(cli.cli)
    names = cli.cli.list_commands(context)
    assert names == [
        "calibrate", "doctor", "list", "plan", "retry", "run", "show", "status", "verify", "weights", "why-stale",
        "board", "bundle", "serve",
    ]  # fmt: skip
    for name in names:
        text = printed(name, "--help")
        assert "Example" in text, name
        assert f"whitebench {name}" in text, name


def test_a_command_of_another_package_that_cannot_be_loaded_says_so_and_the_rest_works(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lost = EntryPoint(name="lost", value="nowhere:command", group="whitebench.commands")
    monkeypatch.setattr(cli, "_further", lambda: [lost])
    assert "lost" in printed("--help")
    with pytest.raises(WhitebenchError, match="command 'lost' could not be loaded from nowhere:command"):
        CliRunner().invoke(cli.cli, ["lost"], catch_exceptions=False)


def test_list_names_each_items_owner() -> None:
    items = json.loads(printed("list", "--json"))["items"]
    assert {"kind": "model", "name": "crate"}.items() <= next(one for one in items if one["name"] == "crate").items()
    assert {one["distribution"] for one in items} >= {"whitebench"}
    kinds = {"model", "task", "metric", "objective", "readout", "launcher", "suite"}
    assert {one["kind"] for one in items} == kinds


def test_list_narrows_to_one_kind() -> None:
    assert {one["kind"] for one in json.loads(printed("list", "suites", "--json"))["items"]} == {"suite"}


def test_list_shows_a_plugin_that_failed_to_load_with_its_reason(tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("raise RuntimeError('no such luck')")
    shown = printed("list", "models", "--plugin", str(broken))
    assert "not loaded" in shown
    assert "no such luck" in shown
    assert "vit" in shown


def test_no_control_character_of_a_plugin_s_path_or_reason_reaches_the_terminal(tmp_path: Path) -> None:
    broken = tmp_path / "\x1b[31mred.py"
    broken.write_text("raise RuntimeError('\x1b[32mgreen')")
    shown = printed("list", "models", "--plugin", str(broken))
    assert r"\x1b[31mred.py" in shown
    assert r"\x1b[32mgreen" in shown
    assert "\x1b[3" not in shown


def test_plan_of_an_untouched_folder_owes_everything_and_creates_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    planned = json.loads(printed("plan", "smoke", "--json"))
    assert planned["to_do"] == 9
    assert planned["trials_owed"] == {"vit/digits": 3, "crate/digits": 3, "pixels/digits": 0}
    assert [cell["cell"] for cell in planned["cells"]][:2] == ["smoke/vit/digits/0", "smoke/vit/digits/1"]
    assert {cell["state"] for cell in planned["cells"]} == {"missing"}
    assert list(tmp_path.iterdir()) == []


def test_an_overridden_plan_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "(overridden: budget.trials=1)" in printed("plan", "smoke", "--set", "budget.trials=1")


def test_an_option_in_a_name_is_not_taken_for_markup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shown = printed("status", "smoke", "--set", 'contestants=[{model="crate[dim=32]"}]')
    assert "smoke/crate[dim=32]/digits/0" in shown.replace("\n", "")


def test_show_and_why_stale_of_a_cell_that_was_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert printed("show", "smoke/vit/digits/0").startswith("smoke/vit/digits/0: missing (not run yet)")
    assert "is not stale" in printed("why-stale", "smoke/vit/digits/0")


def test_a_cell_of_a_suite_in_a_file_or_of_an_overridden_one_is_named_by_what_was_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    text = (resources.files("whitebench") / "suites" / "smoke.toml").read_text(encoding="utf-8")
    (tmp_path / "mine" / "a.toml").write_text(text.replace('name = "smoke"', 'name = "mine"'), encoding="utf-8")
    assert "missing (not run yet)" in printed("show", "mine/a.toml/vit/digits/0")
    assert "missing (not run yet)" in printed("show", "mine/a.toml/vit/digits/4", "--set", "seeds=5")
    assert "is not stale" in printed("why-stale", "mine/a.toml/vit/digits/4", "--set", "seeds=5")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("runn", "smoke"), ["no such command 'runn'", "did you mean 'run'"]),
        (("run", "smok"), ["unknown suite 'smok'", "did you mean 'smoke'"]),
        (("run", "smoke", "-m", "crat"), ["'crat'", "did you mean 'crate'"]),
        (("run", "smoke", "-m", "crate[dimm=3]"), ["unknown option 'dimm'", "did you mean 'dim'"]),
        (("run", "smoke", "-t", "digit"), ["'digit'", "did you mean 'digits'"]),
        (("run", "smoke", "--seeds", "x"), ["--seeds x", "5-9"]),
        (("run", "smoke", "--parallel", "0"), ["--parallel"]),
        (("run", "smoke", "--set", "budget.epoch=3"), ["budget.epoch: unknown", "budget.epochs"]),
        (("run", "smoke", "--set", "budget.epochs=-3"), ["budget.epochs: must be at least 0"]),
        (("run", "smoke", "--plugin", "none.py"), ["none.py", "no such file"]),
        (("board", "smoke", "--store", "ftp://x"), ["ftp://x", "sqlite:///"]),
        (("show", "smoke/vit/digits"), ["SUITE/CONTESTANT/TASK/SEED"]),
        (("show", "smoke/vit/digits/9"), ["unknown cell", "smoke/vit/digits/0"]),
        (("list", "modells"), ["modells"]),
    ],
)
def test_a_mistake_is_one_message_that_says_what_to_do_and_exits_with_2(
    arguments: tuple[str, ...],
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["whitebench", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    message = capsys.readouterr().err
    assert "Traceback" not in message
    for word in words:
        assert word in message


def test_a_bug_is_one_sentence_with_exit_code_70_and_its_traceback_is_kept() -> None:
    break_it = (
        "import sys; from whitebench import catalog, cli\n"
        "def broken(*_): raise RuntimeError('not foreseen')\n"
        "catalog.load_catalog = broken; sys.argv = ['whitebench', 'list']; cli.main()"
    )
    done = subprocess.run([sys.executable, "-c", break_it], capture_output=True, text=True, check=False)
    assert done.returncode == 70
    assert "RuntimeError: not foreseen" in done.stderr
    assert "Traceback" not in done.stderr
    log = Path(done.stderr.split()[-1])
    assert "in broken" in log.read_text()
    log.unlink()


def test_errors_for_people_are_value_errors() -> None:
    assert issubclass(WhitebenchError, ValueError)
