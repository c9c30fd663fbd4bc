"""`whitebench bundle`: what is written of which store, and what is said."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.leaderboards.server.test_source import open_cell
from whitebench.errors import WhitebenchError
from whitebench.store import Store
from whitebench_leaderboards.commands import bundle

MINE = """
name = "mine"
version = 1
summary = "My own."
primary = "accuracy"
tasks = ["digits"]
seeds = 1
metrics = ["accuracy"]
budget = { epochs = 1, batch_size = 64, trials = 0 }
recipes = { plain = { learning_rate = { value = 1e-3 } } }
contestants = [{ label = "vit", model = "vit" }]
"""


def typed(*words: str, folder: Path) -> Result:
    return CliRunner().invoke(bundle, [*words, "--store", f"sqlite:///{folder / 'whitebench.db'}"])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with a store of one cell of `smoke`, and one of a suite of the user's own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text(MINE, encoding="utf-8")
    store = Store(f"sqlite:///{tmp_path / 'whitebench.db'}")
    open_cell(store, 0)
    open_cell(store, 0, suite="mine")
    return tmp_path


@pytest.mark.slow
def test_it_says_how_much_is_where_and_what_is_left_out(folder: Path) -> None:
    done = typed("site", folder=folder)
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("15 pages, ")
    assert done.stdout.endswith(" MB: site/index.html\n")
    assert done.stderr == "Left out: mine, whose plan is not known here: give its file, too\n"
    assert "mine" not in (folder / "site" / "index.html").read_text(encoding="utf-8")
    again = typed("site", "mine.toml", folder=folder)
    assert again.exit_code == 0, again.output
    page = (folder / "site" / "index.html").read_text(encoding="utf-8")
    assert "mine" in page
    assert "(whitebench bundle DIR mine.toml)" in page
    assert not (folder / "site" / "suite" / "smoke").exists()
    assert str(folder) not in page


@pytest.mark.slow
def test_a_store_without_cells_of_the_suite_is_said_with_what_to_run(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(WhitebenchError, match=r"has no cells of digits: run one first, whitebench run digits"):
        raised(typed("site", "digits", folder=folder))
    with pytest.raises(WhitebenchError, match=r"which is not there, has no cells of any suite: .* run smoke"):
        raised(typed("site", folder=tmp_path / "nowhere"))
    assert not (folder / "site" / "index.html").exists()


def test_a_folder_of_other_files_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(WhitebenchError, match="--force to write among them"):
        raised(typed(str(tmp_path), folder=tmp_path))


def test_a_suite_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WhitebenchError, match=r"unknown suite 'smok'.*did you mean 'smoke'"):
        raised(typed(str(tmp_path / "site"), "smok", folder=tmp_path))


def raised(done: Result) -> None:
    assert done.exception is not None, done.output
    raise done.exception
