"""The command that says which model the weights in a file are for, and what of them fits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from whitebench.commands.terminal import open_console, print_json
from whitebench.options import json_option, plugin_options

if TYPE_CHECKING:
    from whitebench.catalog import Catalog
    from whitebench.specs import Shape
    from whitebench.weights import Match

IMAGENET: tuple[Shape, int] = ((3, 224, 224), 1000)
"""What released checkpoints are mostly made for, and what is taken where no task is named."""

MOST_SHOWN = 20
"""Names of one sort."""


@click.command(
    short_help="Which model the weights in a file fit, and what of them does not.",
    epilog="\b\nExamples:\n  whitebench weights crate_tiny.pth\n"
    "  whitebench weights mine.safetensors -m 'vit[dim=64]' -t digits",
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("-m", "--model", help="The model they are meant for; where not given, every model and preset is tried.")
@click.option("-t", "--task", help="The task it is built for.  [default: 224 x 224 pixels in 3 channels, 1000 classes]")
@plugin_options
@json_option
def weights(file: Path, *, model: str | None, task: str | None, plugins: Sequence[Path], as_json: bool) -> int:
    """Say which of the weights in FILE fit a model, by its own names or those of released checkpoints.

    Nothing in the file is run: a `.safetensors` file, or a torch checkpoint that holds tensors alone. `module.` before
    names does not matter. Exits with 0 when every weight of the model comes from the file, else with 1.
    """
    from whitebench.catalog import load_catalog
    from whitebench.errors import WhitebenchError
    from whitebench.names import configured, parse_name
    from whitebench.weights import read_weights

    tensors = read_weights(file)
    catalog = load_catalog(plugins)
    shape, classes = IMAGENET
    if task:
        spec = catalog.task(parse_name(task)[0]).spec
        config = configured("task", task, spec.config)
        shape, classes = spec.shape_of(config), spec.classes_of(config)
    tried = list(_matches(catalog, [model] if model else _everyone(catalog), tensors, shape=shape, classes=classes))
    if not tried:
        raise WhitebenchError(f"weights {file}: no registered model can be built for {shape}: name one with --model")
    # Of several that fit alike the shortest name: `vit` before its variants.
    name, best = max(tried, key=lambda one: (one[1].is_whole, len(one[1].fits), one[1].share, -len(one[0])))
    others = [other for other, match in tried if match.is_whole and other != name]
    if as_json:
        print_json({**_facts(file, tensors, name, best), "others": others})
        return 0 if best.is_whole else 1
    console = open_console()
    lines = list(_lines(file, tensors, name, best, is_named=model is not None))
    for line in [*lines, *([f"They fit as well: {', '.join(others)}"] if others else [])]:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    return 0 if best.is_whole else 1


def _everyone(catalog: Catalog) -> list[str]:
    names = []
    for name, entry in catalog.entries["model"].items():
        if not entry.spec.head:  # has none to load
            continue
        names += [name, *(f"{name}[preset={preset}]" for preset in entry.spec.presets)]
    return names


def _matches(
    catalog: Catalog, models: Sequence[str], tensors: dict[str, Any], *, shape: Shape, classes: int
) -> Iterator[tuple[str, Match]]:
    """Yield each model that can be built for such samples, with how the tensors match it."""
    import torch

    from whitebench.errors import WhitebenchError
    from whitebench.names import configured, parse_name
    from whitebench.weights import match_weights

    for name in models:
        spec = catalog.model(parse_name(name)[0]).spec
        config = configured("model", name, spec.config, spec.presets)
        try:
            with torch.device("meta"):
                module = spec.build(config, shape, classes)
        except Exception as error:  # it takes other samples
            if len(models) == 1:
                raise WhitebenchError(f"model {name} for samples of shape {shape}: {error}") from error
            continue
        yield name, match_weights(tensors, module, spec.released)


def _facts(file: Path, tensors: dict[str, Any], name: str, match: Match) -> dict[str, Any]:
    return {
        "file": str(file),
        "tensors": len(tensors),
        "model": name,
        "is_whole": match.is_whole,
        "fits": dict(match.fits),
        "missing": list(match.missing),
        "misshapen": {one: {"file": theirs, "model": ours} for one, (theirs, ours) in match.misshapen.items()},
        "unused": list(match.unused),
    }


def _lines(file: Path, tensors: dict[str, Any], name: str, match: Match, *, is_named: bool) -> Iterator[str]:
    numbers = sum(tensor.numel() for tensor in tensors.values())
    yield f"{file}: {len(tensors)} tensors, {numbers:,} numbers"
    whole = len(match.fits) + len(match.missing) + len(match.misshapen)
    found = "" if is_named else "closest of all models and presets: "
    yield f"{found}{name}: {len(match.fits)} of its {whole} weights fit"
    yield from _named("missing in the file", match.missing)
    yield from _named(
        "of another shape", [f"{one}: {theirs} there, {ours} here" for one, (theirs, ours) in match.misshapen.items()]
    )
    yield from _named("in the file and unknown to the model", match.unused)
    if match.is_whole:
        yield f'Start from them: weights = "{file}" on a contestant; with epochs = 0 it is scored as it stands.'


def _named(what: str, names: Sequence[str]) -> Iterator[str]:
    if names:
        yield f"{what}: {len(names)}"
        yield from (f"  {name}" for name in names[:MOST_SHOWN])
    if len(names) > MOST_SHOWN:
        yield f"  and {len(names) - MOST_SHOWN} more (--json lists them all)"
