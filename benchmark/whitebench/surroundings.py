"""What a process shares among all that runs in it, and puts back after a stranger's module was imported.

Seeds and threads are put back without a word: many a script sets them. What would change every other
model's numbers, or the harness's own work, is put back too, and named.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from whitebench.quotation import quote, told

_NEVER: Any = object()
"""What a thing was before its library was loaded, where nobody can say."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Thing:
    """One thing that is shared."""

    name: str
    """What a reason calls it; empty where a change is not named."""
    read: Callable[[], Any]
    put_back: Callable[[Any], object]
    needs: str = "sys"
    """The module it belongs to: without it there is nothing to read."""
    fresh: Any = _NEVER
    """What it is when that module has just been loaded."""


@contextmanager
def kept() -> Iterator[list[str]]:
    """Put back what the body changes; afterwards the list holds what it did that is to be named."""
    deeds: list[str] = []
    modules = {name: module for name, module in dict(sys.modules).items() if name.partition(".")[0] in _STANDING}
    threads = set(threading.enumerate())
    before = [(thing, _read(thing)) for thing in _things()]
    try:
        yield deeds
    finally:
        deeds += _put_back_modules(modules)
        for thing, old in before:
            if old is not _NEVER and thing.needs in sys.modules:
                deeds += _put_back(thing, old)
        # A process waits for these before it ends.
        left = [one for one in threading.enumerate() if one not in threads and not one.daemon]
        deeds += [f"left a thread running that is no daemon ({quote(one.name)})" for one in left]


def _read(thing: _Thing) -> Any:
    if thing.needs not in sys.modules:
        return thing.fresh
    with suppress(Exception):  # what one plugin broke is not the next one's deed
        return thing.read()
    return _NEVER


_STANDING = ("numpy", "torch", "torchmetrics", "whitebench")
"""Packages whose modules nobody may exchange for others."""


def _put_back_modules(modules: dict[str, ModuleType]) -> list[str]:
    exchanged = [name for name, module in modules.items() if sys.modules.get(name) is not module]
    sys.modules.update({name: modules[name] for name in exchanged})
    return [f"exchanged the module {exchanged[0]}"] if exchanged else []


def _put_back(thing: _Thing, old: Any) -> list[str]:
    try:
        if not thing.name:
            thing.put_back(old)
        elif (new := thing.read()) != old:
            thing.put_back(old)
            return [f"changed {thing.name} from {quote(old)} to {quote(new)}"]
    except Exception as error:  # a module may have broken the very functions that tell
        return [f"broke {thing.name or thing.needs} ({told(error)})"]
    return []


def _things() -> list[_Thing]:
    """Return what there is to keep, in the order in which it is put back."""

    def torch() -> Any:
        return sys.modules["torch"]

    def draws() -> Any:
        return sys.modules["numpy"].random

    things = [
        _Thing(name="the working folder", read=_folder, put_back=_return_to),
        _Thing(
            name="torch's default device",
            needs="torch",
            fresh="cpu",
            read=lambda: str(torch().get_default_device()),
            put_back=lambda device: torch().set_default_device(None if device == "cpu" else device),
        ),
        _Thing(
            name="torch's default dtype",
            needs="torch",
            fresh="torch.float32",
            read=lambda: str(torch().get_default_dtype()),
            put_back=lambda dtype: torch().set_default_dtype(getattr(torch(), dtype.removeprefix("torch."))),
        ),
        _Thing(
            name="torch's deterministic setting",
            needs="torch",
            fresh=0,
            read=lambda: torch().get_deterministic_debug_mode(),
            put_back=lambda mode: torch().set_deterministic_debug_mode(mode),
        ),
        _Thing(
            name="torch's precision of float32 products",
            needs="torch",
            fresh="highest",
            read=lambda: torch().get_float32_matmul_precision(),
            put_back=lambda precision: torch().set_float32_matmul_precision(precision),
        ),
        _Thing(
            name="whether torch records gradients",
            needs="torch",
            fresh=True,
            read=lambda: torch().is_grad_enabled(),
            put_back=lambda is_enabled: torch().set_grad_enabled(is_enabled),
        ),
        _Thing(
            name="",
            needs="torch",
            read=lambda: torch().get_num_threads(),
            put_back=lambda threads: torch().get_num_threads() == threads or torch().set_num_threads(threads),
        ),
        _Thing(
            name="",
            needs="torch",
            read=lambda: torch().get_rng_state(),
            put_back=lambda state: torch().set_rng_state(state),
        ),
        _Thing(
            name="",
            needs="numpy",
            read=lambda: draws().get_state(),
            put_back=lambda state: draws().set_state(state),
        ),
        _Thing(name="", needs="random", read=random.getstate, put_back=random.setstate),
    ]
    if threading.current_thread() is threading.main_thread():
        things += [_handler(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    return things


def _handler(number: signal.Signals) -> _Thing:
    return _Thing(
        name=f"who hears {number.name}",
        read=lambda: signal.getsignal(number),
        put_back=lambda handler: signal.signal(number, handler),
    )


def _folder() -> str:
    """Return the working folder."""
    try:
        return os.getcwd()  # noqa: PTH109  # Path.cwd() is the same with a Path around it
    except FileNotFoundError:
        return "one that is gone"


def _return_to(folder: str) -> None:
    with suppress(FileNotFoundError):
        os.chdir(folder)
