"""Signals that ask a process to stop are heard where nothing is half done."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from whitebench.interruption import SIGNALS, Interruption


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_waits_for_a_moment_that_welcomes_it(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with Interruption() as interruption:
        os.kill(os.getpid(), number)
        assert interruption.is_wanted
        with pytest.raises(KeyboardInterrupt), interruption.welcome():
            raise AssertionError("the body ran")
    assert signal.getsignal(number) is before


def test_a_signal_in_a_welcome_moment_ends_it_at_once() -> None:
    with Interruption() as interruption, pytest.raises(KeyboardInterrupt), interruption.welcome():
        signal.raise_signal(signal.SIGTERM)


def test_the_second_signal_acts_as_ever() -> None:
    with Interruption():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as under nohup
    try:
        with Interruption() as interruption:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not interruption.is_wanted
    finally:
        signal.signal(signal.SIGHUP, before)


def test_outside_the_main_thread_nothing_changes() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def enter() -> None:
        with Interruption():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [before]
