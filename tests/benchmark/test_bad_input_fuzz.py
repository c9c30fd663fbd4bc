"""Bad input without end: whatever a person or a machine hands over is read, or refused in one printable line."""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, time, timedelta
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from whitebench import cli
from whitebench.errors import OptionError, SuiteError, WhitebenchError
from whitebench.identity import CellName
from whitebench.names import configure, parse_name
from whitebench.suite import Suite, load_suite, parse_seeds

FIXED = settings(
    max_examples=300,
    derandomize=True,  # the same examples on every machine
    database=None,
    deadline=timedelta(seconds=5),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

GOOD: dict[str, Any] = {
    "name": "tiny",
    "version": 1,
    "summary": "Two models.",
    "primary": "accuracy",
    "tasks": ["digits", "digits[shift=1]"],
    "seeds": [0, 1, 2],
    "metrics": ["accuracy", "sparsity"],
    "budget": {"epochs": 2, "batch_size": 32, "trials": 1, "precision": "32"},
    "tuning": {"seed": 1, "pruning": "off"},
    "recipes": {
        "plain": {"learning_rate": {"value": 3e-3, "low": 1e-3, "high": 1e-2, "log": True}, "betas": [0.9, 0.9]}
    },
    "contestants": [{"model": "vit[dim=8]"}, {"label": "crate", "model": "crate", "recipe": "plain"}],
}


def refused_well(call: Callable[[], object], *kinds: type[WhitebenchError]) -> WhitebenchError | None:
    """Call, and return how it was refused, if it was; anything else that is raised is a failure."""
    refused = None
    try:
        call()
    except kinds as error:
        refused = error
    assert refused is None or 0 < len(str(refused)) < 2_000
    assert refused is None or str(refused).isprintable()
    return refused


# TOML, as text

TEXTS = st.text(max_size=20) | st.sampled_from(
    ["", " ", "a/b", "crate[dim=8]", "\x1b[31m", "\0", "x" * 100_000, "²", "nan"]
)
NUMBERS = (
    st.integers()
    | st.sampled_from([0, -1, 2**31, 2**63, 10**30])
    | st.floats()
    | st.sampled_from([1e308, -0.0, 5e-324])
)
SCALARS = TEXTS | NUMBERS | st.booleans() | st.dates() | st.times() | st.sampled_from([date.max, time.min])
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


def written(value: object) -> str:
    """Return a value as TOML writes it."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            # JSON's escapes are TOML's, save that TOML has no halves of pairs and wants DEL escaped.
            return json.dumps(value.encode("utf-8", "replace").decode(), ensure_ascii=False).replace("\x7f", "\\u007f")
        case float() | int():
            return repr(value)
        case date() | time():
            return value.isoformat()
        case list():
            return f"[{', '.join(map(written, value))}]"
        case dict():
            return "{" + ", ".join(f"{written(key)} = {written(inner)}" for key, inner in value.items()) + "}"
    raise AssertionError(value)


RAW = [
    *("1e400", "-nan", "+inf", "1979-05-27T07:32:00Z", "0o7", "1_000", "''", "nonsense", "# no value"),
    *("9" * 5_000, "0x" + "f" * 9_000, "[" * 1_000 + "]" * 1_000, "{a = " * 1_000 + "1" + "}" * 1_000),
    *(f"[{'0, ' * 20_000}]", '"' + "x" * 50_000 + '"', "[" + '"\\u001b[2J", ' * 500 + "]", '"""\nlines\n"""'),
]
"""Values as they stand in a file: too many digits, too deep, too long, of the wrong kind, or none."""


def document(content: dict[str, Any]) -> str:
    return "\n".join(f"{written(key)} = {written(value)}" for key, value in content.items())


def places(value: object, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the place of everything in a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, inner in items for place in ((*above, key), *places(inner, (*above, key)))]


PLACES = places(GOOD)


@st.composite
def mutations(draw: st.DrawFn) -> str:
    """Draw a suite in which something is replaced, dropped, doubled, renamed or nested, one to three times."""
    content = json.loads(json.dumps(GOOD))
    raw = ""
    for _ in range(draw(st.integers(1, 3))):
        *path, last = draw(st.sampled_from(PLACES))
        table: Any = content
        try:
            for part in path:
                table = table[part]
            table[last]
        except (KeyError, IndexError, TypeError):
            continue  # an earlier mutation took it away
        if isinstance(table, str):
            continue
        match draw(st.sampled_from(["replace", "drop", "double", "rename", "nest", "write"])):
            case "replace":
                table[last] = draw(VALUES)
            case "drop":
                del table[last]
            case "double" if isinstance(table, list):
                table.append(table[last])
            case "rename" if isinstance(table, dict):
                table[draw(st.text(max_size=12) | st.just(f"{last}s"))] = table.pop(last)
            case "nest":
                table[last] = [table[last]] if draw(st.booleans()) else {str(last): table[last]}
            case "write":
                raw = draw(st.sampled_from(RAW))
                table[last] = "RAW"
            case _:
                pass
    return document(content).replace('"RAW"', raw)


def read(file: Path, content: bytes, *overrides: str) -> Suite | None:
    """Read a suite; None where it is refused, which names the file or the override."""
    file.write_bytes(content)
    found: list[Suite] = []
    error = refused_well(lambda: found.append(load_suite(str(file), overrides)), SuiteError)
    assert error is None or str(file) in str(error) or "--set" in str(error)
    return found[0] if found else None


def test_the_suite_that_is_mutated_is_a_good_one(tmp_path: Path) -> None:
    assert tomllib.loads(document(GOOD)) == GOOD
    assert read(tmp_path / "x.toml", document(GOOD).encode()) is not None


@FIXED
@given(text=mutations())
def test_a_mutated_suite_is_read_or_refused(text: str, tmp_path: Path) -> None:
    read(tmp_path / "x.toml", text.encode())


@FIXED
@given(content=st.binary(max_size=300) | st.text(max_size=300).map(lambda text: text.encode("utf-8", "replace")))
def test_any_bytes_are_read_or_refused(content: bytes, tmp_path: Path) -> None:
    assert read(tmp_path / "x.toml", content) is None


@FIXED
@given(
    content=st.lists(
        st.sampled_from(
            [*'[]{}=.,"\n \t#', "'''", '"""', "\\u", "a", "budget", "1", "1e400", "0x", "nan", "2020-01-01"]
        ),
        max_size=60,
    ).map("".join)
)
def test_any_heap_of_what_toml_is_made_of_is_read_or_refused(content: str, tmp_path: Path) -> None:
    assert read(tmp_path / "x.toml", content.encode()) is None


@FIXED
@given(
    key=st.lists(st.sampled_from([*GOOD, *GOOD["budget"], "0", "", " ", "x"]), max_size=4).map(".".join)
    | st.text(max_size=20),
    value=VALUES.map(written) | st.text(max_size=20),
)
def test_any_override_is_taken_or_refused(key: str, value: str, tmp_path: Path) -> None:
    read(tmp_path / "x.toml", document(GOOD).encode(), f"{key}={value}")


# names, seeds, cells

NAMES = st.text(max_size=40) | st.lists(
    st.sampled_from(
        ["crate", "dim", "[", "]", "=", ",", " ", "8", "nan", "1e400", "9" * 400, "\0", "²", "\ud800", "\n"]
    ),
    max_size=12,
).map("".join)


@dataclass(frozen=True, kw_only=True)
class Config:
    dim: int = 8
    rate: float = 0.5
    is_tied: bool = False
    pool: Literal["cls", "mean"] = "cls"
    note: str = ""


@FIXED
@given(text=NAMES)
def test_any_name_is_parsed_or_refused(text: str) -> None:
    refused_well(lambda: parse_name(text), OptionError)


OPTION = st.text(max_size=30) | st.sampled_from(
    ["nan", "-inf", "1e400", "9" * 5000, "0x10", "1_0", "٣", "x" * 10**6, "\0"]
)


@FIXED
@given(options=st.dictionaries(st.sampled_from(["dim", "rate", "is_tied", "pool", "note", "dmi", ""]), OPTION))
def test_any_options_are_configured_or_refused(options: dict[str, str]) -> None:
    refused_well(lambda: configure("model m", Config, options), OptionError)


@FIXED
@given(text=st.text(max_size=30) | st.lists(st.sampled_from([*"0123456789,- "]), max_size=30).map("".join))
def test_any_seeds_are_read_or_refused(text: str) -> None:
    refused_well(lambda: parse_seeds(text), SuiteError)


@FIXED
@given(
    text=st.text(max_size=60)
    | st.lists(st.sampled_from(["smoke", "/", "0", "9" * 20, " ", "\n"]), max_size=9).map("".join)
)
def test_any_cell_s_name_is_parsed_or_refused(text: str) -> None:
    refused_well(lambda: CellName.parse(text), WhitebenchError)


# whole command lines

WORDS = st.sampled_from(
    [
        *("plan", "status", "board", "show", "why-stale", "list", "smoke", "digits", "x.toml", "smoke/vit/digits/0"),
        *(
            "--set",
            "--store",
            "--plugin",
            "-m",
            "-t",
            "--seeds",
            "--json",
            "--format",
            "--",
            "-",
            "--help",
            "csv",
            "vit",
        ),
        *(
            "budget.epochs=3",
            "seeds=[7]",
            "name=other",
            "crate[dim=8]",
            "sqlite:///x.db",
            "models",
            "1",
            "0-1",
            ".",
            "/",
        ),
    ]
) | st.text(max_size=12).filter(lambda word: "run" not in word)


@settings(FIXED, max_examples=150)
@given(words=st.lists(WORDS, max_size=7))
def test_any_command_that_only_reads_does_so_or_is_refused(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        patch.setattr(sys, "argv", ["whitebench", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
    said = capsys.readouterr().err
    assert ended.value.code in (0, 2), said
    assert "Traceback" not in said
    assert ended.value.code == 0 or not words or len(said.splitlines()) == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["0-9999," * 2_000, ",".join(map(str, range(50_000)))])
def test_seeds_without_end_are_refused_at_once(text: str) -> None:
    with pytest.raises(SuiteError, match="10,000 at most"):
        parse_seeds(text)
