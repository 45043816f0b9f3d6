"""Keeps the screen up to date until it is stopped, whatever else is down."""

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack

from appliance.console.screen import facts, machine_line, screen
from appliance.console.snapshot import Snapshot
from appliance.console.sources import Sources
from appliance.console.terminal import HIDE_CURSOR, SHOW_CURSOR, Terminal, single_keys, write

LOOK_SECONDS = 2.0
NEW_CODE_KEY = "r"


async def run(sources: Sources, terminal: Terminal, *, stop: asyncio.Event, once: bool = False) -> None:
    """Show the machine's state.

    Args:
        sources: where it is read.
        terminal: where it is shown.
        stop: ends it.
        once: show it one time only.
    """
    changed = asyncio.Event()
    told: dict[str, str] = {}
    with ExitStack() as stack:
        if terminal.keys and not once:
            stack.enter_context(_keys(sources, changed))
        if terminal.draws and not once:
            write(HIDE_CURSOR)
            stack.callback(write, SHOW_CURSOR)
        while not stop.is_set():
            snapshot = await sources.read()
            if terminal.draws:
                width, height = terminal.size
                lines = screen(snapshot, width=width, height=height, keys=terminal.keys)
                if once:
                    write("\n".join(lines) + "\n")
                else:
                    terminal.draw(lines)
            else:
                told = _tell_changes(snapshot, told)
            if once:
                return
            changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await _first_of(stop, changed)


def _tell_changes(snapshot: Snapshot, told: dict[str, str]) -> dict[str, str]:
    """Write what is new since the last time, one line each."""
    now = dict(facts(snapshot))
    clock = time.strftime("%H:%M:%S")
    lines = [f"{clock} {name}: {value}" for name, value in now.items() if told.get(name) != value]
    if lines and snapshot.machine is not None and not told:
        lines.append(f"{clock} machine: {machine_line(snapshot.machine)}")
    if lines:
        write("".join(f"{line}\r\n" for line in lines))
    return now


async def _first_of(*events: asyncio.Event) -> None:
    waiting = [asyncio.create_task(event.wait(), name="wait") for event in events]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()


@contextlib.contextmanager
def _keys(sources: Sources, changed: asyncio.Event) -> Iterator[None]:
    """Act on keys. There is one; nothing that is typed reaches a shell."""
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()

    async def renew() -> None:
        await sources.renew_code()
        changed.set()

    def read() -> None:
        try:
            typed = os.read(sys.stdin.fileno(), 64)
        except OSError:
            typed = b""
        if not typed:
            loop.remove_reader(sys.stdin)
        if NEW_CODE_KEY.encode() in typed.lower() and not tasks:
            task = asyncio.create_task(renew(), name="renew the code")
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    with single_keys():
        loop.add_reader(sys.stdin, read)
        try:
            yield
        finally:
            loop.remove_reader(sys.stdin)
            for task in tasks:
                task.cancel()
