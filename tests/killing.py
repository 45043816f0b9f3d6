"""Processes that are killed at a chosen step: kill -9 in the middle of whatever they do."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

DISK_STEPS: tuple[tuple[Any, str], ...] = (
    (os, "fsync"),
    (os, "replace"),
    (os, "unlink"),
    (os, "rmdir"),
    (os, "symlink"),
    (os, "fchmod"),
)
JOIN_SECONDS = 60.0

_processes = multiprocessing.get_context("forkserver")


def die_at(step: int, steps: tuple[tuple[Any, str], ...] = DISK_STEPS) -> None:
    """Have this process killed right before the call of that number, counted over all of these functions."""
    counted = 0

    def counting(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal counted
            counted += 1
            if counted == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **named)

        return call

    for owner, name in steps:
        setattr(owner, name, counting(getattr(owner, name)))


class Child:
    """A process of its own that runs a function, and may be killed at a step."""

    def __init__(self, function: Callable[..., None], *arguments: Any) -> None:
        """Start it; it gets a connection to say something as its first argument."""
        self._here, there = _processes.Pipe()
        self.process = _processes.Process(target=function, args=(there, *arguments), daemon=True)
        self.process.start()
        there.close()

    def hear(self, seconds: float = JOIN_SECONDS) -> Any:
        """Return what it says next, or None when it died before."""
        try:
            return self._here.recv() if self._here.poll(seconds) else None
        except EOFError:
            return None

    def join(self) -> bool:
        """Wait for its end, and return whether it was killed."""
        self.process.join(JOIN_SECONDS)
        assert self.process.exitcode in {0, -signal.SIGKILL}, self.process.exitcode
        return self.process.exitcode == -signal.SIGKILL

    def end(self) -> None:
        """End it, if it still runs."""
        if self.process.is_alive():
            self.process.terminate()
        self.process.join(JOIN_SECONDS)
        self._here.close()


def preload(*modules: str) -> None:
    """Have new processes begin with these modules; to be called before the first one."""
    _processes.set_forkserver_preload(list(modules))


type Say = Connection
