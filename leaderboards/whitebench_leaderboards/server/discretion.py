"""What a page must not say: the paths of the machine it comes from, and who a store lets in."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path

from whitebench.address import without_password
from whitebench.ledger import Ledger
from whitebench.result import CellRecord, Result, Score

_PATH = re.compile(
    r"""(?:(?<![\w/.~:-])~?|\b(?:sqlite|file):/{0,3})  # the beginning of a word, or of a URI that names a file
        /(?:[^\s/'"`:;,()<>]+/)+                      # two strokes at least, so that `and/or` and `1/2` stay
    """,
    re.VERBOSE,
)


def discreet(text: str) -> str:
    """Return `text` with the folders of every absolute path left out, and without passwords in addresses."""
    return without_password(_PATH.sub("…/", text)) if "/" in text else text


def discreet_ledger(ledger: Ledger) -> Ledger:
    """Return `ledger` as it may be shown to anybody whom the server lets in."""
    return dataclasses.replace(
        ledger,
        records=tuple(map(_record, ledger.records)),
        overrides=tuple(map(discreet, ledger.overrides)),
        store_uri="",
        source=Path(ledger.source).name,
        suite=dataclasses.replace(
            ledger.suite,
            contestants=tuple(
                dataclasses.replace(one, weights=Path(one.weights).name) if one.weights else one
                for one in ledger.suite.contestants
            ),
        ),
    )


def _record(record: CellRecord) -> CellRecord:
    result = _result(record.result) if record.result else None
    return dataclasses.replace(record, reason=discreet(record.reason), result=result)


def _result(result: Result) -> Result:
    source = result.provenance
    return dataclasses.replace(
        result,
        scores=[_score(score) for score in result.scores],
        costs=[_score(score) for score in result.costs],
        provenance=dataclasses.replace(source, distributions=_names(source.distributions)),
    )


def _score(score: Score) -> Score:
    return dataclasses.replace(score, unscored=discreet(score.unscored)) if score.unscored else score


def _names(distributions: Mapping[str, str]) -> dict[str, str]:
    return {discreet(name): discreet(version) for name, version in distributions.items()}
