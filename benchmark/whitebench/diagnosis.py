"""Where a number stopped being finite: in which layer, which term of the loss, or which weight's gradient.

Knows no trainer: a model, and a function that takes the step once more, are all it takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn


def find_in_step(model: nn.Module, step: Callable[[], Mapping[str, Tensor]]) -> str:
    """Take a step once more and say what in it is not finite first, in the order of execution.

    Args:
        model: its modules are named as it names them; of nested ones the innermost comes first.
        step: runs the model and returns the terms of the loss by name, in their order; draws what it drew before.
    """
    found: list[str] = []
    try:
        # Hooks on a compiled model are skipped in silence, hence the stance.
        with ExitStack() as hooks, torch.compiler.set_stance("force_eager"):
            for handle in _watch(model, found):
                hooks.enter_context(handle)
            terms = step()
    except Exception as error:  # a stranger's model, and perhaps no memory for a second pass
        return found[0] if found else f"the step cannot be taken again: {type(error).__name__}: {error}"
    found += [
        f"the output of every layer is finite, the {name} is not" for name in terms if not _is_finite(terms[name])
    ]
    return found[0] if found else "taken again, the same step is finite: it depends on more than its seed and batch"


def find_in_gradients(weights: Mapping[str, nn.Parameter]) -> str:
    """Say which weight's gradient is not finite, going backwards from the last of `weights` as the gradient does."""
    faulty = [name for name, weight in weights.items() if weight.grad is not None and not _is_finite(weight.grad)]
    if not faulty:
        return "the gradient of every weight is finite, their norm is too large for a number"
    return (
        f"going backwards, the first weight whose gradient is not finite is {faulty[-1]!r} "
        f"({len(faulty)} of {len(weights)} are not)"
    )


def _watch(model: nn.Module, found: list[str]) -> Iterator[Any]:
    def note_input(_module: nn.Module, given: tuple[Any, ...]) -> None:
        if not _is_finite(given):
            found.append("what the model is given is not finite already: look at the task's augmentation")

    yield model.register_forward_pre_hook(note_input)
    for name, module in model.named_modules():
        yield module.register_forward_hook(_noting(name.replace("_orig_mod.", ""), found))


def _noting(name: str, found: list[str]) -> Callable[[nn.Module, object, object], None]:
    def note(module: nn.Module, _given: object, output: object) -> None:
        if _is_finite(output):
            return
        if not name:
            found.append("the output of every layer is finite, what the model's forward makes of them is not")
            return
        broken = [key for key, weight in module.named_parameters(recurse=False) if not _is_finite(weight)]
        why = f": its {' and '.join(broken)} is not finite already" if broken else ""
        found.append(f"the first layer whose output is not finite is {name!r}, a {type(module).__name__}{why}")

    return note


def _is_finite(value: object) -> bool:
    if isinstance(value, Tensor):
        return not (value.is_floating_point() or value.is_complex()) or bool(value.isfinite().all())
    if isinstance(value, Mapping):
        return all(map(_is_finite, value.values()))
    return not isinstance(value, tuple | list) or all(map(_is_finite, value))
