"""Ctrl-C while processes are started, taken by another thread than the main one."""

import os
import signal
import threading
import time

import pytest

from appliance.power.simulate.fleet import _without_interrupts


def test_an_interrupt_waits_until_a_process_has_started() -> None:
    ended = threading.Event()
    other = threading.Thread(target=ended.wait, args=(30,))
    other.start()  # with SIGINT open, as the threads of numerical libraries have it
    started = []

    def start() -> None:
        with _without_interrupts():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.2)
            started.append(True)

    try:
        with pytest.raises(KeyboardInterrupt):
            start()
    finally:
        ended.set()
        other.join()
    assert started
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
