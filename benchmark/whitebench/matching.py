"""Contestants of one size: a model's width, scaled until the network has the parameters that a suite asks for.

Parameters grow with the width w, so it is found by bisection, in steps of the model's heads; where to look next is
guessed by w^2, as which they grow for the most part. Nothing else is touched: depth, heads and patch are the suite's.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from whitebench.errors import SuiteError, TaskDataError, WhitebenchError
from whitebench.names import configure, configured_task, parse_name, with_preset
from whitebench.quotation import told
from whitebench.specs import PRESET
from whitebench.wording import plain

if TYPE_CHECKING:
    from torch import nn

    from whitebench.catalog import Catalog
    from whitebench.specs import ModelSpec, Shape
    from whitebench.suite import Contestant, Match, Suite

WIDEST = 65_536
"""Numbers in a token, beyond which nobody looks for a width."""


def match_width(suite: Suite, contestant: Contestant, task: str, catalog: Catalog) -> Contestant:
    """Return the contestant with the width among its options that gives it the parameters which the suite asks for.

    As it is where the suite asks for none, where it is scored as it stands, and where the task solves itself; with some
    width where the data alone would say how many classes there are, and are not known on this machine.

    Raises:
        SuiteError: its model has no width, its width is given already, or none comes near enough; says what to do.
    """
    spec = catalog.task(parse_name(task)[0]).spec
    if suite.match is None or contestant.epochs == 0 or spec.solve is not None:
        return contestant
    name, options = parse_name(contestant.model)
    model = catalog.model(name).spec
    who = f"suite {suite.name}: match: contestant {plain(contestant.label, 60)} on {task}"
    if not model.width:
        raise SuiteError(f"{who}: model {name} has no width to scale: leave it out, or put it in a suite without match")
    given = with_preset(f"model {contestant.model}", model.presets, options)
    width, step = model.width
    if width in given:
        preset, advice = "", f"leave {width} out of {contestant.model}"
        if width not in options:
            preset = f" by preset={options[PRESET]}"
            advice = "give the preset's other options in its place, or put it in a suite without match"
        raise SuiteError(f"{who}: its {width} is given{preset}, and match sets it: {advice}")
    config = configured_task(task, spec.config, suite.path_of(task))
    try:
        shape, classes = spec.shape_of(config), spec.classes_of(config)
    except TaskDataError:
        return _with(contestant, _even_width(model, given))

    def parameters(steps: int, stride: int) -> int:
        chosen = {**given, width: steps * stride}
        options = tuple(sorted((key, str(value)) for key, value in chosen.items()))
        return _parameters(model.build, model.config, options, shape, classes)

    try:
        stride = int(getattr(configured_for_match(contestant.model, model), step))
        steps = _nearest(partial(parameters, stride=stride), suite.match.parameters, WIDEST // stride)
        found = parameters(steps, stride)
    except WhitebenchError as error:
        raise SuiteError(f"{who}: {error}") from error
    except Exception as error:  # a stranger's model, which may not like each width
        raise SuiteError(f"{who}: building it to count its parameters raised {told(error)}") from error
    if abs(found / suite.match.parameters - 1) > suite.match.tolerance:
        raise SuiteError(f"{who}: {_too_far(suite.match, found, f'{width}={steps * stride}', stride)}")
    return _with(contestant, {width: steps * stride})


def _with(contestant: Contestant, changes: Mapping[str, object]) -> Contestant:
    name, options = parse_name(contestant.model)
    text = ",".join(f"{key}={value}" for key, value in {**options, **changes}.items())
    return dataclasses.replace(contestant, model=f"{name}[{text}]") if changes else contestant


def configured_for_match(text: str, model: ModelSpec) -> Any:
    """Return the config that `text` asks for, at a width that its heads split evenly where it names none.

    Raises:
        OptionError: as `configured`.
    """
    who = f"model {plain(text, 100)}"
    given = with_preset(who, model.presets, parse_name(text)[1])
    return configure(who, model.config, {**given, **_even_width(model, given)})


def _even_width(model: ModelSpec, given: Mapping[str, object]) -> dict[str, object]:
    """Return the default width, or the next that the heads split evenly; nothing where one or no heads are given."""
    width, step = model.width or ("", "")
    heads = str(given.get(step, ""))
    if width in given or not heads.isdecimal() or int(heads) == 0:
        return {}
    return {width: math.ceil(getattr(model.config(), width) / int(heads)) * int(heads)}


def _nearest(parameters: Callable[[int], int], wanted: float, most: int) -> int:
    """Return the number of steps, 1 to `most`, whose parameters come nearest to those wanted."""
    low, steps, high = 0, 1, most + 1
    while high - low > 1:
        found = parameters(steps)
        low, high = (steps, high) if found < wanted else (low, steps)
        guess = round(steps * math.sqrt(wanted / found))
        steps = min(max(guess, low + 1), high - 1)
    return min((one for one in (low, high) if 1 <= one <= most), key=lambda one: abs(parameters(one) - wanted))


def _too_far(match: Match, found: int, width: str, stride: int) -> str:
    off = found / match.parameters - 1
    return (
        f"the nearest width, {width} in steps of {stride}, has {found:,} parameters, {off:+.1%} of the "
        f"{match.parameters:,.0f} wanted, and {match.tolerance:.1%} is allowed: ask for another number or depth, fewer "
        "heads, or more tolerance"
    )


@cache
def _parameters(
    build: Callable[[Any, Shape, int], nn.Module],
    config: type,
    options: tuple[tuple[str, str], ...],
    shape: Shape,
    classes: int,
) -> int:
    """Return how many parameters a model has, built without memory for them."""
    import torch

    from whitebench.cost import count_parameters

    configured = configure("model", config, dict(options))
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return count_parameters(build(configured, shape, classes))
