"""Starting weights from a file: read without running anything in it, matched with a model's, and loaded."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from whitebench.errors import WhitebenchError
from whitebench.quotation import told

if TYPE_CHECKING:
    from torch import nn

WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "ema_state_dict")
"""Under which key of a checkpoint its weights lie, if not at the top."""

PREFIXES = ("module.", "_orig_mod.")
"""What training on several devices, and compiling, put before every name."""


@dataclass(frozen=True, kw_only=True)
class Match:
    """How the weights of a file and those of a model go together, by the model's names."""

    fits: Mapping[str, str]
    """The model's name to the file's."""
    missing: tuple[str, ...]
    """The model's names for which the file has nothing."""
    misshapen: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]
    """The model's name to the file's shape and the model's."""
    unused: tuple[str, ...]
    """The file's names that mean nothing to the model."""

    @property
    def is_whole(self) -> bool:
        """Whether every weight of the model is there and fits."""
        return not (self.missing or self.misshapen)

    @property
    def share(self) -> float:
        """The share of the model's weights that fit, by number of tensors."""
        whole = len(self.fits) + len(self.missing) + len(self.misshapen)
        return len(self.fits) / whole if whole else 0.0


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a `.safetensors` file or of a torch checkpoint by name, without `module.` before it.

    Raises:
        WhitebenchError: there is no such file, it holds no weights, or reading it would run code.
    """
    try:
        loaded: Any = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except FileNotFoundError as error:
        raise WhitebenchError(f"weights {path}: no such file") from error
    except Exception as error:  # half a dozen kinds for a file that is damaged, or pickles more than tensors
        raise WhitebenchError(
            f"weights {path}: cannot be read as plain tensors ({told(error)}); only tensors are taken from a file, "
            "since anything else may run code: save its state_dict() alone, best as .safetensors"
        ) from error
    while isinstance(loaded, Mapping) and (inner := next((loaded[key] for key in WRAPPERS if key in loaded), None)):
        loaded = inner
    tensors = {str(name): one for name, one in loaded.items() if isinstance(one, Tensor)} if _is_mapping(loaded) else {}
    if not tensors:
        raise WhitebenchError(f"weights {path}: holds no tensors by name: give a state_dict")
    return {_bare(name): one for name, one in tensors.items()}


def _is_mapping(loaded: object) -> bool:
    return isinstance(loaded, Mapping)


def _bare(name: str) -> str:
    while prefix := next((one for one in PREFIXES if name.startswith(one)), None):
        name = name.removeprefix(prefix)
    return name


def match_weights(tensors: Mapping[str, Tensor], module: nn.Module, released: Mapping[str, str]) -> Match:
    """Match the tensors of a file with the weights of `module`, by its own names or by those in `released`.

    Args:
        tensors: by the file's names.
        module: the model.
        released: the Spec's patterns, `{"transformer.layers.*.1.fn.weight": "blocks.*.ista.dictionary"}`; of several
            that match a name the first counts.
    """
    own = module.state_dict()
    named = {_renamed(name, released) if name not in own else name: name for name in tensors}
    shapes = {name: (tuple(tensors[named[name]].shape), tuple(own[name].shape)) for name in named if name in own}
    return Match(
        fits={name: named[name] for name, (theirs, ours) in shapes.items() if theirs == ours},
        missing=tuple(name for name in own if name not in named),
        misshapen={name: pair for name, pair in shapes.items() if pair[0] != pair[1]},
        unused=tuple(theirs for name, theirs in named.items() if name not in own),
    )


def load_weights(path: Path, module: nn.Module, released: Mapping[str, str], *, head: str) -> list[str]:
    """Load the weights in `path` into `module`; return the names of the head's that were left as drawn.

    The head alone may be of another size: another task has other classes.

    Raises:
        WhitebenchError: the file cannot be read, or its weights are not those of this model.
    """
    tensors = read_weights(path)
    match = match_weights(tensors, module, released)
    others = [name for name in (*match.missing, *match.misshapen) if not name.startswith(f"{head}.")]
    if others:
        first = others[0]
        shapes = match.misshapen.get(first)
        why = f"{first} is {shapes[0]} there and {shapes[1]} here" if shapes else f"it has no {first}"
        raise WhitebenchError(
            f"weights {path}: {len(others)} of the model's {len(module.state_dict())} weights do not come from there: "
            f"{why}; `whitebench weights {path}` says what fits"
        )
    module.load_state_dict({name: tensors[theirs] for name, theirs in match.fits.items()}, strict=False)
    return [name for name in (*match.missing, *match.misshapen) if name.startswith(f"{head}.")]


def _renamed(name: str, released: Mapping[str, str]) -> str:
    for pattern, ours in released.items():
        if found := _compiled(pattern).fullmatch(name):
            return "".join(map("".join, zip_longest(re.split(r"\*\*?", ours), found.groups(), fillvalue="")))
    return name


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(re.escape(pattern).replace(r"\*\*", "(.+)").replace(r"\*", "([^.]+)"))
