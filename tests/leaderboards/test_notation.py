"""How numbers are written."""

from __future__ import annotations

import pytest

from whitebench_leaderboards.notation import human, percent, plain, plus_minus


@pytest.mark.parametrize(
    ("mean", "half_width", "written"),
    [
        (0.14237, 0.03111, "0.142 ± 0.031"),
        (96.123, 1.234, "96.1 ± 1.2"),
        (96.123, 12.34, "96 ± 12"),
        (96.123, 250.0, "96 ± 250"),
        (12345.0, 4321.0, "12300 ± 4300"),
        (5.0, 0.0996, "5.00 ± 0.10"),  # rounds up to the next power of ten: still two digits
        (-0.28, 1.85, "−0.3 ± 1.9"),
        (0.5, 1e-9, "0.500000 ± 1.0e-09"),  # never a width of zero
        (1.23e-7, 4.5e-9, "(1.230 ± 0.045)e-7"),
        (3.2e9, None, "3.20e9"),
        (0.71234, None, "0.712"),
        (12.0, None, "12.0"),
        (0.0, None, "0"),
        (-1e-5, 0.5, "0.00 ± 0.50"),  # no minus zero
    ],
)
def test_a_mean_has_the_digits_that_its_interval_justifies(mean: float, half_width: float | None, written: str) -> None:
    assert str(plus_minus(mean, half_width)) == written


def test_shares_are_written_as_percent() -> None:
    assert str(percent(0.96123, 0.01234)) == "96.1 ± 1.2"
    assert str(percent(0.96123, None)) == "96.1"
    assert str(percent(0.012, 0.02, is_signed=True)) == "+1.2 ± 2.0"


@pytest.mark.parametrize(
    ("value", "unit", "written"),
    [
        (41_234, "", "41.2 k"),
        (3_094_000, "", "3.09 M"),
        (999_960, "", "1.00 M"),
        (512, "", "512"),
        (0, "", "0"),
        (12_345.6, "samples/s", "12.3 k"),
        (84 * 1024**2, "bytes", "84 MiB"),
        (1.5 * 1024**3, "bytes", "1.50 GiB"),
        (12.34, "s", "12.3 s"),
        (0.0123, "s", "12.3 ms"),
        (252, "s", "4.20 min"),
        (3.1 * 3600, "s", "3.10 h"),
    ],
)
def test_costs_are_written_in_units_that_people_read(value: float, unit: str, written: str) -> None:
    assert str(human(value, unit)) == written


def test_text_of_strangers_stays_on_one_line_without_control_characters() -> None:
    assert plain("oom:\n  \x1b[31mneeds\tmore\x07") == "oom: [31mneeds more"
