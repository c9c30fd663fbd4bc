"""How long a stranger's code is waited for, and whose Ctrl-C it is."""

from __future__ import annotations

import signal
import threading
import time
from contextlib import suppress

import pytest

from whitebench.interruption import Interruption
from whitebench.patience import FalseAlarmError, TooLongError, at_most, only_typed


def test_what_takes_too_long_is_stopped_where_it_is_and_what_does_not_is_not() -> None:
    with at_most(60):
        pass
    with pytest.raises(TooLongError, match=r"longer than 0\.1 s"), at_most(0.1):
        time.sleep(60)


def test_one_that_catches_it_is_stopped_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("whitebench.patience.AGAIN", 0.1)
    with at_most(0.1):
        for _ in range(3):
            with pytest.raises(TooLongError):
                time.sleep(60)


def test_somebody_elses_alarm_goes_on() -> None:
    handler = signal.getsignal(signal.SIGALRM)
    left, interval = signal.getitimer(signal.ITIMER_REAL)
    try:
        signal.setitimer(signal.ITIMER_REAL, 200, 7)
        with at_most(30):
            assert signal.getitimer(signal.ITIMER_REAL)[0] <= 30
        after, again = signal.getitimer(signal.ITIMER_REAL)
    finally:
        signal.setitimer(signal.ITIMER_REAL, left, interval)
    assert 100 < after <= 200
    assert again == 7
    assert signal.getsignal(signal.SIGALRM) is handler


def test_in_another_thread_nothing_is_stopped() -> None:
    ended = []

    def wait() -> None:
        with at_most(0.01), only_typed():
            time.sleep(0.05)
        ended.append(True)

    thread = threading.Thread(target=wait)
    thread.start()
    thread.join()
    assert ended == [True]


def test_a_keyboard_interrupt_that_nobody_typed_is_a_false_alarm() -> None:
    with pytest.raises(FalseAlarmError, match="nobody typed Ctrl-C"), only_typed():
        raise KeyboardInterrupt


def test_a_ctrl_c_comes_through_also_where_it_was_swallowed() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), only_typed():
        signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), only_typed(), suppress(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), only_typed():
        _swallow_and_break()
    assert signal.getsignal(signal.SIGINT) is before


def _swallow_and_break() -> None:
    with suppress(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    raise RecursionError("what a half loaded library does next")


def _press_twice() -> None:
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGINT)


def test_a_ctrl_c_that_is_kept_for_later_stays_so_and_the_second_acts_at_once() -> None:
    before = signal.getsignal(signal.SIGINT)
    with Interruption() as interruption:
        with only_typed():
            signal.raise_signal(signal.SIGINT)
        assert interruption.is_wanted
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    with Interruption(), pytest.raises(KeyboardInterrupt), only_typed():
        _press_twice()
    assert signal.getsignal(signal.SIGINT) is before
