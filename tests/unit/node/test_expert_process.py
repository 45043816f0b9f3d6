"""Supervision of real child processes, which play experts as scripts."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import psutil
import pytest

from appliance.bus.messages import ExpertStatus
from appliance.node import expert as supervision
from appliance.node.expert import ExpertProcess
from appliance.node.supervised import ExpertLoad

READY = {"url": "http://127.0.0.1:9/v1", "model": "m", "context": 512, "slots": 2, "capabilities": ["chat"]}

SAYS_READY = f"print({json.dumps(json.dumps(READY))}, flush=True)"
STAYS = "import sys; sys.stdin.read()"
SERVES = f"""
import http.server, json
class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header("Content-Type", "application/json"); self.end_headers()
        self.wfile.write(json.dumps(dict(active=1, queued=2, generated_tokens=30)).encode())
    def log_message(self, *_): pass
server = http.server.HTTPServer(("127.0.0.1", 0), Health)
url = "http://127.0.0.1:%d/v1" % server.server_port
print(json.dumps({READY!r} | dict(url=url)), flush=True)
server.serve_forever()
"""


class Supervised:
    """A supervised script and what was reported of it."""

    def __init__(self, script: str, http: aiohttp.ClientSession, command: tuple[str, ...] | None = None) -> None:
        self.statuses: list[ExpertStatus] = []
        self.pauses: list[float] = []
        self.process = ExpertProcess(
            name="small",
            node="attic",
            command=command or (sys.executable, "-c", script),
            environment=dict(os.environ),
            http=http,
            report=self._report,
            advertise=lambda url: url.replace("127.0.0.1", "192.0.2.7"),
        )

    async def _report(self, status: ExpertStatus) -> None:
        self.statuses.append(status)

    async def until(self, state: str, count: int = 1) -> ExpertStatus:
        async with asyncio.timeout(30):
            while len(found := [status for status in self.statuses if status.state == state]) < count:
                await asyncio.sleep(0.01)
        return found[count - 1]

    @property
    def states(self) -> list[str]:
        return [status.state for status in self.statuses]


@asynccontextmanager
async def supervised(script: str, command: tuple[str, ...] | None = None) -> AsyncIterator[Supervised]:
    before = psutil.Process().children()
    async with aiohttp.ClientSession() as http:
        running = Supervised(script, http, command)
        task = asyncio.create_task(running.process.run())
        try:
            yield running
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    assert running.states[-1] == "stopped"
    assert psutil.Process().children() == before


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorter pauses, so that the tests see several."""
    monkeypatch.setattr(supervision, "FIRST_BACKOFF_SECONDS", 0.05)
    monkeypatch.setattr(supervision, "LAST_BACKOFF_SECONDS", 0.2)
    monkeypatch.setattr(supervision, "PROBE_INTERVAL_SECONDS", 0.02)


async def test_a_ready_expert_is_announced_with_the_address_that_others_reach() -> None:
    async with supervised(f"{SAYS_READY}; {STAYS}") as running:
        ready = await running.until("ready")
        assert running.states == ["starting", "ready"]
    assert (ready.url, ready.context, ready.slots, ready.model) == ("http://192.0.2.7:9/v1", 512, 2, "m")
    assert ready.capabilities == ("chat",)


@pytest.mark.usefixtures("quick")
async def test_an_expert_that_fails_is_started_again_after_pauses_that_grow(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with supervised("import sys; print('noise', file=sys.stderr); sys.exit('rouse: no such model')") as running:
        last = await running.until("failed", count=5)
    assert running.states[:10] == ["starting", "failed"] * 5
    assert last.error == "rouse: no such model"
    assert last.restarts == 5
    again = [record.args for record in caplog.records if "starting it again" in record.message]
    pauses = [args[2] for args in again if isinstance(args, tuple)]
    assert pauses[:5] == [0.05, 0.1, 0.2, 0.2, 0.2]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "it was killed by signal 11 (Segmentation fault)"),
        ("raise SystemExit(3)", "exit code 3"),
        ("pass", "exit code 0"),
        ("import sys; print('done', file=sys.stderr)", "exit code 0"),
        (f"print('hello', flush=True); {STAYS}", "it said something that the daemon does not understand"),
        (f"print('x' * 100_000, flush=True); {STAYS}", "it said something that the daemon does not understand"),
    ],
)
async def test_the_reason_is_what_really_happened(script: str, reason: str) -> None:
    async with supervised(script) as running:
        assert (await running.until("failed")).error == reason


async def test_a_program_that_does_not_exist_is_a_failure_like_any_other() -> None:
    async with supervised("", command=("/nowhere/rouse",)) as running:
        assert "it can't be started" in str((await running.until("failed")).error)


@pytest.mark.usefixtures("quick")
async def test_an_expert_that_answers_no_health_check_is_restarted() -> None:
    async with supervised(f"{SAYS_READY}; {STAYS}") as running:
        failed = await running.until("failed")
    assert failed.error == "it hung: it did not answer its health check"


@pytest.mark.usefixtures("quick")
async def test_the_load_is_read_and_finished_processes_tokens_stay_counted() -> None:
    async with supervised(SERVES) as running:
        await running.until("ready")
        async with asyncio.timeout(10):
            while running.process.load != ExpertLoad(active=1, queued=2, generated_tokens=30):
                await asyncio.sleep(0.01)
        (child,) = (child for child in psutil.Process().children() if SERVES in child.cmdline())
        child.kill()
        await running.until("failed")
        assert running.process.load == ExpertLoad(generated_tokens=30)


async def test_a_process_that_ignores_sigterm_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "STOP_SECONDS", 0.2)
    script = f"import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SAYS_READY}; time.sleep(60)"
    async with supervised(script) as running:
        await running.until("ready")


async def test_what_an_expert_waits_for_is_said_while_it_starts() -> None:
    waiting = json.dumps(json.dumps({"waiting": "waiting for workers: 192.0.2.9:50053"}))
    async with supervised(f"print({waiting}, flush=True); {SAYS_READY}; {STAYS}") as running:
        await running.until("ready")
        assert running.states == ["starting", "starting", "ready"]
    assert running.statuses[1].error == "waiting for workers: 192.0.2.9:50053"
    assert running.statuses[2].error is None
