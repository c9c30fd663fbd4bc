"""The folder of a bundle: what it takes, and what it leaves alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from whitebench.errors import WhitebenchError
from whitebench_leaderboards.server.folder import LIST, Folder


def files_in(path: Path) -> set[str]:
    return {str(one.relative_to(path)) for one in path.rglob("*") if one.is_file()}


def fill(path: Path, *suites: str, is_whole: bool = True, is_forced: bool = False) -> None:
    folder = Folder(path, is_forced=is_forced)
    for suite in suites:
        folder.write(f"suite/{suite}/index.html", suite.encode(), f"/suite/{suite}")
    folder.close({"made": "today"}, is_whole=is_whole)


def test_a_folder_of_other_files_is_left_alone_unless_told_otherwise(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(
        WhitebenchError, match=r"holds files that no bundle left there: give an empty folder, or --force"
    ):
        Folder(tmp_path)
    fill(tmp_path, "tiny", is_forced=True)
    fill(tmp_path, "other")  # now it is a bundle
    assert files_in(tmp_path) == {"thesis.tex", LIST, "suite/other/index.html"}


def test_what_an_earlier_bundle_left_goes_once_the_new_one_is_whole(tmp_path: Path) -> None:
    fill(tmp_path / "site", "one", "two")
    fill(tmp_path / "site", "two", "three", is_whole=False)
    assert files_in(tmp_path / "site") == {LIST, *(f"suite/{name}/index.html" for name in ("one", "two", "three"))}
    fill(tmp_path / "site", "two")
    assert files_in(tmp_path / "site") == {LIST, "suite/two/index.html"}
    assert not (tmp_path / "site" / "suite" / "one").exists()


def test_a_list_from_a_stranger_takes_nothing_away_that_is_no_page(tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    for name in ("CNAME", "suite/tiny/board.txt", "../outside"):
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text("mine")
    listed = {"CNAME": "/", "../outside": "/suite/tiny", "suite/tiny/board.txt": "/", "/etc/passwd": "/etc/passwd"}
    (site / LIST).write_text(json.dumps({"kind": "whitebench bundle", "files": listed}))
    fill(site, "other")
    assert files_in(site) == {"CNAME", LIST, "suite/tiny/board.txt", "suite/other/index.html"}
    assert (tmp_path / "outside").exists()


@pytest.mark.parametrize(
    "content", ["", "[]", '{"kind": "other", "files": {}}', '{"kind": "whitebench bundle"}', "\xff"]
)
def test_a_list_that_is_none_makes_no_bundle(tmp_path: Path, content: str) -> None:
    (tmp_path / LIST).write_text(content, encoding="latin-1")
    with pytest.raises(WhitebenchError, match="no bundle left there"):
        Folder(tmp_path)


def test_a_folder_that_cannot_be_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WhitebenchError, match=r"file/site cannot be written \(Not a directory\): give another folder"):
        Folder(tmp_path / "file" / "site")


def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Folder(tmp_path / "site")
    folder.write("index.html", b"first", "/")

    def full(self: Path, content: bytes) -> int:
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(WhitebenchError, match=r"index.html cannot be written \(No space left on device\)"):
        folder.write("index.html", b"second", "/")
    monkeypatch.undo()
    assert (tmp_path / "site" / "index.html").read_bytes() == b"first"
    assert files_in(tmp_path / "site") == {"index.html"}
