"""Pictures on disk: what is stored comes back, and what cannot be drawn is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from whitebench import Picture, WhitebenchError
from whitebench.gallery import checked, load_pictures, save_pictures

SHAPES: dict[Any, tuple[int, ...]] = {"lines": (3,), "histogram": (5,), "matrix": (2, 3), "paths": (4, 2)}


def picture(**changes: Any) -> Picture:
    return Picture(**{"kind": "lines", "title": "t", "x": "x", "y": "y", "series": {"a": torch.ones(3)}, **changes})


def test_pictures_come_back_as_they_were_saved(tmp_path: Path) -> None:
    shared = torch.rand(4, 4)
    pictures = {
        f"metric/part/{kind}": picture(kind=kind, series={"b": torch.rand(shape), "a": torch.rand(shape)})
        for kind, shape in SHAPES.items()
    }
    pictures["metric/shared"] = picture(kind="matrix", series={"whole": shared, "turned": shared.T})
    save_pictures(pictures, tmp_path / "pictures.safetensors")
    found = load_pictures(tmp_path / "pictures.safetensors")
    assert list(found) == list(pictures)
    for name, one in pictures.items():
        other = found[name]
        assert (other.kind, other.title, other.x, other.y) == (one.kind, one.title, one.x, one.y)
        assert list(other.series) == list(one.series)
        for label, array in one.series.items():
            assert torch.equal(other.series[label], array)


def test_a_cell_without_pictures_has_an_empty_gallery(tmp_path: Path) -> None:
    save_pictures({}, tmp_path / "none.safetensors")
    assert load_pictures(tmp_path / "none.safetensors") == {}


def test_a_damaged_gallery_is_said_to_be(tmp_path: Path) -> None:
    file = tmp_path / "pictures.safetensors"
    file.write_bytes(b"no arrays")
    with pytest.raises(WhitebenchError, match=r"pictures\.safetensors is damaged"):
        load_pictures(file)


def test_arrays_are_kept_in_float32_on_the_cpu() -> None:
    [found] = checked({"rate": picture(series={"a": torch.ones(3, dtype=torch.float64, requires_grad=True)})}).values()
    assert (found.series["a"].dtype, found.series["a"].requires_grad) == (torch.float32, False)


@pytest.mark.parametrize(("kind", "shape"), [("lines", (1,)), ("histogram", (1,)), ("matrix", (1, 1))])
def test_an_array_of_one_number_is_drawn_though_torchmetrics_hands_on_a_scalar(
    kind: str, shape: tuple[int, ...]
) -> None:
    [found] = checked({"one": picture(kind=kind, series={"a": torch.tensor(0.5)})}).values()
    assert torch.equal(found.series["a"], torch.full(shape, 0.5))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("Up", {}, "'Up': a name is up to 64 lower-case letters"),
        ("../x", {}, "a name is up to 64"),
        ("x", {"kind": "pie"}, "kind must be one of .*got 'pie'"),
        ("x", {"series": {}}, "it has no series"),
        ("x", {"series": {"a": torch.zeros(0)}}, r"series 'a' of shape \(0,\) is none of lines"),
        ("x", {"series": {"a": torch.ones(3, 3)}}, r"of shape \(3, 3\) is none of lines"),
        ("x", {"kind": "paths"}, r"of shape \(3,\) is none of paths"),
        ("x", {"kind": "matrix", "series": {"a": torch.ones(2000, 2000)}}, "more than 2000000 numbers"),
    ],
)
def test_what_cannot_be_drawn_is_refused(name: str, change: dict[str, Any], message: str) -> None:
    with pytest.raises(WhitebenchError, match=message):
        checked({name: picture(**change)})
