"""Runs another program for a rung: no shell, no terminal, a time limit, and only so much of what it says."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from appliance.power.errors import RungError

MAX_OUTPUT = 4096
"""Bytes that are kept of what a program says; the rest is read and dropped."""
KILL_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Ran:
    """How a program ended."""

    status: int
    said: str
    """What it wrote, on one line."""


async def run(program: str | Path, arguments: Sequence[str], *, environment: Mapping[str, str], seconds: float) -> Ran:
    """Run a program to its end.

    It gets the given environment and nothing of this process's. When it takes too long, its whole process group is
    ended.

    Raises:
        RungError: it can't be started, or takes too long.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            program,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=dict(environment),
            cwd="/",
            start_new_session=True,
        )
    except OSError as error:
        raise RungError(f"{program} can't be started: {error.strerror or error}") from error
    said = bytearray()
    try:
        async with asyncio.timeout(seconds):
            while chunk := await process.stdout.read(MAX_OUTPUT) if process.stdout is not None else b"":
                said += chunk[: MAX_OUTPUT - len(said)]
            status = await process.wait()
    except TimeoutError:
        _kill_group(process.pid)  # whoever holds the pipe open, also when the program itself has ended
        raise RungError(f"{program} did not end within {seconds:g} s{_quoted(said)}") from None
    finally:
        await _end(process)
    return Ran(status, _one_line(said))


async def _end(process: asyncio.subprocess.Process) -> None:
    """End what is left of a program: first politely, then not."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.returncode is not None:
            return
        _kill_group(process.pid, number)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(KILL_SECONDS):
                await process.wait()


def _kill_group(leader: int, number: signal.Signals = signal.SIGKILL) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, number)


def _one_line(said: bytes | bytearray) -> str:
    text = said.decode(errors="replace")
    return " ".join("".join(character if character.isprintable() else " " for character in text).split())


def _quoted(said: bytearray) -> str:
    text = _one_line(said)
    return f"; it said: {text[-200:]}" if text else ""
