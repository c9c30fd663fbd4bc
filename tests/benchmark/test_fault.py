"""The kinds of what ends a fit, and the words for it."""

from __future__ import annotations

import errno
import signal

import pytest

from whitebench.errors import DivergedError, MetricError, WhitebenchError
from whitebench.fault import kind_of, kind_of_exit
from whitebench.result import FailureKind


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (MemoryError(), "oom"),
        (RuntimeError("CUDA out of memory. Tried to allocate"), "oom"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"), "oom"),
        (RuntimeError("std::bad_alloc"), "oom"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "oom"),
        (OSError(errno.ENOSPC, "No space left on device"), "disk"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "disk"),
        (Exception("I/O error: No space left on device (os error 28)"), "disk"),
        (OSError(errno.EACCES, "Permission denied"), "error"),
        (ImportError("libfoo.so"), "import"),
        (WhitebenchError("no such width"), "config"),
        (DivergedError("the step cannot be taken again: CUDA out of memory"), "nan"),
        (MetricError("raised"), "metric"),
        (SystemExit(3), "exit"),
        (KeyboardInterrupt(), "error"),
        (ZeroDivisionError(), "error"),
    ],
)
def test_kinds_of_exceptions(error: BaseException, kind: str) -> None:
    assert kind_of(error) is FailureKind(kind)


def test_a_metric_that_had_no_memory_is_a_lack_of_memory() -> None:
    error = MetricError("metric 'f1' raised MemoryError")
    error.__cause__ = MemoryError()
    assert kind_of(error) is FailureKind.OOM


@pytest.mark.parametrize(
    ("code", "kind", "message"),
    [
        (0, "exit", "exited with code 0"),
        (4, "exit", "exited with code 4"),
        (-signal.SIGKILL, "killed", "ended by SIGKILL (the system ends processes this way when memory runs out)"),
        (-signal.SIGTERM, "killed", "ended by SIGTERM"),
        (-signal.SIGHUP, "killed", "ended by SIGHUP"),
        (-40, "killed", "ended by signal 40"),
        (-signal.SIGSEGV, "crashed", "crashed with SIGSEGV"),
        (-signal.SIGBUS, "crashed", "crashed with SIGBUS"),
        (-signal.SIGABRT, "crashed", "crashed with SIGABRT"),
        (-signal.SIGFPE, "crashed", "crashed with SIGFPE"),
        (-signal.SIGILL, "crashed", "crashed with SIGILL"),
    ],
)
def test_kinds_of_exit_codes(code: int, kind: str, message: str) -> None:
    found, said = kind_of_exit(code, "")
    assert found is FailureKind(kind)
    assert message in said


def test_an_abort_for_want_of_memory_is_one() -> None:
    kind, _ = kind_of_exit(-signal.SIGABRT, "terminate called after throwing an instance of 'std::bad_alloc'")
    assert kind is FailureKind.OOM
