"""A stranger's words in a message: short, on one line, printable."""

from __future__ import annotations

from whitebench.quotation import LONGEST, quote, readable, said, told, traceback_of, type_name


class Words(str):
    """A text that strikes back when it is used."""

    __slots__ = ()

    def __getitem__(self, _: object) -> str:
        raise SystemExit

    split = __iter__ = __len__ = encode = __str__ = __getitem__  # type: ignore[assignment]


class SpeakingError(Exception):
    """What says, as value and as error, what it was given."""

    def __str__(self) -> str:
        if isinstance(self.args[0], BaseException):
            raise self.args[0]
        return self.args[0]  # type: ignore[no-any-return]

    __repr__ = __str__


def test_plain_values_and_errors_are_quoted_as_they_are() -> None:
    assert quote("vit") == "'vit'"
    assert quote((1, 2.5)) == "(1, 2.5)"
    assert said(ValueError("no such  luck\n")) == "no such luck"
    assert told(ValueError("no such luck")) == "ValueError: no such luck"
    assert told(KeyError()) == "KeyError"


def test_ten_megabytes_are_cut() -> None:
    for text in (quote("x" * 10**7), quote(SpeakingError("x" * 10**7)), said(SpeakingError("\x1b" * 10**7))):
        assert len(text) == LONGEST + 1
        assert text.endswith("…")


def test_what_a_terminal_would_obey_is_spelt_out() -> None:
    assert said(SpeakingError("a\x1b[2Jb\x07\u202ec\ud800")) == r"a\x1b[2Jb\x07\u202ec\ud800"
    assert readable("one\x1b\ntwo") == "one\\x1b\ntwo"
    assert quote(SpeakingError("größer × 5")) == "größer × 5"


def test_a_method_that_raises_is_named_with_what_it_raised() -> None:
    for error in (ValueError(), SystemExit(), KeyboardInterrupt(), SpeakingError(ValueError())):
        name = type(error).__name__
        assert quote(SpeakingError(error)) == f"<SpeakingError, whose __repr__ raised {name}>"
        assert told(SpeakingError(error)) == f"SpeakingError: <SpeakingError, whose __str__ raised {name}>"
        assert "SpeakingError" in traceback_of(SpeakingError(error))


def test_a_text_with_methods_of_its_own_is_taken_for_its_letters() -> None:
    assert said(SpeakingError(Words("harmless"))) == "harmless"


def test_a_class_is_called_what_python_calls_it() -> None:
    class Meta(type):
        __name__ = property(lambda _: 1 / 0)

    assert type_name(Meta("Plain", (), {})()) == "Plain"


def test_a_long_traceback_keeps_its_end() -> None:
    text = traceback_of(ValueError("x" * 10**6 + " the end"))
    assert len(text) == 16_000
    assert text.endswith(" the end\n")
