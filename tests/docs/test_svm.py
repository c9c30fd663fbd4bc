"""The solver's page: its code works, and every argument and norm is explained."""

from __future__ import annotations

import inspect
import re
import runpy
from pathlib import Path

from tests.conftest import ROOT
from whitebench_svm import separate
from whitebench_svm.norms import GEOMETRIES

PAGE = (ROOT / "docs" / "svm.md").read_text(encoding="utf-8")


def test_the_margin_shown_is_found(tmp_path: Path) -> None:
    file = tmp_path / "margin.py"
    file.write_text("\n\n".join(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)), encoding="utf-8")
    shown = runpy.run_path(str(file))
    assert shown["found"].weight.shape == (3, 16, 16)
    assert float(shown["found"].gap.max()) <= 1e-10
    assert float(shown["nuclear"].gap.max()) <= 1e-8
    assert shown["low"].shape == (3,)


def test_every_argument_and_norm_is_explained() -> None:
    for name in [*inspect.signature(separate).parameters, *GEOMETRIES]:
        assert f"| `{name}` |" in PAGE
