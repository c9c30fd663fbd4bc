"""A suite against the catalog: what it names is there, and stands in it once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from whitebench.catalog import Catalog
from whitebench.errors import OptionError, SuiteError, UnknownNameError
from whitebench.suite import load_suite
from whitebench.vetting import vet

WriteSuite = Callable[..., Path]


@pytest.fixture
def vetted(write_suite: WriteSuite, catalog: Catalog) -> Callable[..., None]:
    """Return a function that vets a suite on the blobs, some of its text replaced."""

    def check(*models: str, old: str = "", new: str = "") -> None:
        file = write_suite(*models)
        file.write_text(file.read_text(encoding="utf-8").replace(old, new) if old else file.read_text(encoding="utf-8"))
        vet(load_suite(str(file)), catalog)

    return check


def test_a_suite_whose_names_are_all_known_passes(vetted: Callable[..., None]) -> None:
    vetted("tiny", "tiny[width=4]")


@pytest.mark.parametrize(
    ("old", "new", "error", "message"),
    [
        ('["blobs"]', '["blob"]', UnknownNameError, "suite blobs: tasks: unknown task 'blob', did you mean 'blobs'"),
        ('["blobs"]', '["blobs[size=3]"]', OptionError, "suite blobs: tasks: task blobs[size=3]: unknown option"),
        ('"accuracy"]', '"acuracy"]', UnknownNameError, "suite blobs: metrics: unknown metric 'acuracy', did you mean"),
        ('"tiny"', '"tinny"', UnknownNameError, "suite blobs: contestant tinny: unknown model 'tinny', did you mean"),
        ('"tiny"', '"tiny[width=x]"', OptionError, "contestant tiny[width=x]: model tiny[width=x]: option width=x"),
        ('"tiny"', '"tiny"\nobjective = "mcr3"', UnknownNameError, "unknown objective 'mcr3', did you mean"),
        ('"error"', '"depths"', SuiteError, "suite blobs: primary 'depths' cannot rank, it has no better direction"),
        ('["blobs"]', '["blobs", "digits", "digits[shift=0]"]', SuiteError,
         "suite blobs: tasks: digits and digits[shift=0] are one task in other words: leave one out"),
    ],
)  # fmt: skip
def test_what_is_refused_says_where_in_the_suite(
    vetted: Callable[..., None], old: str, new: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as refused:
        vetted(old=old, new=new)
    assert message in str(refused.value)


def test_one_task_with_two_different_options_is_two_tasks(vetted: Callable[..., None]) -> None:
    vetted(old='["blobs"]', new='["digits[shift=1]", "digits[shift=2]", "digits"]')
