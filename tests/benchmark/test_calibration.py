"""A suite's noise floor, from repetitions made by hand."""

from __future__ import annotations

import pytest

from whitebench.calibration import Calibration, Repetition, noise_floor


def repeated(setting: str, **values: float) -> Repetition:
    return Repetition(setting=setting, device="a processor", threads=1, values=values)


CALIBRATION = Calibration(
    cell="blobs/tiny/blobs/0",
    identity="1" * 64,
    when="2026-01-01T00:00:00.000Z",
    repetitions=[
        repeated("", error=0.25, depth=3.0),
        repeated("", error=0.25, depth=3.5),
        repeated("threads=2", error=0.5, depth=3.25),
        repeated("precision=bf16-mixed", error=0.125, rare=1.0),
    ],
)


def test_the_floor_at_equal_settings_is_how_far_fits_as_the_suite_says_lie_apart() -> None:
    assert CALIBRATION.at_equal_settings == {"error": 0.0, "depth": 0.5}


def test_the_floor_across_settings_is_how_far_all_fits_lie_apart() -> None:
    assert CALIBRATION.across_settings == {"error": 0.375, "depth": 0.5}  # one value of `rare` lies apart from none


def test_the_farthest_setting_is_the_one_farthest_from_the_first_fit() -> None:
    assert CALIBRATION.farthest("error") == "threads=2"
    assert CALIBRATION.farthest("depth") == ""


def test_a_suites_floor_is_the_largest_of_its_calibrations() -> None:
    other = Calibration(
        cell="blobs/other/blobs/0", identity="", when="", repetitions=[repeated("", error=0.0), repeated("", error=0.5)]
    )
    assert noise_floor([CALIBRATION, other]) == {"error": 0.5, "depth": 0.5}
    assert noise_floor([]) == {}


def test_it_reads_back_from_json() -> None:
    assert Calibration.from_json(CALIBRATION.to_json().encode()) == CALIBRATION


@pytest.mark.parametrize("text", [b"", b"{}", b"[]", b'{"repetitions": [{"a": 1}]}', b'{"repetitions": []}'])
def test_what_is_no_calibration_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # JSON's own for what is none
        Calibration.from_json(text)
