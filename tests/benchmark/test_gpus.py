"""Which GPU a fit gets: none stands idle while two fits share another."""

from __future__ import annotations

from pathlib import Path

import pytest

from whitebench.gpus import least_used, visible_gpus


def test_fits_go_round_the_gpus_and_share_them_evenly_where_there_are_more_fits() -> None:
    taken: list[tuple[str, ...]] = []
    for _ in range(5):
        taken.append(least_used(["a", "b"], taken))
    assert taken == [("a",), ("b",), ("a",), ("b",), ("a",)]


def test_a_gpu_that_a_fit_has_left_is_the_next_to_be_taken() -> None:
    assert least_used(["a", "b", "c"], [("a",), ("c",)]) == ("b",)
    assert least_used(["a", "b", "c"], [("b",), ("c",)]) == ("a",)


def test_a_fit_that_wants_several_gets_those_that_the_fewest_use() -> None:
    assert least_used(["a", "b", "c"], [("a",)], 2) == ("b", "c")
    assert least_used(["a", "b"], [], 4) == ("a", "b")


@pytest.mark.parametrize(
    ("said", "gpus"),
    [("0,1", ["0", "1"]), ("3", ["3"]), ("", []), ("0,-1,2", ["0"]), ("GPU-8f2, MIG-1a", ["GPU-8f2", "MIG-1a"])],
)
def test_what_somebody_has_set_is_read_as_cuda_reads_it(
    monkeypatch: pytest.MonkeyPatch, said: str, gpus: list[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", said)
    assert visible_gpus() == gpus


LISTING = """\
GPU 0: NVIDIA A100 (UUID: GPU-aa)
  MIG 3g.20gb Device 0: (UUID: MIG-a1)
  MIG 3g.20gb Device 1: (UUID: MIG-a2)
GPU 1: NVIDIA A100 (UUID: GPU-bb)
"""


def test_where_nothing_is_set_the_driver_is_asked_and_a_split_gpu_counts_by_its_parts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert visible_gpus() == []  # no driver
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n/bin/cat <<'END'\n{LISTING}END\n", encoding="utf-8")
    tool.chmod(0o755)
    assert visible_gpus() == ["MIG-a1", "MIG-a2", "GPU-bb"]
    tool.write_text("#!/bin/sh\nexit 9\n", encoding="utf-8")
    assert visible_gpus() == []
