"""A long log keeps its two ends, a short one all of it."""

from __future__ import annotations

from pathlib import Path

from whitebench.transcript import END, NOTE, ends, shorten, size, tail


def test_a_long_log_keeps_its_two_ends_and_says_how_much_it_lost(tmp_path: Path) -> None:
    log = tmp_path / "fit.log"
    log.write_bytes(b"a" * END + b"b" * 5000 + b"c" * END)
    shorten(log)
    note = b"\n[5,000 bytes left out: of a long log its first and last 512 KiB are kept]\n"
    assert log.read_bytes() == b"a" * END + note + b"c" * END


def test_a_log_is_not_shortened_again_by_the_line_that_says_so(tmp_path: Path) -> None:
    log = tmp_path / "fit.log"
    log.write_bytes(b"a" * (2 * END + 5000))
    shorten(log)
    once = log.read_bytes()
    shorten(log)
    assert log.read_bytes() == once


def test_a_short_log_stays_as_it_is_and_none_is_made(tmp_path: Path) -> None:
    log = tmp_path / "fit.log"
    log.write_bytes(b"a" * (2 * END + NOTE))
    shorten(log)
    assert size(log) == 2 * END + NOTE
    shorten(tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_the_tail_is_what_was_written_last_and_since(tmp_path: Path) -> None:
    log = tmp_path / "fit.log"
    log.write_text("earlier life, this life", encoding="utf-8")
    assert tail(log, 4) == "life"
    assert tail(log, 100, since=13) == " this life"
    assert tail(log, 100, since=50) == ""
    assert (tail(tmp_path / "none", 4), size(tmp_path / "none")) == ("", 0)


def test_bytes_that_are_no_text_are_read_all_the_same(tmp_path: Path) -> None:
    log = tmp_path / "fit.log"
    log.write_bytes(b"\xff\xfe end")
    assert tail(log, 100).endswith(" end")


def test_a_long_text_keeps_its_two_ends() -> None:
    assert ends("aaabbbbccc", 6) == "aaa\n[4 characters left out]\nccc"
    assert ends("aaaccc", 6) == "aaaccc"
