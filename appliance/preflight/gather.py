"""Runs the script on a machine and takes what it prints, without trusting it."""

import asyncio
import contextlib
import os
import re
import secrets
import shlex
import signal
import time
from dataclasses import dataclass
from importlib.resources import files

from appliance.preflight.dump import LONGEST_DUMP, Dump, parse
from appliance.preflight.errors import HostKeyError, UnreachedError
from appliance.preflight.report import Moment
from appliance.preflight.target import Target
from appliance.preflight.wanted import Wanted

SECONDS = 60.0
"""How long a machine may take for everything. One that is idle takes less than a second."""
_SSH_FAILED = 255
_LONGEST_COMPLAINT = 8192
_PEER = re.compile(r"[A-Za-z0-9][A-Za-z0-9.:_-]{0,252}")


@dataclass(frozen=True, slots=True)
class Gathered:
    """What a machine told, and when."""

    dump: Dump
    moment: Moment
    seconds: float


def script(wanted: Wanted, token: str) -> str:
    """Return the script that a machine is to run; everything that comes from settings is quoted for its shell."""
    host = files("appliance.preflight.host")
    peer = wanted.peer if wanted.peer is not None and _PEER.fullmatch(wanted.peer.host) else None
    variables = {
        "token": token,
        "state": wanted.state,
        "models": wanted.models,
        "files": "\n".join(one.file for one in wanted.experts if one.file.isprintable()),
        "peer_host": peer.host if peer is not None else "",
        "peer_port": str(peer.port) if peer is not None else "",
        "probe": host.joinpath("probe.py").read_text(encoding="utf-8"),
    }
    lines = [f"{name}={shlex.quote(value)}" for name, value in variables.items()]
    return "\n".join((*lines, host.joinpath("collect.sh").read_text(encoding="utf-8")))


async def gather(target: Target, wanted: Wanted, *, seconds: float = SECONDS) -> Gathered:
    """Have a machine describe itself.

    Raises:
        HostKeyError: its host key is not the known one, or none is known.
        DumpError: it answers something else.
        UnreachedError: it does not answer.
    """
    token = secrets.token_hex(16)
    began, clock = time.time(), time.monotonic()
    try:
        process = await asyncio.create_subprocess_exec(
            *target.command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise UnreachedError(f"{target.command[0]} can't be started: {error.strerror}") from error
    conversation = _Conversation(process)
    try:
        async with asyncio.timeout(seconds):
            data, complaint, first = await conversation.hold(script(wanted, token).encode())
    except TimeoutError:
        raise UnreachedError(f"{target.reached} has not finished within {seconds:.0f} s") from None
    finally:
        await conversation.end()
    if target.host is not None and process.returncode == _SSH_FAILED:
        raise _translated(target, complaint)
    return Gathered(parse(data, token), Moment(began, first), time.monotonic() - clock)


class _Conversation:
    """A process that reads the script and answers; it ends with all that it started."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def hold(self, text: bytes) -> tuple[bytes, bytes, float]:
        """Send the script; return what came back, what was complained of, and when the first of it came.

        Nothing is read beyond one byte more than a dump may have; then the process is ended.
        """
        process = self._process
        async with asyncio.TaskGroup() as group:
            group.create_task(self._send(text), name="send the script")
            complaint = group.create_task(_complaint(process.stderr), name="read complaints")
            data, first = await _read(process.stdout, LONGEST_DUMP + 1)
            if len(data) > LONGEST_DUMP:
                self._kill()
        if len(data) <= LONGEST_DUMP:
            await process.wait()
        return data, complaint.result(), first

    async def _send(self, text: bytes) -> None:
        stdin = self._process.stdin
        if stdin is None:
            return
        # A machine that does not read the script says by its answer what is wrong.
        with contextlib.suppress(ConnectionError):
            stdin.write(text)
            await stdin.drain()
        with contextlib.suppress(ConnectionError):
            stdin.close()
            await stdin.wait_closed()

    async def end(self) -> None:
        """End it, if it has not ended. What it still had to say is thrown away, or asyncio would wait for it."""
        self._kill()
        for stream in (self._process.stdout, self._process.stderr):
            while stream is not None and await stream.read(1 << 16):
                pass
        await self._process.wait()

    def _kill(self) -> None:
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)


async def _read(stream: asyncio.StreamReader | None, limit: int) -> tuple[bytes, float]:
    """Read up to a limit; return it, and the time at which its first bytes came."""
    data, first = b"", 0.0
    while stream is not None and len(data) < limit and (piece := await stream.read(limit - len(data))):
        first = first or time.time()
        data += piece
    return data, first or time.time()


async def _complaint(stream: asyncio.StreamReader | None) -> bytes:
    """Read to the end, and keep the beginning: who does not read keeps the other side from going on."""
    data = b""
    while stream is not None and (piece := await stream.read(1 << 16)):
        data = (data + piece)[:_LONGEST_COMPLAINT]
    return data


def _translated(target: Target, complaint: bytes) -> UnreachedError:
    text = complaint.decode("utf-8", "replace")
    lines = ["".join(c if c.isprintable() else " " for c in line).strip() for line in text.splitlines()]
    said = next((line for line in reversed(lines) if line), "it did not say why")[:200]
    where = target.reached
    if "HOST IDENTIFICATION HAS CHANGED" in text:
        return HostKeyError(
            f"{where}: has another host key than the known one. If the machine was set up anew, remove the old key "
            f"(ssh-keygen -R {target.host}); otherwise somebody is between you and it."
        )
    if "Host key verification failed" in text or "host key is known" in text:
        return HostKeyError(
            f"{where}: its host key is not known here. Log in once by ssh {where}, and compare what it shows with "
            "the machine's screen."
        )
    if "Permission denied" in text:
        return UnreachedError(f"{where}: refuses the log-in ({said}). See user and key; passwords are not asked for.")
    return UnreachedError(f"{where}: {said}")
