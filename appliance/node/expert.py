"""One expert process: started, watched, restarted with back-off, stopped.

The child says on its standard output, as one line of JSON, where it listens once its model is loaded, and
before, as lines of their own, what it waits for.
It ends itself when its standard input closes, so that it never outlives the daemon, however that dies.
"""

import asyncio
import contextlib
import logging
import signal
from collections import deque
from collections.abc import Callable, Mapping, Sequence

import aiohttp

from appliance.node.supervised import LINE, Ready, Report, SupervisedExpert

_log = logging.getLogger(__name__)

FIRST_BACKOFF_SECONDS = 1.0
LAST_BACKOFF_SECONDS = 60.0
STEADY_SECONDS = 60.0
"""An expert that was ready for this long has recovered: the next failure starts the back-off anew."""
PROBE_INTERVAL_SECONDS = 5.0
MAX_FAILED_PROBES = 6
"""Probes in a row without an answer before a hung process is killed."""
STOP_SECONDS = 10.0
LINE_LIMIT = 64 * 1024


class ExpertProcess(SupervisedExpert):
    """Keeps one expert running as a child until it is cancelled."""

    def __init__(
        self,
        *,
        name: str,
        node: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        http: aiohttp.ClientSession,
        report: Report,
        advertise: Callable[[str], str] = lambda url: url,
        key: str = "",
    ) -> None:
        """Take what to run, with its environment, and what every supervised expert takes."""
        super().__init__(name=name, node=node, http=http, report=report, advertise=advertise, key=key)
        self._command = command
        self._environment = environment
        self._ready_at = float("inf")

    async def run(self) -> None:
        """Start the expert, and again whenever it ends, until cancelled."""
        backoff = FIRST_BACKOFF_SECONDS
        loop = asyncio.get_running_loop()
        try:
            while True:
                self._ready_at = float("inf")
                reason = await self._run_once()
                self._forget_process()
                if loop.time() - self._ready_at >= STEADY_SECONDS:
                    backoff = FIRST_BACKOFF_SECONDS
                self._restarts += 1
                _log.error("expert %s ended: %s; starting it again in %.0f s", self._name, reason, backoff)
                await self._say("failed", error=reason)
                await asyncio.sleep(backoff)
                backoff = min(backoff * 2, LAST_BACKOFF_SECONDS)
        finally:
            await self._say("stopped")

    async def _run_once(self) -> str:
        """Run the process to its end and return why it ended."""
        await self._say("starting")
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                env=self._environment,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                limit=LINE_LIMIT,
            )
        except OSError as error:
            return f"it can't be started: {error}"
        assert process.stdout is not None  # noqa: S101 - asked for above
        assert process.stderr is not None  # noqa: S101 - asked for above
        last_lines: deque[str] = deque(maxlen=1)
        errors = asyncio.create_task(self._forward(process.stderr, last_lines), name=f"stderr of {self._name}")
        watch = asyncio.create_task(self._watch(process.stdout), name=f"watch {self._name}")
        ended = asyncio.create_task(process.wait(), name=f"wait for {self._name}")
        try:
            await asyncio.wait([watch, ended], return_when=asyncio.FIRST_COMPLETED)
            hung = watch.result() if watch.done() and not ended.done() else None
        finally:
            watch.cancel()
            await _stop(process)
            await asyncio.wait([errors, ended, watch], timeout=STOP_SECONDS)
            errors.cancel()
        return hung or _reason(process.returncode, last_lines)

    async def _watch(self, stdout: asyncio.StreamReader) -> str:
        """Report the expert as ready, then probe it; return why it must be ended."""
        try:
            ready = await self._until_ready(stdout)
        except ValueError:  # pydantic's own, and a line beyond the limit
            return "it said something that the daemon does not understand"
        _log.info("expert %s is ready at %s", self._name, ready.url)
        self._ready_at = asyncio.get_running_loop().time()
        await self._say("ready", ready=ready)
        failed = 0
        while failed < MAX_FAILED_PROBES:
            failed = 0 if await self._probe(ready.url) else failed + 1
            await asyncio.sleep(PROBE_INTERVAL_SECONDS)
        return "it hung: it did not answer its health check"

    async def _until_ready(self, stdout: asyncio.StreamReader) -> Ready:
        """Raises ValueError."""
        while True:
            line = await stdout.readline()
            if not line:
                await asyncio.Event().wait()
            said = LINE.validate_json(line)
            if isinstance(said, Ready):
                return said
            await self._say("starting", error=said.waiting)

    async def _forward(self, stderr: asyncio.StreamReader, last_lines: deque[str]) -> None:
        while True:
            try:
                line = await stderr.readline()
            except ValueError:
                continue  # a line beyond the limit is dropped
            if not line:
                return
            text = line.decode(errors="replace").rstrip()
            if text:
                last_lines.append(text)
                _log.info("%s: %s", self._name, text)


def _reason(code: int | None, last_lines: Sequence[str]) -> str:
    """Return why a process ended, in one line; the last one of a failed program's log says it best."""
    if code is not None and code < 0:
        return f"it was killed by signal {-code} ({signal.strsignal(-code)})"
    if code and last_lines:
        return last_lines[-1]
    return f"exit code {code}"


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.stdin is not None:
        process.stdin.close()
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        _log.warning("process %d does not stop; killing it", process.pid)
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
