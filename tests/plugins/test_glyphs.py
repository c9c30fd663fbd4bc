"""Digits and letters in faces that were never trained on."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from matplotlib.ft2font import FT2Font

from whitebench import Samples, Split, WhitebenchError
from whitebench_tasks import glyphs
from whitebench_tasks.faces import CHARACTERS, file_of, masks
from whitebench_tasks.glyphs import GLYPHS, KNOWN_FACES, UNSEEN_FACES, GlyphsOptions, faces_of

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
SMALL = GlyphsOptions(train=620, validation=124, test=310)


def serve(split: Split, options: GlyphsOptions = SMALL) -> Samples:
    return GLYPHS.data(options, split)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Start without anything drawn, in memory or on disk."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    glyphs.images.cache_clear()
    return tmp_path / "whitebench"


@pytest.mark.parametrize("side", [24, 32])
def test_samples_have_the_sizes_the_shape_and_the_range_that_are_asked_for(side: int) -> None:
    options = GlyphsOptions(side=side, train=200, validation=100, test=150)
    assert GLYPHS.shape_of(options) == (1, side, side)
    for split, size in zip(SPLITS, (200, 100, 150), strict=True):
        samples = serve(split, options)
        assert samples.inputs.shape == (size, 1, side, side)
        assert (samples.inputs.dtype, samples.labels.dtype) == (torch.float32, torch.int64)
        assert (samples.inputs.min().item(), samples.inputs.max().item()) == (0, 1)
        steps = samples.inputs * 255
        assert torch.equal(steps.round() / 255, samples.inputs)
        assert samples.facts == {}


@pytest.mark.parametrize("size", [62, 100, 620])
def test_classes_are_as_even_as_their_number_allows(size: int) -> None:
    counts = serve("train", GlyphsOptions(train=size)).labels.bincount(minlength=62)
    assert len(counts) == GLYPHS.classes == 62
    assert {int(count) for count in counts} <= {size // 62, size // 62 + 1}


def test_test_faces_are_never_trained_on_nor_validated_with() -> None:
    options = GlyphsOptions()
    assert set(faces_of(options, "train")) == set(faces_of(options, "validation")) == set(KNOWN_FACES)
    assert set(faces_of(options, "test")) == set(UNSEEN_FACES)
    known, unseen = (
        {FT2Font(str(file_of(face))).family_name for face in faces} for faces in (KNOWN_FACES, UNSEEN_FACES)
    )
    assert known == {"DejaVu Sans", "DejaVu Sans Mono", "DejaVu Serif", "STIXGeneral"}
    assert unseen == {"cmr10", "cmb10", "cmti10", "cmss10", "cmtt10"}
    shapes = {mask.tobytes() for face in KNOWN_FACES for mask in masks(face)}
    same = [(face, character) for face in UNSEEN_FACES
            for character, mask in zip(CHARACTERS, masks(face), strict=True) if mask.tobytes() in shapes]  # fmt: skip
    assert same == [("cmss10", "I"), ("cmss10", "l")]  # bars, as the I of DejaVu Sans


def test_shared_faces_are_all_faces_in_every_split() -> None:
    options = GlyphsOptions(faces="shared")
    assert {faces_of(options, split) for split in SPLITS} == {KNOWN_FACES + UNSEEN_FACES}


def test_the_face_is_the_only_thing_in_which_split_and_shared_test_samples_differ_by_rule() -> None:
    split, shared = serve("test"), serve("test", GlyphsOptions(test=310, faces="shared"))
    assert torch.equal(split.labels, shared.labels)
    assert not torch.equal(split.inputs, shared.inputs)


def test_a_larger_set_begins_with_the_smaller_one_whatever_the_other_sizes() -> None:
    # Across a boundary between two batches of images drawn together.
    small, large = serve("train", GlyphsOptions(train=500)), serve("train", GlyphsOptions(train=1100, test=100))
    assert torch.equal(large.inputs[:500], small.inputs)
    assert torch.equal(large.labels[:500], small.labels)


def test_splits_and_seeds_share_no_sample() -> None:
    drawn = [serve(split, GlyphsOptions(train=620, validation=620, test=620, faces="shared", seed=seed)).inputs
             for split in SPLITS for seed in (0, 1)]  # fmt: skip
    assert len({image.numpy().tobytes() for images in drawn for image in images}) == 6 * 620


def test_another_process_draws_the_same_bytes_without_the_cache(cache: Path) -> None:
    script = (
        "import hashlib, sys; from whitebench_tasks.glyphs import GLYPHS, GlyphsOptions;"
        "inputs = GLYPHS.data(GlyphsOptions(test=310), 'test').inputs;"
        "print(hashlib.sha256(inputs.numpy().tobytes()).hexdigest())"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "XDG_CACHE_HOME": str(cache / "other")}
    other = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    ).stdout.strip()
    assert other == hashlib.sha256(serve("test").inputs.numpy().tobytes()).hexdigest()


def test_images_are_drawn_once_then_read_from_the_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = serve("test")
    assert len(list(cache.iterdir())) == 1

    def never(*_: object) -> None:
        raise AssertionError("drawn again")

    monkeypatch.setattr(glyphs, "draw", never)
    serve("test")  # from memory
    glyphs.images.cache_clear()
    assert torch.equal(serve("test").inputs, first.inputs)


def test_a_damaged_cache_is_not_served(cache: Path) -> None:
    first = serve("test").inputs
    (file,) = cache.iterdir()
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 255]))
    glyphs.images.cache_clear()
    assert torch.equal(serve("test").inputs, first)
    assert file.read_bytes() == content


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 1}, {"side": 32}, {"test": 311}, {"faces": "shared"},
    ],
)  # fmt: skip
def test_what_changes_the_images_has_a_file_of_its_own(cache: Path, other: dict[str, object]) -> None:
    serve("test")
    serve("test", GlyphsOptions(**{"test": 310, **other}))  # type: ignore[arg-type]
    assert len(list(cache.iterdir())) == 2


def test_label_noise_shares_the_images_of_the_clean_set(cache: Path) -> None:
    clean, noisy = serve("train"), serve("train", GlyphsOptions(train=620, label_noise=0.3))
    assert torch.equal(noisy.inputs, clean.inputs)
    assert len(list(cache.iterdir())) == 1


def test_label_noise_changes_training_labels_alone_and_says_how_many() -> None:
    noisy = GlyphsOptions(train=6200, validation=124, test=310, label_noise=0.3)
    train = serve("train", noisy)
    changed = int((train.labels != torch.arange(6200) % 62).sum())
    expected = 0.3 * 61 / 62
    assert abs(changed / 6200 - expected) < 4 * (expected * (1 - expected) / 6200) ** 0.5  # four standard deviations
    assert train.facts == {"label noise, nominal": 0.3, "label noise, flipped": changed / 6200}
    for split in SPLITS[1:]:
        assert torch.equal(serve(split, noisy).labels, serve(split).labels)
        assert serve(split, noisy).facts == {}


def test_other_seeds_flip_other_labels() -> None:
    one, other = (serve("train", GlyphsOptions(train=620, label_noise=0.5, seed=seed)).labels for seed in (0, 1))
    assert not torch.equal(one, other)


def test_samples_that_somebody_writes_into_do_not_change_those_served_next() -> None:
    serve("test").inputs.zero_()
    assert serve("test").inputs.max() == 1


@pytest.mark.parametrize(
    ("options", "known"),
    [
        ({}, {"train", "validation", "test"}),
        ({"train": 20_000}, {"validation", "test"}),
        ({"label_noise": 0.1}, {"validation", "test"}),
        ({"faces": "shared"}, set()),
        ({"side": 32}, set()),
        ({"seed": 1}, set()),
    ],
)
def test_the_manifest_holds_for_the_splits_that_the_options_leave_alone(
    options: dict[str, object], known: set[str]
) -> None:
    assert set(GLYPHS.manifest_of(GlyphsOptions(**options))) == known  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"side": 28}, r"glyphs\[side=28\]: choose side=24 or side=32"),
        ({"faces": "mixed"}, r"glyphs\[faces=mixed\]: choose faces=split or faces=shared"),
        ({"train": 61}, r"glyphs\[train=61\]: .*each of the 62 classes; choose 62 or more"),
        ({"validation": 0}, r"glyphs\[validation=0\]"),
        ({"test": -1}, r"glyphs\[test=-1\]"),
        ({"label_noise": 2.0}, r"glyphs\[label_noise=2.0\]: .* between 0 and 1"),
        ({"seed": -1}, r"glyphs\[seed=-1\]: a seed is 0 or more"),
    ],
)
def test_options_that_make_no_task_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(WhitebenchError, match=message):
        GlyphsOptions(**options)  # type: ignore[arg-type]


def test_a_classifier_by_mean_image_is_far_above_chance_and_far_from_done() -> None:
    """See that labels and images belong together, without a model: chance is 1.6 %."""
    options = GlyphsOptions(train=6200, test=620, faces="shared")
    train, test = serve("train", options), serve("test", options)

    def contrast(samples: Samples) -> torch.Tensor:
        flat = samples.inputs.flatten(1)
        return torch.nn.functional.normalize((flat - flat.mean(dim=1, keepdim=True)), dim=1)

    means = torch.stack([contrast(train)[train.labels == c].mean(dim=0) for c in range(62)])
    chosen = (contrast(test) @ means.T).argmax(dim=1)
    accuracy = float((chosen == test.labels).float().mean())
    assert 0.1 < accuracy < 0.6
