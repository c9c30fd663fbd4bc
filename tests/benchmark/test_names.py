"""`crate[dim=64,depth=4]`: what is read, and what is refused in one line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pytest

from whitebench.errors import OptionError, WhitebenchError
from whitebench.names import configure, parse_name, with_preset


@dataclass(frozen=True, kw_only=True)
class Config:
    dim: int = 8
    rate: float = 0.5
    is_tied: bool = False
    pool: Literal["cls", "mean"] = "cls"
    note: str = ""

    def __post_init__(self) -> None:
        if self.dim < 1:
            raise WhitebenchError(f"dim={self.dim} must be 1 or more")
        if self.rate == 13:
            raise ZeroDivisionError("thirteen")


@pytest.mark.parametrize(
    ("text", "name", "options"),
    [
        ("vit", "vit", {}),
        (" vit ", "vit", {}),
        ("crate[dim=64]", "crate", {"dim": "64"}),
        ("crate[ dim = 64 , pool = mean ]", "crate", {"dim": "64", "pool": "mean"}),
        ("c+b-1.5[x=a=b]", "c+b-1.5", {"x": "a=b"}),
    ],
)
def test_a_name_splits_into_itself_and_its_options(text: str, name: str, options: dict[str, str]) -> None:
    assert parse_name(text) == (name, options)


@pytest.mark.parametrize(
    "text",
    ["", "[dim=1]", "a b", "vit[", "vit]", "vit[]", "vit[dim]", "vit[dim=]", "vit[=4]", "vit[a=1,]", "vit[a=1,,b=2]",
     "vit[a=1][b=2]", "vit[a=1]x", "vit[[a=1]]", "vit[a=1,a=2]"],
)  # fmt: skip
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(OptionError, match=r"not a name|is not option=value|given twice"):
        parse_name(text)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, Config()),
        ({"dim": "16"}, Config(dim=16)),
        ({"rate": "1e-3"}, Config(rate=0.001)),
        ({"rate": "2"}, Config(rate=2.0)),
        ({"is_tied": "true"}, Config(is_tied=True)),
        ({"is_tied": "0"}, Config(is_tied=False)),
        ({"pool": "mean"}, Config(pool="mean")),
        ({"note": "64"}, Config(note="64")),
        ({"dim": 16, "rate": 0.25}, Config(dim=16, rate=0.25)),
    ],
)
def test_texts_become_what_the_fields_are(options: dict[str, object], expected: Config) -> None:
    assert configure("model m", Config, options) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dmi": "4"}, "model m: unknown option 'dmi', did you mean 'dim'? (options: dim, rate, is_tied, pool, note)"),
        ({"dim": "4.5"}, "model m: option dim=4.5: input should be a valid integer"),
        ({"dim": "four"}, "model m: option dim=four: input should be a valid integer"),
        ({"dim": ""}, "model m: option dim=: input should be a valid integer"),
        ({"rate": "fast"}, "model m: option rate=fast: input should be a valid number"),
        ({"rate": "nan"}, "model m: option rate=nan: must be a finite number"),
        ({"rate": "-inf"}, "model m: option rate=-inf: must be a finite number"),
        ({"rate": "1e400"}, "model m: option rate=1e400: must be a finite number"),
        ({"is_tied": "maybe"}, "model m: option is_tied=maybe: input should be a valid boolean"),
        ({"pool": "max"}, "model m: option pool=max: input should be 'cls' or 'mean'"),
        ({"dim": "0"}, "model m: dim=0 must be 1 or more"),
        ({"rate": "13"}, "model m: its config raised ZeroDivisionError: thirteen"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(options: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError) as refused:
        configure("model m", Config, options)
    assert str(refused.value).startswith(message)
    assert "\n" not in str(refused.value)


def test_every_fault_is_said_at_once() -> None:
    with pytest.raises(OptionError, match=r"option dim=x: .*; option rate=y: "):
        configure("model m", Config, {"dim": "x", "rate": "y"})


def test_a_config_without_a_default_says_what_is_missing() -> None:
    @dataclass(frozen=True)
    class Needy:
        size: Any

    with pytest.raises(OptionError, match="model m: option size: missing"):
        configure("model m", Needy, {})


def test_a_config_without_options_says_so() -> None:
    @dataclass(frozen=True)
    class Empty:
        pass

    with pytest.raises(OptionError, match=r"unknown option 'x' \(options: none\)"):
        configure("task t", Empty, {"x": "1"})


PRESETS: dict[str, dict[str, object]] = {"paper-tiny": {"dim": 192, "rate": 0.5}, "paper-base": {"dim": 768}}


def test_a_preset_stands_for_its_options_and_what_is_given_besides_wins() -> None:
    assert with_preset("model m", PRESETS, {"preset": "paper-tiny"}) == {"dim": 192, "rate": 0.5}
    assert with_preset("model m", PRESETS, {"rate": "2", "preset": "paper-tiny"}) == {"dim": 192, "rate": "2"}
    assert with_preset("model m", PRESETS, {"dim": "3"}) == {"dim": "3"}


def test_an_unknown_preset_is_refused_with_those_there_are() -> None:
    with pytest.raises(OptionError) as refused:
        with_preset("model m", PRESETS, {"preset": "paper-tini"})
    assert str(refused.value) == (
        "model m: unknown preset 'paper-tini', did you mean 'paper-tiny' or 'paper-base'? "
        "(presets: paper-tiny, paper-base)"
    )


def test_without_presets_the_word_is_an_option_as_any_other() -> None:
    with pytest.raises(OptionError, match="unknown option 'preset'"):
        configure("model m", Config, with_preset("model m", {}, {"preset": "x"}))
