"""Weights from a file: read without running it, matched by name, loaded whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file
from torch import Tensor, nn

from whitebench.commands.weights import weights
from whitebench.errors import WhitebenchError
from whitebench.weights import load_weights, match_weights, read_weights

RELEASED = {"net.*.w": "layers.*.weight", "classifier.*": "head.*"}


class Pair(nn.Module):
    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)])
        self.head = nn.Linear(2, classes)


def released(classes: int = 3) -> dict[str, Tensor]:
    return {
        "net.0.w": torch.full((2, 2), 1.0),
        "net.1.w": torch.full((2, 2), 2.0),
        "classifier.weight": torch.full((classes, 2), 3.0),
        "classifier.bias": torch.full((classes,), 4.0),
    }


def prefixed(prefix: str) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in released().items()}


@pytest.mark.parametrize("saved", [
    released(), {"state_dict": released(), "epoch": 3}, {"model": prefixed("module.")}, prefixed("module._orig_mod."),
])  # fmt: skip
def test_a_checkpoint_is_read_however_training_wrapped_it(tmp_path: Path, saved: object) -> None:
    torch.save(saved, tmp_path / "w.pth")
    assert read_weights(tmp_path / "w.pth").keys() == released().keys()


def test_safetensors_are_read_too(tmp_path: Path) -> None:
    save_file(released(), tmp_path / "w.safetensors")
    assert torch.equal(read_weights(tmp_path / "w.safetensors")["net.1.w"], torch.full((2, 2), 2.0))


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("went-off"),))  # type: ignore[return-value]


def test_a_file_that_would_run_code_is_refused_and_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": released(), "bomb": Bomb()}, tmp_path / "w.pth")
    with pytest.raises(WhitebenchError, match="cannot be read as plain tensors"):
        read_weights(tmp_path / "w.pth")
    assert not (tmp_path / "went-off").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no such file"), (b"nothing at all", "cannot be read as plain tensors"), ({"epoch": 3}, "holds no tensors"),
     ([1, 2], "holds no tensors")],
)  # fmt: skip
def test_a_file_without_weights_is_said_to_be_one(tmp_path: Path, content: object, message: str) -> None:
    if isinstance(content, bytes):
        (tmp_path / "w.pth").write_bytes(content)
    elif content is not None:
        torch.save(content, tmp_path / "w.pth")
    with pytest.raises(WhitebenchError, match=message):
        read_weights(tmp_path / "w.pth")


def test_names_are_matched_by_the_model_s_own_and_by_those_of_released_files() -> None:
    match = match_weights({**released(), "extra": torch.zeros(1)}, Pair(), RELEASED)
    assert match.is_whole
    assert match.fits["layers.1.weight"] == "net.1.w"
    assert match.unused == ("extra",)
    assert match_weights(Pair().state_dict(), Pair(), {}).is_whole


def test_two_stars_stand_for_as_many_parts_as_there_are_and_the_first_pattern_counts() -> None:
    deep = nn.ModuleDict({"body": nn.ModuleDict({"a": nn.Linear(2, 2), "b": Pair()}), "head": nn.Linear(2, 3)})
    theirs = {"fc.*": "head.*", "**": "body.**"}
    names = ["a.weight", "a.bias", "b.layers.0.weight", "b.layers.1.weight", "b.head.weight", "b.head.bias"]
    tensors = {"fc.weight": torch.zeros(3, 2), "fc.bias": torch.zeros(3)}
    tensors |= {name: deep.get_parameter(f"body.{name}").detach() for name in names}
    fits = {f"body.{name}": name for name in names}
    match = match_weights(tensors, deep, theirs)
    assert (match.is_whole, match.fits) == (True, {"head.weight": "fc.weight", "head.bias": "fc.bias", **fits})


def test_what_is_missing_and_of_another_shape_is_told_apart() -> None:
    tensors = {"layers.0.weight": torch.zeros(2, 2), "layers.1.weight": torch.zeros(2, 3)}
    match = match_weights(tensors, Pair(), {})
    assert match.missing == ("head.weight", "head.bias")
    assert match.misshapen == {"layers.1.weight": ((2, 3), (2, 2))}
    assert match.share == pytest.approx(1 / 4)


def test_a_head_for_other_classes_is_left_as_drawn(tmp_path: Path) -> None:
    torch.save(released(classes=5), tmp_path / "w.pth")
    model = Pair()
    drawn = model.head.weight.detach().clone()
    assert load_weights(tmp_path / "w.pth", model, RELEASED, head="head") == ["head.weight", "head.bias"]
    assert torch.equal(model.head.weight, drawn)
    assert torch.equal(model.get_parameter("layers.0.weight"), torch.full((2, 2), 1.0))


def test_anything_else_that_does_not_fit_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    torch.save({**released(), "net.1.w": torch.zeros(4, 4)}, tmp_path / "w.pth")
    model = Pair()
    before = {name: one.clone() for name, one in model.state_dict().items()}
    with pytest.raises(WhitebenchError, match=r"1 of the model's 4 weights.*layers\.1\.weight is \(4, 4\) there"):
        load_weights(tmp_path / "w.pth", model, RELEASED, head="head")
    assert all(torch.equal(before[name], one) for name, one in model.state_dict().items())


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(weights, list(arguments), standalone_mode=False)
    if result.exception:
        raise result.exception
    return result.return_value, result.output


def test_the_command_finds_the_model_a_file_is_for(tmp_path: Path) -> None:
    from whitebench_models.vit import VIT

    model = VIT.build(VIT.config(dim=16, depth=1), (1, 8, 8), 10)
    file = tmp_path / "mine.safetensors"
    save_file({f"module.{name}": one for name, one in model.state_dict().items()}, file)
    code, text = run(str(file), "-m", "vit[dim=16,depth=1]", "-t", "digits")
    assert code == 0
    assert "vit[dim=16,depth=1]: 20 of its 20 weights fit" in text
    code, text = run(str(file), "-m", "vit[dim=16,depth=2]", "-t", "digits")
    assert (code, "missing in the file: 12" in text) == (1, True)
    save_file(VIT.build(VIT.config(), (1, 8, 8), 10).state_dict(), file)
    code, text = run(str(file), "-t", "digits", "--json")
    assert json.loads(text)["model"] == "vit"
    assert "svm-vit" in json.loads(text)["others"]
